"""Which pixels belong to the source, which to its neighbours, and the sky level that is left.

The segmentation is the survey's, or made with SEP (Barbary 2016; the algorithms of SExtractor, Bertin &
Arnouts 1996) on all bands together (``scene``): threshold 1.5 sigma on a filtered image, deblended. ``seg``
is 0 for sky, 1 for the source, 2 and more for neighbours.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sep
from scipy import ndimage

from galbatch.cutouts.noise.variance import patched
from galbatch.types import Flag

THRESHOLD_SIGMA = 1.5
MIN_AREA_PIX = 6
DEBLEND_LEVELS, DEBLEND_CONTRAST = 32, 0.005
SEARCH_PIX = 4
TOUCH_PIX = 2
NEIGHBOUR_LIMIT = 0.2
_SEP_LOCK = threading.Lock()  # the C library keeps state between calls
SKY_LIMIT_SIGMA, SKY_SHARE, MIN_SKY_PIX, GROW_PIX, WING_EXCESS = 0.5, 0.25, 25, 3, 0.3


@dataclass
class Neighbours:
    """Of a batch in one band: ``near`` (n, h, w) bool, neighbours grown by a pixel; columns (n,); flags
    (n,)."""

    near: np.ndarray
    columns: dict[str, np.ndarray]
    flags: np.ndarray


def segment(data: np.ndarray, sigma: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, bool]:
    """``seg`` (h, w) of a stamp, and whether the source was separated from a blend with another."""
    if bad.all():
        return np.zeros(data.shape, np.int32), False
    labels, blended = _detect(data, sigma, bad)
    own = _central(labels)
    return _relabel(labels, own), bool(own and blended == own)


def from_map(labels: np.ndarray, label: int = 0) -> np.ndarray:
    """``seg`` (h, w) of a stamp of the survey's map; ``label`` of the source, where it is not positive that
    at the centre."""
    return _relabel(labels, label if label > 0 else _central(labels))


def touching(seg: np.ndarray) -> np.ndarray:
    """Labels of the neighbours in ``seg`` (h, w) that come within ``TOUCH_PIX`` pixels of the source."""
    near = ndimage.binary_dilation(seg == 1, np.ones((3, 3), bool), TOUCH_PIX)
    return np.unique(seg[near & (seg > 1)])


def masked_labels(policy: str, seg: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Labels in ``seg`` (h, w) of the neighbours whose pixels are not fitted under a policy of the survey
    file; ``near``: those that touch the source."""
    every = np.unique(seg[seg > 1])
    fitted = {"mask": every[:0], "separate": near, "keep": every}[policy]
    return np.setdiff1d(every, fitted)


def describe_neighbours(
    data: np.ndarray,
    sigma: np.ndarray,
    bad: np.ndarray,
    seg: np.ndarray,
    acf_sum: float = 1.0,
    masked: Sequence[np.ndarray] | None = None,
) -> Neighbours:
    """What neighbours and sky do to the stamps (n, h, w) of a band (data and sigma in one unit; ``bad``
    pixels unusable; ``seg`` as above). ``acf_sum``: sum of the noise autocorrelation, for the error of the
    sky level; ``masked``: labels of the neighbours of each source that ``near`` holds, all where None."""
    n = len(data)
    near, flags = np.zeros(data.shape, bool), np.zeros(n, np.int64)
    columns = {
        k: np.full(n, np.nan, np.float32) for k in ("neighbour_frac", "background_njy", "background_err_njy")
    }
    columns["n_neighbours"] = np.zeros(n, np.int32)
    for i in range(n):
        if bad[i].all() or not np.any(seg[i] == 1):
            flags[i] |= Flag.NO_SEG
        if bad[i].all():
            continue
        others = seg[i] >= 2 if masked is None else np.isin(seg[i], masked[i])
        near[i] = ndimage.binary_dilation(others, np.ones((3, 3), bool)) & (seg[i] != 1)
        frac, count = _contamination(data[i], bad[i], seg[i])
        columns["neighbour_frac"][i], columns["n_neighbours"][i] = frac, count
        flags[i] |= Flag.NEIGHBOUR if frac > NEIGHBOUR_LIMIT else 0
        level, error, noise, share = _sky(data[i], sigma[i], bad[i], seg[i], acf_sum)
        columns["background_njy"][i], columns["background_err_njy"][i] = level, error
        off = share > SKY_SHARE and abs(level) > max(5 * error, SKY_LIMIT_SIGMA * noise)
        flags[i] |= Flag.BACKGROUND if off else 0
    return Neighbours(near, columns, flags)


