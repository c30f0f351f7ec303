"""Do the tests catch a wrong number? Faults are planted one by one, and the tests of the module are run.

    python tests/mutation.py            # all of them
    python tests/mutation.py noise      # those with 'noise' in their module or line

The package is copied and the copy is changed: nothing here is touched. A line per fault says which test fails
first, or that none does ('SURVIVES': a test is missing). Exit code 1 when one survives that should not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fault:
    """``old`` stands once in ``module`` and becomes ``new``; ``tests``: the file that should notice."""

    module: str
    old: str
    new: str
    tests: str

    def planted(self, text: str) -> str:
        """The text of the module with the fault. Raises ``ValueError`` where it does not fit any more."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.module} has {self.old!r} {text.count(self.old)} times: mend this list")
        return text.replace(self.old, self.new)


OPERATOR, DRAWS = "tests/unit/forward/test_operator.py", "tests/unit/sampler/test_draws.py"
INTERVALS, SUMMARY = "tests/unit/morphology/test_intervals.py", "tests/unit/morphology/test_summary.py"
GOLDEN, SOURCES = "tests/golden/test_morphology_golden.py", "tests/faults/test_sources.py"
MEASURE, SEPARATE = "tests/unit/morphology/test_measure.py", "tests/unit/morphology/test_separate.py"
BANDS, REUSE = "tests/unit/cutouts/test_bands.py", "tests/unit/run/test_reuse.py"
NOISE, COMMIT = "tests/unit/cutouts/noise/test_measure.py", "tests/unit/store/test_posterior.py"
FAULTS = (
    Fault("forward/operator.py", "* self.otf.conj()", "* self.otf", OPERATOR),
    Fault("forward/operator.py", ".sum((-1, -3))", ".mean((-1, -3))", OPERATOR),
    Fault("forward/operator.py", "(correlated + white) * n**2", "(correlated + white)", OPERATOR),
    Fault("forward/noise.py", "return u * self.weight\n", "return u * self.weight.sqrt()\n", OPERATOR),
    Fault("forward/noise.py", "self.power.sqrt()", "self.power", OPERATOR),
    Fault(
        "forward/noise.py", "padded = np.roll(padded, (-r, -r)", "padded = np.roll(padded, (0, 0)", OPERATOR
    ),
    Fault(
        "forward/psf.py", "step = psf_scale / fine_scale", "step = 1.02 * psf_scale / fine_scale", OPERATOR
    ),
    Fault("sampler/guidance.py", "vw + a * vu", "vw + 0.9 * a * vu", DRAWS),
    Fault("sampler/guidance.py", "model.apply(z) + model.noise.sample(normal)", "model.apply(z)", DRAWS),
    Fault("sampler/random.py", "0x9E3779B9", "0x9E3779B8", "tests/unit/sampler/test_random.py"),
    Fault("cutouts/noise/measure.py", "return 1.4826 * float", "return 1.0 * float", NOISE),
    Fault("cutouts/noise/measure.py", "np.clip(z, -5, 5)", "np.clip(z, -0.5, 0.5)", NOISE),
    Fault(
        "cutouts/noise/variance.py",
        "0.0) / effective",
        "0.0) * effective",
        "tests/unit/cutouts/survey/test_layouts.py",
    ),
    Fault("store/posterior.py", "BitRound(KEEP_BITS)", "BitRound(KEEP_BITS - 1)", COMMIT),
    Fault("store/posterior.py", "if found != rows.tobytes():", "if False:", COMMIT),
    Fault(
        "store/parts.py", "digest_bytes(data)}", "digest_bytes(data[1:])}", "tests/unit/store/test_parts.py"
    ),
    Fault("morphology/intervals.py", "LEVEL * (k + 1)", "LEVEL * k", INTERVALS),
    Fault("morphology/intervals.py", "x[:, k - i] + f", "x[:, k - i] - f", INTERVALS),
    Fault("morphology/kernels/ordering.py", "_SIZE // 2 if low >= 0", "_SIZE // 2 if low > 0", GOLDEN),
    Fault("morphology/kernels/profile.py", "elif inside > high:", "elif high < 0.0:", MEASURE),
    Fault("morphology/separate.py", "used) > PASS", "used) > 2 * PASS", SEPARATE),
    Fault("morphology/kernels/segments.py", "max(runs[n, 1] - 1, 0)", "runs[n, 1]", GOLDEN),
    Fault("morphology/posterior.py", "(one + (place - low)", "(one + 0.9 * (place - low)", SUMMARY),
    Fault(
        "store/sky.py", "(2, 0x0F0F0F0F0F0F0F0F)", "(2, 0x0F0F0F0F0F0F0F07)", "tests/unit/store/test_hats.py"
    ),
    Fault("store/parts.py", 'note["batch"] != batch', "False", "tests/unit/store/test_verify.py"),
    Fault("cutouts/stamps.py", "(Flag.EDGE, raw.outside.any(axis=some) & on)", "(Flag.EDGE, ~on)", SOURCES),
    Fault("cutouts/stamps.py", "bad[:, cy, cx] & on", "bad[:, cy, 0] & on", SOURCES),
    Fault("cutouts/stamps.py", "Flag.GRID_MISMATCH if", "Flag.RESAMPLED if", BANDS),
    Fault("run/reuse.py", 'run.value("pixels_hash", at) != hashes', "hashes != hashes", REUSE),
    Fault("run/reuse.py", '["wcs"][:, :, :2] -= shift', '["wcs"][:, :, :2] += shift', REUSE),
    Fault("run/reuse.py", 'keys() - {"stamp_pix"} <= one', 'keys() - {"stamp_pix"} == one', REUSE),
    Fault("run/cluster.py", 'HERE = "127.0.0.1"', 'HERE = "0.0.0.0"', "tests/unit/run/test_cluster.py"),
)


def first_failure(package: Path, tests: str) -> str:
    """The first test of a file that fails with a copy of the package; '' if all pass."""
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", tests]
    known = {"PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": str(package.parent / "numba")}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | known, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    named = re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    return named[1] if named else f"pytest ended with {done.returncode}"


def survivors(wanted: str = "") -> list[Fault]:
    """Plant the faults that have ``wanted`` in their module or line; those that no test notices."""
    missed = []
    with tempfile.TemporaryDirectory(prefix="galbatch-mutation-") as folder:
        package = Path(folder) / "galbatch"
        shutil.copytree(ROOT / "galbatch", package, ignore=shutil.ignore_patterns("__pycache__"))
        for fault in (f for f in FAULTS if wanted in f"{f.module}: {f.old}"):
            path, began = package / fault.module, time.monotonic()
            sound = path.read_text()
            path.write_text(fault.planted(sound))
            caught = first_failure(package, fault.tests)
            path.write_text(sound)
            missed += [] if caught else [fault]
            what = f"{fault.module}: {fault.old.strip()} -> {fault.new.strip()}"
            print(f"{caught or 'SURVIVES':60}  {what}  ({time.monotonic() - began:.0f} s)", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(bool(survivors(*sys.argv[1:2])))
