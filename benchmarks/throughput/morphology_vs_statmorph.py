"""Morphology against statmorph: first that the numbers agree, then how long they take, on the same stamps.

    python benchmarks/throughput/morphology_vs_statmorph.py [--galaxies 30] [--npix 64 128] [--out
    results.jsonl]
    python benchmarks/throughput/morphology_vs_statmorph.py --real ../shared/data --npix 100

Times are CPU seconds of one thread. statmorph gets the whole stamp (a large ``cutout_extent``), the same
segmentation map and the same noise. "observed" is what the classical columns cost, "draw" what one posterior
draw costs: sky terms fixed, Sersic model convolved with the target PSF. The exit code is 1 where the numbers
do not agree.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import stamps

from galbatch.bench.timing import arguments, environment, keep

# column -> (attribute of statmorph, tolerance, relative?)
AGREEMENT = {
    "flux_njy": ("flux_circ", 0.01, True),
    "r_petro": ("rpetro_circ", 0.01, True),
    "r_petro_ellip": ("rpetro_ellip", 0.01, True),
    "r_half": ("rhalf_circ", 0.01, True),
    "r_half_ellip": ("rhalf_ellip", 0.01, True),
    "r20": ("r20", 0.01, True),
    "r50": ("r50", 0.01, True),
    "r80": ("r80", 0.01, True),
    "ellipticity": ("ellipticity_asymmetry", 0.01, False),
    "gini": ("gini", 0.005, False),
    "m20": ("m20", 0.02, False),
    "concentration": ("concentration", 0.02, False),
    "asymmetry": ("asymmetry", 0.01, False),
    "smoothness": ("smoothness", 0.01, False),
    "rms_asymmetry2": ("rms_asymmetry2", 0.01, False),
    "outer_asymmetry": ("outer_asymmetry", 0.02, False),
    "shape_asymmetry": ("shape_asymmetry", 0.02, False),
    "multimode": ("multimode", 0.02, False),
    "intensity": ("intensity", 0.02, False),
    "deviation": ("deviation", 0.02, False),
    "sn_per_pixel": ("sn_per_pixel", 0.01, True),
    "sersic_n": ("sersic_n", 0.03, True),
    "sersic_r_e": ("sersic_rhalf", 0.02, True),
}
GROUPS = {"positions, fluxes, radii": (), "+ Gini, M20": ("gini",), "+ C, A, S": ("cas",),
          "+ MID": ("gini", "mid"),
          "+ outer, shape asymmetry": ("shape",), "+ Sersic": ("sersic",),
          "everything": ("gini", "cas", "mid", "shape", "sersic")}  # fmt: skip
MIN_SHARE = 0.95


def reference(image, segment, sigma):
    """statmorph's result for one stamp, and its CPU seconds; None where it raises."""
    import statmorph

    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = statmorph.source_morphology(image.astype(float), segment,
                                                weightmap=np.full(image.shape, sigma),
                                                cutout_extent=50.0)  # fmt: skip
        except Exception:
            return None, time.process_time() - start
    own = next((f for f in found if f.label == 1), None)
    return own, time.process_time() - start


def differences(row, reference):
    """{column: (ours, statmorph's, difference, within its tolerance)} of one stamp: columns that both call
    good, and the flags as severities."""
    from galbatch.morphology import sersic_severity, severity

    own = int(severity(row["flags"]))
    found = {"flags": (own, reference.flag, 0.0, own == reference.flag)}
    if max(own, reference.flag) > 1:
        return found
    for name, (attribute, tolerance, relative) in AGREEMENT.items():
        if name.startswith("sersic") and (int(sersic_severity(row["flags"])) or reference.flag_sersic):
            continue
        value = float(getattr(reference, attribute))
        difference = abs(row[name] - value) / (abs(value) if relative else 1.0)
        found[name] = (float(row[name]), value, difference, difference <= tolerance)
    return found


def compare(ours, theirs):
    """{column: (agreeing, compared, largest difference)} over stamps."""
    table = {name: [0, 0, 0.0] for name in (*AGREEMENT, "flags")}
    for row, reference in zip(ours, theirs, strict=True):
        for name, (_, _, difference, good) in differences(row, reference).items():
            cell = table[name]
            cell[:] = cell[0] + good, cell[1] + 1, max(cell[2], difference)
    return {name: tuple(cell) for name, cell in table.items()}


def print_agreement(table):
    print(f"{'column':<18}{'tolerance':>10}{'agree':>12}{'largest difference':>22}")
    for name, (good, n, worst) in table.items():
        tolerance = AGREEMENT.get(name, ("", 0, False))
        text = f"{100 * tolerance[1]:g}%" if tolerance[2] else f"{tolerance[1]:g}"
        print(f"{name:<18}{text:>10}{good:>6} of {n:<3}{worst:>22.3g}")


