"""The draws of a source made again: from its seeds, and from its pixels, of which a run keeps the hash.

A draw depends on the seed of the run, the source's id and the band, on its pixels and on the model. On the
kind of machine that measured them, with the same versions, draws come out bit for bit; elsewhere sums are
rounded otherwise, and the mean of the draws may differ by ``ROUNDING`` (docs/decisions/0204). On a CPU every
source is sampled alone. On a card sources are sampled together, and how a card adds depends on how many they
are: the whole batch is made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from galbatch.config import RunSettings
from galbatch.cutouts import Survey, SurveyConfig, open_survey
from galbatch.display import count
from galbatch.errors import InputError, ReadError, RunError
from galbatch.pipeline.batch import pixels_of, process_batch
from galbatch.pipeline.context import Context
from galbatch.pipeline.hashes import draw_hashes, pixel_hashes
from galbatch.prior.folder import folder_files
from galbatch.run.context import ContextSpec, Cutter, open_context, own_threads
from galbatch.store import PlanBatch, Run, differences, fingerprint, hash_json, plan_batch
from galbatch.store.layout import OF_PIXELS
from galbatch.store.parts import read_attempt
from galbatch.store.posterior import KEEP_BITS, round_mantissa

ROUNDING = 0.1  # of the spread, rms over the stamp; draws of another seed: sqrt(2 / number of draws)


@dataclass(frozen=True)
class Redraw:
    """Draws made again. ``arrays``: of the source, by name as in the store, in the place of the largest
    stamp; ``equal``: bit for bit those that were measured; else their mean differs by ``difference`` of the
    spread (rms)."""

    source_id: Any
    arrays: dict[str, np.ndarray]
    equal: bool
    difference: float
    seconds: float

    @property
    def line(self) -> str:
        """What came out, in words."""
        draws, bands = self.arrays["samples"].shape[:2]
        what = f"source {self.source_id}: {draws} draws in {count(bands, 'band')} made again"
        if self.equal:
            return f"{what}, bit for bit those that were measured ({self.seconds:.1f} s)"
        return (
            f"{what}, not bit for bit but within rounding: their mean differs by {self.difference:.2g} of "
            f"the spread from that of the draws that were measured ({self.seconds:.1f} s)"
        )


def survey_of(manifest: dict[str, Any]) -> Survey:
    """The survey as a run had it, with the noise that was measured for it."""
    config = SurveyConfig.from_resolved(manifest["config"]["survey_resolved"])
    return open_survey(config, measured=manifest.get("measured"))


class Redrawer:
    """Makes draws of a run again. ``prior``: the object that the run was made with, if it was one."""

    def __init__(self, run: Run, prior: Any = None) -> None:
        self.run, self.prior, self.layout = run, prior, run.layout
        self.settings = RunSettings.from_record(run.manifest["settings"])
        self._whole = replace(run.layout, samples=True, regenerate=False)
        self._made: dict[str, tuple[dict[str, np.ndarray], float]] = {}
        self._compared: dict[str, Redraw] = {}
        self._pixels: tuple[str, dict[str, np.ndarray]] = ("", {})  # of the last source that was cut
        self._rows: PlanBatch | None = None
        self._key = f"redraw:{run.paths.root}:{time.time_ns()}"  # a prior object of its own, at least

    @cached_property
    def survey(self) -> Any:
        """The survey as the run had it."""
        return survey_of(self.run.manifest)

    def holds(self, source_id: int | str) -> bool:
        """Have the draws of this source just been made?"""
        return str(source_id) in self._made

    def pixels(self, source_id: int | str) -> dict[str, np.ndarray]:
        """``observed``, ``sigma`` and ``mask`` of a source, cut again. Raises ``RunError`` where they are not
        what was measured."""
        if self._pixels[0] != str(source_id):
            position = self.run.index(source_id)
            rows = self._plan(position).take([position % self.layout.batch])
            with _readable(source_id):
                cut = self._checked(Cutter(self.survey, self._whole))
                found = pixels_of(cut, self._whole, rows)
            self._pixels = str(source_id), {name: found[name][0] for name in OF_PIXELS}
        return self._pixels[1]

    def draws(self, source_id: int | str) -> Redraw:
        """The draws of a source. Raises ``RunError`` where its pixels or the model are not those of the run,
        or what is drawn is not what was measured."""
        name = str(source_id)
        if not self.holds(source_id):
            self.run.refuse_failed(source_id)
            with _readable(source_id):
                self._make(self.run.index(source_id))
        if name not in self._compared:
            self._compared[name] = self._compare(source_id, *self._made[name])
        return self._compared[name]

    def _plan(self, position: int) -> PlanBatch:
        if self._rows is None or self._rows.batch != position // self.layout.batch:
            self._rows = plan_batch(self.run.paths.plan, position)
        return self._rows

    def _make(self, position: int) -> None:
        """Draw the source at a position; on a card its whole batch. Only the last made are kept."""
        began, rows = time.monotonic(), self._plan(position)
        kind = read_attempt(self.run.paths, rows.batch).get("device", ["cpu"])[0]
        if kind == "cpu":
            rows = rows.take([position % self.layout.batch])
        with own_threads():
            result = process_batch(self._context("cpu" if kind == "cpu" else "auto"), rows)
        seconds = (time.monotonic() - began) / len(rows)
        self._made, self._compared = {}, {}
        for place, source_id in enumerate(rows.columns["source_id"].tolist()):
            arrays = {name: values[place] for name, values in result.arrays.items()}
            self._made[str(source_id)] = arrays, seconds

    def _context(self, device: str) -> Context:
        manifest, settings = self.run.manifest, self.settings
        if settings.model == "object" and self.prior is None:
            raise RunError(
                f"{self.run.paths.root} was made with a prior object of a Python program: give it, "
                "galbatch.open_run(folder, prior=...)."
            )
        model, known = self.prior if settings.model == "object" else settings.model, manifest["model"]
        if known.get("hash") and hash_json(folder_files(model)) != known["hash"]:
            raise RunError(
                f"Model {settings.model} is not the one that {self.run.paths.root} was made with: put that "
                "one back to make its draws again."
            )
        spec = ContextSpec(
            f"{self._key}:{device}",
            str(self.run.paths.root),
            self.survey,
            model,
            self._whole,
            settings.mode,
            settings.seed,
            manifest.get("threads", 1),
            device,
            known["sha256"],
            settings.precision,
        )
        context = open_context(spec)
        return replace(context, cut=self._checked(context.cut))

    def _checked(self, cut: Any) -> Any:
        """A cutter that refuses pixels that are not those of the run."""

        def checked(columns: dict[str, np.ndarray]) -> list:
            pieces = cut(columns)
            for places, stamps in pieces:
                for place, found in zip(places, pixel_hashes(stamps), strict=True):
                    self._refuse_other(columns["source_id"][place], found)
            return pieces

        return checked

    def _refuse_other(self, source_id: Any, found: np.ndarray) -> None:
        """Raise ``RunError`` where the pixels of a source are others because a file of the survey is. Where
        no file changed they were rounded otherwise, and what is drawn says by how much."""
        known = self.run.hashes("pixels_hash", source_id)
        if np.array_equal(known, found):
            return
        if changed := self._changed_files:
            bands = [b for b, one, two in zip(self.layout.bands, known, found, strict=True) if one != two]
            raise RunError(
                "\n".join(
                    [
                        f"Source {source_id}: its pixels in {', '.join(bands)} are not those that were "
                        "measured, so its draws cannot be made again:",
                        *changed,
                        f"Put the files back, or make a new run: galbatch process ... --update "
                        f"{self.run.paths.root}",
                    ]
                )
            )

    @cached_property
    def _changed_files(self) -> list[str]:
        """One line per file of the survey that is not what it was."""
        before = [
            i for i in self.run.manifest["inputs"] if i["path"] != self.settings.catalog and i.get("hash")
        ]
        now = []
        for known in before:
            try:
                now.append(fingerprint(known["path"], False, known))
            except InputError:
                now.append({"path": known["path"], "size": 0, "hash": "(not there)"})
        return differences({"inputs": before}, {"inputs": now})

    def _compare(self, source_id: int | str, arrays: dict[str, np.ndarray], seconds: float) -> Redraw:
        """The arrays of a source held to what the run keeps of the draws that were measured. Raises
        ``RunError`` where they differ by more than rounding."""
        run, specs = self.run, self._whole.arrays()
        inside = self.layout.place(run.stamp_pix(source_id), specs["mean"])
        own = {name: arrays[name][..., inside, inside] for name in ("samples", "mean", "std")}
        mean, std = run.mean(source_id), run.std(source_id)
        if self.layout.regenerate:
            equal = np.array_equal(draw_hashes(own["samples"][None])[0], run.hashes("draws_hash", source_id))
        elif self.layout.samples:
            equal = _same(own["samples"], run.samples(source_id))
        else:
            equal = _same(own["mean"], mean) and _same(own["std"], std)
        with np.errstate(invalid="ignore", divide="ignore"):
            stored_to = np.abs(mean) * 2.0 ** -(KEEP_BITS + 1)
            away = (np.clip(np.abs(own["mean"] - mean) - stored_to, 0, None) / std) ** 2
        difference = float(np.sqrt(np.nanmean(away))) if np.isfinite(away).any() else 0.0
        alike = np.array_equal(np.isfinite(own["mean"]), np.isfinite(mean))
        if not equal and not (alike and difference <= ROUNDING):
            raise RunError(
                f"Source {source_id}: the draws made now are not those that were measured: their mean "
                f"differs by {difference:.2g} of the spread, more than the {ROUNDING:g} of rounding. "
                f"{_versions(run.manifest)}"
            )
        return Redraw(source_id, arrays, equal, difference, seconds)


@contextmanager
def _readable(source_id: int | str) -> Iterator[None]:
    """Raises ``RunError`` where a file of the survey cannot be read any more."""
    try:
        yield
    except ReadError as err:
        raise RunError(f"Source {source_id}: its pixels cannot be cut again: {err}") from err


def _same(made: np.ndarray, stored: np.ndarray) -> bool:
    return np.array_equal(round_mantissa(made), stored, equal_nan=True)


def _versions(manifest: dict[str, Any]) -> str:
    """Which versions differ from those of the run, in a sentence."""
    from galbatch.store import versions

    now, then = versions(), manifest.get("versions", {})
    other = [f"{n} {then[n]} then, {now.get(n, 'missing')} now" for n in then if now.get(n) != then[n]]
    return f"Versions: {'; '.join(other)}." if other else "All versions are those of the run."
