"""How large the stamp of a source is: the smallest class that holds its light.

``stamp = "auto"``: every source is cut in the smallest class, and those that outgrow it are cut again in the
next, up to the largest, so that few pixels are read for most. A source outgrows its stamp

- where light at its border that falls off outwards would add up to ``BORDER_SHARE`` of its flux over the
  stamp: an exponential disc has then lost 4% outside (docs/decisions/0042);
- or where its segment reaches the border with ``SEGMENT_SHARE`` of its light (an exponential disc has then
  lost about 1%) and falls off there: what rises towards the border is another's, a star's say, and a larger
  stamp would hold more of that.

Classes are a few, so that the sources of a batch are sampled together, and end where the prior has been
tried. A row's own ``stamp_arcsec`` chooses its class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from scipy import ndimage

from galbatch.types import BandStamps, StampBatch

CLASSES_PIX = (64, 96, 128)  # of the finest band; the prior is validated at 64 and 128
BORDER_PART = 16  # of the side: 4 pixels of 64
BORDER_SHARE, BORDER_SIGNIFICANCE, FALL_SIGMA = 0.1, 4.0, 2.5
CORRELATION = 1.5  # of drizzled noise: the error of a mean over that of independent pixels
SEGMENT_SHARE, SEGMENT_BORDER_PIX, SEGMENT_FALL_PIX = 0.0025, 2, 8

Cut = Callable[[dict[str, np.ndarray], int], StampBatch]


def classes(ratios: Iterable[int], largest: int = CLASSES_PIX[-1]) -> tuple[int, ...]:
    """Sides of stamps in pixels of the finest band, up to ``largest``: whole pixels, and as many on either
    side of the source, in bands of these ratios."""
    step = 2 * math.lcm(*ratios)
    whole = [-(-side // step) * step for side in (*CLASSES_PIX, largest)]
    return tuple(sorted({side for side in whole if side <= whole[-1]}))


def cut_fitting(
    cut: Cut, rows: dict[str, np.ndarray], sides: tuple[int, ...], scale_arcsec: float
) -> list[tuple[np.ndarray, StampBatch]]:
    """Stamps of sources (n,) in the class of each: (places among the rows, stamps) of each class that is
    used. ``scale_arcsec``: of a pixel of ``sides``."""
    n = len(rows["source_id"])
    wanted = np.asarray(rows.get("stamp_arcsec", np.full(n, np.nan)), float) / scale_arcsec
    stated = np.isfinite(wanted) & (wanted > 0)
    least = np.searchsorted(np.array(sides[:-1]) + 1e-6, np.where(stated, wanted, 0.0))
    pieces, grown = [], np.zeros(n, bool)
    for level, side in enumerate(sides):
        members = np.flatnonzero((least == level) | grown)
        grown = np.zeros(n, bool)
        if not len(members) and (level or n):
            continue
        stamps = cut({name: values[members] for name, values in rows.items()}, side)
        if level < len(sides) - 1:
            grown[members] = outgrown(stamps) & ~stated[members]
        kept = ~grown[members]
        if kept.any() or not n:
            pieces.append((members[kept], stamps if kept.all() else stamps.take(kept)))
    return pieces


def outgrown(stamps: StampBatch) -> np.ndarray:
    """(n,) bool: whether the source does not fit its stamp, in any band, and a larger one may hold more."""
    found = np.zeros(len(stamps.source_id), bool)
    for i in range(len(found)):
        used = [(band, ~band.mask[i]) for band in stamps.bands if _goes_on(~band.mask[i])]
        reaches = [_reaches(band, i, good & (band.seg[i] == 1)) for band, good in used]
        found[i] = any(outgrows(b.data[i], b.sigma[i], good & (b.seg[i] < 2)) for b, good in used)
        found[i] |= any(share > SEGMENT_SHARE for share, _ in reaches) and all(fall for _, fall in reaches)
    return found


def _goes_on(good: np.ndarray) -> bool:
    """Whether the image, usable where ``good`` (h, w), reaches the border of the stamp anywhere."""
    return bool(good[[0, -1]].any() or good[:, [0, -1]].any())


def outgrows(data: np.ndarray, sigma: np.ndarray, used: np.ndarray) -> bool:
    """Whether a source shows light at the border of its stamp (h, w), or of what is used of it, that falls
    off outwards there and would add up to ``BORDER_SHARE`` of its flux over the stamp.

    Of two opposite sides the fainter counts: what one side alone has, or two that meet, may be another's.
    """
    total = data[used].sum()
    if not total > 0:
        return False
    box = ndimage.find_objects(used.astype(np.int8))[0]
    data, sigma, used = (a[box] for a in (data, sigma, used))
    fainter = []
    for a, s, u in ((data, sigma, used), (data.T, sigma.T, used.T)):
        low, high = _side(a, s, u), _side(a[::-1], s[::-1], u[::-1])
        if low and high:
            fainter.append(min(low, high))
    if not fainter:
        return False
    level, error, fall, fall_error = np.array(fainter).T
    border, its_error = level.mean(), np.hypot.reduce(error) / len(error)
    seen = level.clip(min=0)
    falls = (seen * fall).sum() > FALL_SIGMA * np.hypot.reduce(seen * fall_error)
    return bool(falls and border > max(BORDER_SHARE * total / used.size, BORDER_SIGNIFICANCE * its_error))


def _side(data: np.ndarray, sigma: np.ndarray, used: np.ndarray) -> tuple[float, float, float, float] | None:
    """Mean at the first rows, its error, by how much it is brighter farther in, the error of that; None where
    too few pixels are used."""
    width = max(1, len(data) // BORDER_PART)
    means, errors = [], []
    for rows in (np.s_[:width], np.s_[2 * width : 3 * width]):
        good = used[rows]
        if good.sum() < 5 * width:
            return None
        means.append(float(data[rows][good].mean()))
        errors.append(
            CORRELATION * float(np.sqrt((sigma[rows][good].astype(float) ** 2).sum())) / int(good.sum())
        )
    return means[0], errors[0], means[1] - means[0], math.hypot(*errors)


def _reaches(band: BandStamps, i: int, own: np.ndarray) -> tuple[float, bool]:
    """Share of the segment's light at the border, and whether it is fainter there than just inside."""
    border = np.ones(own.shape, bool)
    width, near = max(1, SEGMENT_BORDER_PIX // band.ratio), max(1, SEGMENT_FALL_PIX // band.ratio)
    border[width:-width, width:-width] = False
    last, light = own & border, np.where(own, band.data[i], 0.0)
    total = light.sum()
    if not last.any() or total <= 0:
        return 0.0, True
    inside = ndimage.binary_dilation(last, iterations=near) & own
    inside &= ~ndimage.binary_dilation(border, iterations=width)
    return float(light[last].sum() / total), bool(inside.any() and light[last].mean() < light[inside].mean())
