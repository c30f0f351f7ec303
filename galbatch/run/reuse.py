"""Sources taken over from an earlier run (``--update OLD``): those of which nothing changed that decides
their results, so that the run has the bytes that it would have had without.

Whether results could be the same is settled once, from the manifests: model, seed, bands, draws and what else
decides them. Which source is the same is settled where it is cut: all that was cut for it has the hash that
it had (``pixels_hash``). A source that failed is computed again. Where the run has bands that the earlier one
lacks, a source that is the same in all bands of that one keeps them, and the others alone are computed.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

from galbatch.interfaces import Denoiser
from galbatch.pipeline.context import Earlier, Piece
from galbatch.pipeline.hashes import pixel_hashes
from galbatch.store import (
    STATUS,
    BatchResult,
    DamagedBatch,
    PlanBatch,
    RunPaths,
    StoreLayout,
    difference,
    open_run,
    plan_batch,
    read_attempt,
    read_note,
    read_part,
)
from galbatch.types import StampBatch

REUSED, KEPT = "reused", 16  # batches of the earlier run that were looked at last
ADDED = "reused_in_old_bands"
WHY = {"new": "new", "failed_before": "failed before", "damaged": "damaged there", "changed": "changed"}
# settings that decide no result of a source, or that the comparison of layouts, models and pixels covers
_ELSEWHERE = {"catalog", "survey", "limit", "batch", "samples"}
_ELSEWHERE |= {"bands", "model", "stamp_arcsec", "stamp_pix"}
_MODEL = ("sha256", "hash", "calibration")
_LAYOUT = ("oversample", "target_fwhm_pix", "wavelength_um")


def obstacles(old: dict[str, Any], new: dict[str, Any], prior: Denoiser) -> list[str]:
    """What keeps a run from taking anything over from an earlier one, by their manifests: a line each."""
    was, now = old.get("settings", {}), new["settings"]
    one, two = (StoreLayout.from_attributes(manifest["layout"]) for manifest in (old, new))
    pairs = [(n, was.get(n), now[n]) for n in sorted(now) if n not in _ELSEWHERE]
    pairs += [(f"model {n}", old["model"].get(n), new["model"].get(n)) for n in _MODEL]
    pairs += [(n, _words(getattr(one, n)), _words(getattr(two, n))) for n in _LAYOUT]
    grids = [dict(zip(layout.bands, layout.pixel_ratio, strict=True)) for layout in (one, two)]
    pairs += [(f"pixel ratio of {n}", r, grids[1][n]) for n, r in grids[0].items() if n in grids[1]]
    pairs.append(("galbatch", old["versions"].get("galbatch"), new["versions"].get("galbatch")))
    if not two.arrays().keys() - {"stamp_pix"} <= one.arrays().keys():  # what it keeps, that one has not
        pairs.append(("samples", was.get("samples"), now["samples"]))
    found = [f"{name} was {before}, is {after}" for name, before, after in pairs if before != after]
    if one.bands != two.bands:
        if not added(old, new):
            found.append(f"bands were {_words(one.bands)}, are {_words(two.bands)}")
        elif two.joint:
            found.append("bands were added, and all are sampled together: --separate keeps the others")
        elif prior.spec.channels != 1:
            found.append("bands were added, and the model does not see each by itself")
        elif not one.samples:
            found.append(
                "bands were added, and colours need draws of the others, which that run did not store"
            )
    return found


def added(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The bands of a run that the earlier one lacks, where it has all others; else []."""
    before, now = old["layout"]["bands"], new["layout"]["bands"]
    return [band for band in now if band not in before] if set(before) < set(now) else []