def _detect(data: np.ndarray, sigma: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels (h, w) and the label of the central object if it was blended with another (0: it was not)."""
    image = np.ascontiguousarray(patched(np.where(bad, 0, data), bad), np.float32)
    good = ~bad
    scale = np.median(sigma[good])
    image -= np.float32(_clipped_median(image[good]))
    # bad pixels are filled: as a mask they keep SEP from deblending what lies next to them
    noise = np.ascontiguousarray(np.where(good, sigma, scale), np.float32)
    try:
        with _SEP_LOCK:
            objects, labels = sep.extract(
                image,
                THRESHOLD_SIGMA,
                err=noise,
                minarea=MIN_AREA_PIX,
                deblend_nthresh=DEBLEND_LEVELS,
                deblend_cont=DEBLEND_CONTRAST,
                clean=True,
                segmentation_map=True,
            )
    except Exception as error:
        if "pixel buffer" not in str(error) and "deblend" not in str(error):
            raise
        labels, _ = ndimage.label(image > 3 * noise)
        return labels, 0
    labels[bad] = 0
    own = _central(labels)
    merged = own > 0 and bool(objects["flag"][own - 1] & sep.OBJ_MERGED)
    return labels, own if merged else 0


def _central(labels: np.ndarray) -> int:
    """The label nearest to the central pixel, at most ``SEARCH_PIX`` away; 0 if none."""
    h, w = labels.shape
    cy, cx, r = h // 2, w // 2, SEARCH_PIX
    box = labels[max(cy - r, 0) : cy + r + 1, max(cx - r, 0) : cx + r + 1]
    yy, xx = np.nonzero(box)
    if len(yy) == 0:
        return 0
    distance = (yy - min(cy, r)) ** 2 + (xx - min(cx, r)) ** 2
    best = np.argmin(distance)
    return int(box[yy[best], xx[best]]) if distance[best] <= r * r else 0


def _relabel(labels: np.ndarray, own: int) -> np.ndarray:
    values, inverse = np.unique(labels, return_inverse=True)
    out, count = np.zeros(len(values), np.int32), 2
    for k, value in enumerate(values):
        if value == own and own > 0:
            out[k] = 1
        elif value > 0:
            out[k], count = count, count + 1
    return out[inverse].reshape(labels.shape)


def _contamination(data: np.ndarray, bad: np.ndarray, seg: np.ndarray) -> tuple[float, int]:
    """Share of the segmented positive flux that belongs to neighbours, and their number."""
    light = np.where(bad, 0.0, np.maximum(np.nan_to_num(data), 0.0))
    source, others = light[seg == 1].sum(), light[seg >= 2].sum()
    total = source + others
    return float(others / total) if total > 0 else 0.0, len(np.unique(seg[seg >= 2]))


def _sky(
    data: np.ndarray, sigma: np.ndarray, bad: np.ndarray, seg: np.ndarray, acf_sum: float
) -> tuple[float, float, float, float]:
    """Sky level, its error (correlated noise included), the noise, and which share of the stamp is sky.

    The level is the clipped median of the half of the blank pixels that is farthest from all segments. Wings
    of a source that fills its stamp fall off outwards, a sky level does not: where the nearer half is
    brighter by more than ``WING_EXCESS`` of the level, the level is light of the source, and the share is
    given as 0.
    """
    distance = ndimage.distance_transform_edt(seg == 0) if seg.any() else np.full(seg.shape, np.inf)
    blank = (distance > GROW_PIX) & ~bad
    if int(blank.sum()) < MIN_SKY_PIX:
        return np.nan, np.nan, np.nan, 0.0
    far = blank & (distance >= np.median(distance[blank]))
    near = blank & ~far
    noise = float(np.median(sigma[blank]))
    error = 1.253 * noise * np.sqrt(max(acf_sum, 1.0) / far.sum())
    level = _clipped_median(data[far])
    wings = (
        near.sum() >= MIN_SKY_PIX and level > 0 and _clipped_median(data[near]) > (1 + WING_EXCESS) * level
    )
    return level, float(error), noise, 0.0 if wings else blank.sum() / blank.size


def _clipped_median(values: np.ndarray) -> float:
    """Median of finite values (n,) after three clippings at three times their spread."""
    values = np.sort(values)  # once: what a clipping keeps lies together
    for _ in range(3):
        middle = _median(values)
        away = np.abs(values - middle)
        kept = values[away <= 3 * (1.4826 * _median(np.sort(away)))]
        if len(kept) in (0, len(values)):
            break
        values = kept
    return float(_median(values))


def _median(ordered: np.ndarray) -> np.floating:
    """``np.median`` of sorted values (n,) without NaN, a tenth of its time where they are few."""
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else np.float32(np.nan)