def time_groups(images, segments, sigma, repeat):
    """{group: (ms an observed stamp, ms a draw)}: medians of CPU time on one thread."""
    from galbatch.morphology import measure

    rows = {}
    noise = np.broadcast_to(sigma[:, None, None], images.shape)
    for label, groups in GROUPS.items():
        settings = {"segmap": segments, "sigma": noise, "groups": groups, "threads": 1}
        draw = {"sky_sigma": 0.0, "detection_threshold": sigma, "outlier_sigma": 0.0, "psf_fwhm_pix": 2.0}
        times = []
        for extra in ({}, draw):
            measure(images[:2], 1.0, **{**settings, "segmap": segments[:2], "sigma": noise[:2], **extra,
                                        **({"detection_threshold": sigma[:2]} if extra else {})})  # fmt: skip
            taken = []
            for _ in range(repeat):
                start = time.process_time()
                measure(images, 1.0, **settings, **extra)
                taken.append(1e3 * (time.process_time() - start) / len(images))
            times.append(float(np.median(taken)))
        rows[label] = tuple(times)
    return rows


def run(npix, n, repeat):
    """Agreement and times at one stamp size, printed; returns the record."""
    from galbatch.morphology import measure

    images, segments, sigma = stamps.simulated(n, npix, seed=npix)
    pairs = [reference(*stamp) for stamp in zip(images, segments, sigma, strict=True)]
    known = [i for i, (found, _) in enumerate(pairs) if found is not None]
    noise = np.broadcast_to(sigma[:, None, None], images.shape)
    ours = measure(images, 1.0, segmap=segments, sigma=noise, threads=1)
    table = compare(ours[known], [pairs[i][0] for i in known])
    print(f"\n{npix} px, {len(known)} galaxies (statmorph raised on {n - len(known)})")
    print_agreement(table)
    theirs = 1e3 * float(np.median([seconds for _, seconds in pairs]))
    rows = time_groups(images, segments, sigma, repeat)
    print(f"\n{'CPU ms at ' + str(npix) + ' px':<28}{'observed':>10}{'draw':>10}")
    for label, (observed, draw) in rows.items():
        print(f"{label:<28}{observed:>10.2f}{draw:>10.2f}")
    everything = rows["everything"]
    print(
        f"{'statmorph, everything':<28}{theirs:>10.1f}   ratio {theirs / everything[0]:.0f} observed, "
        f"{theirs / everything[1]:.0f} a draw"
    )
    shares = {name: good / compared for name, (good, compared, _) in table.items() if compared}
    return {"npix": npix, "galaxies": len(known), "agreement": shares, "ms": rows, "statmorph_ms": theirs}


def run_real(folder, npix):
    """Agreement on real JWST and HST stamps of ``folder``, survey by survey, and every difference, printed;
    the records."""
    from galbatch.morphology import measure

    surveys = {}
    for name, *stamp in stamps.real(folder, npix):
        surveys.setdefault(name.split()[0], []).append((name, *stamp))
    records = []
    for survey, found in surveys.items():
        rows, theirs, odd, raised = [], [], [], 0
        for name, image, segment, sigma in found:
            reference_row, _ = reference(image, segment, sigma)
            if reference_row is None:
                raised += 1
                continue
            noise = np.full(image.shape, sigma)
            row = measure(image[None], 1.0, segmap=segment, sigma=noise, threads=1)[0]
            rows.append(row)
            theirs.append(reference_row)
            odd += [
                (name, column, *d[:2]) for column, d in differences(row, reference_row).items() if not d[3]
            ]
        table = compare(rows, theirs)
        print(f"\n{survey}: {len(rows)} stamps of at most {npix} px (statmorph raised on {raised})")
        print_agreement(table)
        for name, column, own, other in odd:
            print(f"  {name:<24}{column:<18}{own:>12.5g}{other:>12.5g} (statmorph)")
        shares = {name: good / compared for name, (good, compared, _) in table.items() if compared}
        records.append({"survey": survey, "stamps": len(rows), "npix": npix, "agreement": shares, "odd": odd})
    return records


def main() -> int:
    options = arguments(__doc__, galaxies=30, npix=[64, 128], repeat=5, real=Path)
    import numba

    record = {"benchmark": "morphology_vs_statmorph", "numba": numba.__version__} | environment("cpu")
    if options.real:
        record["sizes"] = run_real(options.real, max(options.npix))
    else:
        record["sizes"] = [run(npix, options.galaxies, options.repeat) for npix in options.npix]
    keep(record, options.out)
    required = ("r_petro", "r_half", "r20", "r50", "r80", "gini", "m20", "concentration", "asymmetry",
                "smoothness",
                "sersic_n", "sersic_r_e", "flags")  # fmt: skip
    short = [
        f"{name} at {size['npix']} px: {size['agreement'][name]:.0%} {size.get('survey', '')}"
        for size in record["sizes"]
        for name in required
        if size["agreement"].get(name, 1.0) < MIN_SHARE
    ]
    if short:
        print("agreement below 95%: " + ", ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