def remark(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What to do so that bands that are added leave the others as they were; '' where there is nothing."""
    config = new["config"]["survey_resolved"]
    if not added(old, new) or config["segment_bands"]:
        return ""
    before = [band for band in new["layout"]["bands"] if band in old["layout"]["bands"]]
    return (
        f"bands are added ({', '.join(added(old, new))}), and segments, found in all bands together, change "
        f"with them: segment_bands = {before} in the survey file keeps them as they were"
    ).replace("'", '"')


def _words(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


class Reuse:
    """The run in ``root`` for batches of another one."""

    def __init__(self, root: str, bands: tuple[str, ...]) -> None:
        self.run = open_run(root)
        # numbers in the run of the bands that the earlier one has
        self.bands = [bands.index(band) for band in self.run.layout.bands]
        self.whole = len(bands) == len(self.bands)
        self._flags = lru_cache(KEPT)(self._read_flags)

    def __call__(
        self, rows: PlanBatch, pieces: list[Piece]
    ) -> tuple[list[Piece], list[tuple[np.ndarray, BatchResult]], Counter]:
        """What is left to compute of the pieces that were cut for ``rows``; (places among the rows, results)
        of the others; and how many there are of each kind and for each reason."""
        known = self.run.locate(rows.columns["source_id"].tolist())
        counts: Counter = Counter()
        left: list[Piece] = []
        taken = []
        for places, stamps, _ in pieces:
            kept = np.ones(len(places), bool)
            found: dict[tuple[int, int], list[tuple[int, int]]] = {}
            for n, hashes in enumerate(pixel_hashes(stamps)):
                at = known.get(str(stamps.source_id[n]))
                flags = rows.columns["prescreen_flags"][places[n]]
                if why := self._why_not(at, hashes[self.bands], int(flags), stamps):
                    counts.update(why)
                    continue
                counts[REUSED if self.whole else ADDED] += 1
                kept[n] = False
                if at is not None:
                    found.setdefault(self._kind(at), []).append((n, at))
            if kept.any() or not len(kept):
                left.append((places[kept], stamps if kept.all() else stamps.take(kept), None))
            for kind, members in found.items():
                own = np.array([n for n, _ in members])
                result = self._result(rows.batch, kind, [at for _, at in members])
                if self.whole:
                    taken.append((places[own], result))
                else:
                    left.append((places[own], stamps.take(own), Earlier(self.run.layout.bands, result)))
        return left, taken, counts

    def _why_not(self, at: int | None, hashes: np.ndarray, flags: int, stamps: StampBatch) -> list[str]:
        """Why a source cannot be taken over from row ``at``; [] where it can."""
        run = self.run
        batch = -1 if at is None else at // run.layout.batch
        if at is None or not run.paths.part(batch).exists():
            return ["new"]
        if run.value("status", at) == STATUS.index("failed"):
            return ["failed_before"]
        before = self._flags(batch)
        if before is None:
            return ["damaged"]
        other = run.value("pixels_hash", at) != hashes
        bands = [f"changed:{stamps.bands[n].band}" for n in np.array(self.bands)[other]]
        same = not bands and int(before[at % run.layout.batch]) == flags
        return [] if same else ["changed", *bands]

    def _read_flags(self, batch: int) -> np.ndarray | None:
        """Pre-screen flags of the sources of a batch; None where its part or a shard is not what was
        written."""
        paths = self.run.paths
        try:
            files = read_note(paths, batch).get("files", {})
        except DamagedBatch:
            return None
        if not files or any(difference(paths.root / name, digest) for name, digest in files.items()):
            return None
        return plan_batch(paths.plan, batch * self.run.layout.batch).columns["prescreen_flags"]

    def _kind(self, at: int) -> tuple[int, int]:
        """Batch and side of the stamp: what is taken over together."""
        layout = self.run.layout
        side = int(self.run.value("stamp_pix", at)) if layout.sides else layout.stamp_pix
        return at // layout.batch, side

    def _result(self, number: int, kind: tuple[int, int], at: list[int]) -> BatchResult:
        """Rows of one kind as a part of batch ``number``."""
        run, layout, (batch, side) = self.run, self.run.layout, kind
        table = read_part(run.paths, batch).take([row % layout.batch for row in at])
        columns = {name: _numpy(table[name]) for name in table.schema.names}
        arrays = {name: np.stack([run.value(name, row) for row in at]) for name in layout.arrays()}
        for name, spec in layout.arrays().items():
            if spec.is_image:
                inside = layout.place(side, spec)
                arrays[name] = arrays[name][..., inside, inside]
        shift = layout.place(side).start / np.array(layout.pixel_ratio or [1])
        arrays["wcs"][:, :, :2] -= shift[:, None]
        return BatchResult(number, arrays, columns)


def _numpy(column: Any) -> np.ndarray:
    """(n,) or (n, k) values of a column of a part."""
    if hasattr(column, "flatten") and hasattr(column.type, "list_size"):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(object) if values.dtype.kind in "UO" else values.copy()


def said_of(old: str, counts: Counter) -> str:
    """What was taken over and why the rest was not, in a line."""
    bands = ", ".join(f"{n.partition(':')[2]} {k}" for n, k in sorted(counts.items()) if ":" in n)
    why = [f"{counts[n]} {word}" for n, word in WHY.items() if counts[n]]
    line = f"update: {counts[REUSED]} sources taken over from {old}"
    if counts[ADDED]:
        line = f"update: {counts[ADDED]} sources taken over from {old} in its bands, and drawn in those added"
    return (
        line + (f"; computed: {', '.join(why)}" if why else "") + (f" (pixels in {bands})" if bands else "")
    )


def counted(paths: RunPaths) -> Counter:
    """Sources of all committed batches by what became of them."""
    total: Counter = Counter()
    for batch in paths.committed():
        total.update(read_attempt(paths, batch).get("update", {}))
    return total
