"""How large the stamp of a source is: the smallest class that holds its light.

``stamp = "auto"``: every source is cut in the smallest class, and those that outgrow it are cut again in the
next, up to the largest, so that few pixels are read for most. A source outgrows its stamp

- where light at its border, on three sides at least, would add up to ``BORDER_SHARE`` of its flux over the
  stamp: an exponential disc has then lost 4% outside;
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
BORDER_PIX, BORDER_SHARE, BORDER_SIGNIFICANCE = 2, 0.1, 5.0
CORRELATION = 1.5  # of drizzled noise: the error of a mean over that of independent pixels
SEGMENT_SHARE, FALL_PIX = 0.0025, 8

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
    """(n,) bool: whether the source does not fit its stamp, in any band."""
    found = np.zeros(len(stamps.source_id), bool)
    for i in range(len(found)):
        used = [(band, ~band.mask[i]) for band in stamps.bands if not band.mask[i].all()]
        reaches = [_reaches(band, i, good & (band.seg[i] == 1)) for band, good in used]
        found[i] = any(outgrows(b.data[i], b.sigma[i], good & (b.seg[i] < 2)) for b, good in used)
        found[i] |= any(share > SEGMENT_SHARE for share, _ in reaches) and all(fall for _, fall in reaches)
    return found


def outgrows(data: np.ndarray, sigma: np.ndarray, used: np.ndarray) -> bool:
    """Whether a source shows light at the border of its stamp, on three sides at least, that would add up to
    ``BORDER_SHARE`` of its flux over the stamp."""
    total, sides = data[used].sum(), []
    for cut in (np.s_[:BORDER_PIX], np.s_[-BORDER_PIX:], np.s_[:, :BORDER_PIX], np.s_[:, -BORDER_PIX:]):
        good = used[cut]
        if good.sum() < BORDER_PIX * 5:
            continue
        level = data[cut][good].mean()
        error = CORRELATION * np.sqrt((sigma[cut][good].astype(float) ** 2).sum()) / good.sum()
        sides.append(level > max(BORDER_SHARE * total / data.size, BORDER_SIGNIFICANCE * error))
    return total > 0 and len(sides) >= 3 and sum(sides) >= 3


def _reaches(band: BandStamps, i: int, own: np.ndarray) -> tuple[float, bool]:
    """Share of the segment's light at the border, and whether it is fainter there than just inside."""
    border = np.ones(own.shape, bool)
    width, near = max(1, BORDER_PIX // band.ratio), max(1, FALL_PIX // band.ratio)
    border[width:-width, width:-width] = False
    last, light = own & border, np.where(own, band.data[i], 0.0)
    total = light.sum()
    if not last.any() or total <= 0:
        return 0.0, True
    inside = ndimage.binary_dilation(last, iterations=near) & own
    inside &= ~ndimage.binary_dilation(border, iterations=width)
    return float(light[last].sum() / total), bool(inside.any() and light[last].mean() < light[inside].mean())
