"""Light of a source and of neighbours that were fitted with it, divided in each draw.

Every object has a template, a mean of two kinds. The symmetric one is at each pixel the lesser of the draw
and of the draw turned by 180 degrees about the object's centre (Lupton 2001, the deblender of SDSS); the
smooth one is the profile of the object in ellipses, from the pixels that are nearest to its segment, falling
outwards. Each pixel is shared in proportion to the templates; profiles are then made again of what is the
object's. A draw has no noise, which would bias the minimum, and is sharper than the data.

No division is known to be right. Draw k gives the kinds a weight w_k (in their geometric mean) and its source
a factor exp(s_k), evenly spread and as a normal variable, so that draws differ by what is not known
(docs/decisions/0023).

A galaxy within the segment that no deblending parts from its source stays in its numbers. It shows as a lump
of light without a counterpart on the other side of the centre (docs/decisions/0024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

ROUNDS = 2
SPREAD = 0.6  # standard deviation of the logarithm of the ratio of source to neighbour, where both have light
PROFILE_LEVEL = 0.05  # of the maximum: moments are of what is brighter
LEAST_SHARE = 1e-3  # of a pixel's light, for the object to whose segment it is nearest
DISPUTED = 0.3  # light that may be either's, over the source's: intervals hold below, and not above (0038)
# Two pieces of one galaxy (0038): light that may be either's, and height of the pass between their peaks over
# the lesser peak, in an image that is smoothed by so many fine pixels, found by halving an interval.
DISPUTED_PIECE, PASS, PASS_SIGMA_PIX, _HALVINGS = 0.08, 0.4, 1.0, 8
CENTRE_FWHM, LUMP_FWHM = 1.5, 1.0  # sigmas that smooth an image to find its centre, and its lumps
BRIGHT = 0.8  # of the brightest place of the smoothed image: a centroid there may be a galaxy's centre
LUMP_LEVEL = 0.6  # of the light at a place: most of it has no counterpart
_GOLDEN, _ROOT = (5**0.5 - 1) / 2, 2**0.5 - 1  # multiples fill (0, 1) evenly


def fitted_neighbours(seg: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels of neighbours that are not all masked, of ``seg`` (1 the source, larger its
    neighbours) and ``mask`` (h, w), True where not fitted."""
    labels = np.unique(seg[(seg > 1) & ~mask])
    return np.isin(seg, labels) & (seg > 1)


@dataclass(frozen=True)
class OwnLight:
    """``samples`` (n, k, H, W): draws with the light of fitted neighbours taken out; ``seg`` (n, h, w)
    without those; ``share``: {source: (k, H, W) its share of each draw} of those that had any;
    ``disputed`` (n,): so much light may be either's that the draws do not say whose, or no valley parts the
    source from a neighbour, so that they may be pieces of one galaxy."""

    samples: np.ndarray
    seg: np.ndarray
    share: dict[int, np.ndarray]
    disputed: np.ndarray


def own_light(samples: np.ndarray, seg: np.ndarray, mask: np.ndarray, oversample: int = 1) -> OwnLight:
    """Divide draws (n, k, H, W); ``seg``, ``mask`` (n, h, w) on pixels of ``oversample`` fine ones along a
    side, as in ``BandStamps``. Draws of a source without fitted neighbours stay as they are."""
    left, own, shares = np.array(seg), samples, {}
    disputed = np.zeros(len(seg), bool)
    for i in range(len(seg)):
        near = fitted_neighbours(seg[i], mask[i])
        if not near.any() or not (seg[i] == 1).any():
            continue
        used = np.where(near | (seg[i] == 1), seg[i], 0).repeat(oversample, 0).repeat(oversample, 1)
        share = shares[i] = own_share(samples[i], used)
        own = samples.copy() if own is samples else own
        own[i] *= share
        left[i][near] = 0
        light = np.nansum(own[i])
        either = np.nansum(samples[i] * np.minimum(share, 1 - share)) / light if light > 0 else np.inf
        disputed[i] = either > DISPUTED
        if not disputed[i] and either > DISPUTED_PIECE:
            disputed[i] = highest_pass(np.nan_to_num(samples[i]).mean(0), used) > PASS
    return OwnLight(own, left, shares, disputed)


def own_share(draws: np.ndarray, seg: np.ndarray) -> np.ndarray:
    """(k, H, W) share of the light of each draw that is the source's.

    ``draws`` (k, H, W), any unit; ``seg`` (H, W): 1 the source, larger its neighbours, 0 sky. One everywhere
    without the source or without neighbours."""
    labels = np.unique(seg[seg > 0])
    share = np.ones(draws.shape, np.float32)
    if len(labels) < 2 or labels[0] != 1:
        return share
    nearest = _nearest(seg)
    for k, draw in enumerate(draws):
        image = np.maximum(np.nan_to_num(draw), 0).astype(np.float64)
        factor = float(np.exp(SPREAD * special.ndtri(((k + 0.5) * _ROOT) % 1)))
        share[k] = _divide(image, seg, nearest, labels, ((k + 0.5) * _GOLDEN) % 1, factor)
    return share


def highest_pass(image: np.ndarray, seg: np.ndarray) -> float:
    """Height of the pass from the peak of the source to that of a neighbour, over the lesser of both: the
    highest of its neighbours'. ``image`` (H, W): the posterior mean; ``seg`` (H, W) as for ``own_share``."""
    smooth = ndimage.gaussian_filter(image.astype(np.float64), PASS_SIGMA_PIX)
    labels = np.unique(seg[seg > 0])
    peaks = [int(np.argmax(np.where(seg == label, smooth, -np.inf))) for label in labels]
    found = 0.0
    for label, peak in zip(labels[1:], peaks[1:], strict=True):
        level = np.where((seg == 1) | (seg == label), smooth, 0) / min(
            smooth.flat[peaks[0]], smooth.flat[peak]
        )
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            lands = ndimage.label(level >= middle, np.ones((3, 3)))[0].flat
            low, high = (middle, high) if lands[peaks[0]] == lands[peak] else (low, middle)
        found = max(found, low)
    return found


def _divide(
    image: np.ndarray, seg: np.ndarray, nearest: np.ndarray, labels: np.ndarray, weight: float, factor: float
) -> np.ndarray:
    """(H, W) share of the source of one draw."""
    centres = [_centre(image, seg == label) for label in labels]
    symmetric = [_symmetric(image, *centre) for centre in centres]
    regions = [nearest == label for label in labels]
    templates = symmetric
    for _ in range(ROUNDS):
        shares = _shares(image, templates, regions)
        profiles = [
            np.minimum(_profile(image * share, region, *centre), image)
            for share, region, centre in zip(shares, regions, centres, strict=True)
        ]
        templates = [s**weight * p ** (1 - weight) for s, p in zip(symmetric, profiles, strict=True)]
    return _shares(image, [factor * templates[0], *templates[1:]], regions)[0]


def _shares(image: np.ndarray, templates: list[np.ndarray], regions: list[np.ndarray]) -> list[np.ndarray]:
    """(H, W) share of each object: by the templates, and where there are none, of the nearest."""
    parts = [t + LEAST_SHARE * image * own for t, own in zip(templates, regions, strict=True)]
    total = np.sum(parts, axis=0)
    return [
        np.where(total > 0, p / np.where(total > 0, total, 1), own)
        for p, own in zip(parts, regions, strict=True)
    ]


def _nearest(seg: np.ndarray) -> np.ndarray:
    """(H, W) label of the nearest segment of each pixel."""
    places = ndimage.distance_transform_edt(seg == 0, return_distances=False, return_indices=True)
    return seg[tuple(places)]


def _centre(image: np.ndarray, segment: np.ndarray, power: int = 2) -> tuple[float, float]:
    """y, x of the half pixel nearest to the centroid of a power of the light of a segment."""
    y, x = np.nonzero(segment)
    light = image[y, x] ** power
    light = light / light.sum() if light.sum() > 0 else np.full(len(y), 1 / len(y))
    return float(np.rint(2 * (light @ y)) / 2), float(np.rint(2 * (light @ x)) / 2)


def _symmetric(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """(H, W) the lesser of the image and of the image turned by 180 degrees about (y, x), whole or half
    pixels; where that leaves the image, the lesser of it and of the falling median in rings."""
    turned, known = np.zeros_like(image), np.zeros(image.shape, bool)
    (a, b), (c, d) = (_overlap(n, round(2 * v)) for n, v in zip(image.shape, (y, x), strict=True))
    turned[a:b, c:d] = image[a:b, c:d][::-1, ::-1]
    known[a:b, c:d] = True
    template = np.minimum(image, turned)
    if not known.all():
        rows, columns = np.indices(image.shape)
        ring = np.rint(np.hypot(rows - y, columns - x)).astype(int)
        middle = ndimage.median(np.where(known, template, image), ring, np.arange(ring.max() + 1))
        template = np.where(known, template, np.minimum(image, np.minimum.accumulate(middle)[ring]))
    return template


def second_source(image: np.ndarray, seg: np.ndarray, fwhm_pix: float) -> float:
    """Share of a source's light that is in its largest lump without a counterpart on the other side of its
    centre: small for spirals and clumpy galaxies, whose light is spread over many, large for two galaxies.

    The centre is the peak of the smoothed image, or the centroid of its light or of its square where that is
    bright as well (between two galaxies it is not): the one that leaves least. ``image`` (H, W): the
    posterior mean, at a PSF of ``fwhm_pix``; ``seg`` (H, W): 1 the source, larger its neighbours, whose
    pixels and what lies opposite of them do not count. 0 without light."""
    inside, others = seg == 1, seg > 1
    light = np.where(others, 0.0, np.maximum(np.nan_to_num(image), 0)).astype(np.float64)
    total = light[inside].sum()
    if not total > 0:
        return 0.0
    smooth, seen = (ndimage.gaussian_filter(light, n * fwhm_pix) for n in (CENTRE_FWHM, LUMP_FWHM))
    whole = np.where(others, light.max(), light)

    def largest(y: float, x: float) -> float:
        unmatched = np.where(others, 0, light - _symmetric(whole, y, x))
        blurred = ndimage.gaussian_filter(unmatched, LUMP_FWHM * fwhm_pix)
        lumps, n = ndimage.label(inside & (blurred > LUMP_LEVEL * seen))
        return float(np.max(ndimage.sum_labels(unmatched, lumps, np.arange(1, n + 1)), initial=0.0) / total)

    bright = BRIGHT * seen[inside].max()
    middles = [_centre(light, inside, power) for power in (1, 2)]
    middles = [(y, x) for y, x in middles if seen[int(np.rint(y)), int(np.rint(x))] > bright]
    return min(largest(*centre) for centre in (_peak(smooth, inside), *middles))


def _peak(image: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    """y, x of the half pixel nearest to the maximum of a smooth image, by a parabola through three pixels."""
    place = np.unravel_index(np.argmax(np.where(where, image, -np.inf)), image.shape)
    out = []
    for axis, at in enumerate(place):
        line = np.pad(np.moveaxis(image, axis, 0)[:, place[1 - axis]], 1, mode="edge")
        before, middle, after = line[at : at + 3]
        bend = before - 2 * middle + after
        step = 0.5 * (before - after) / bend if bend < 0 else 0.0
        out.append(float(np.rint(2 * (at + np.clip(step, -0.5, 0.5))) / 2))
    return out[0], out[1]


def _overlap(n: int, twice: int) -> tuple[int, int]:
    """First and last + 1 of the pixels i of n whose mirror image, ``twice`` - i, is one of them."""
    return max(0, twice - n + 1), min(n, twice + 1)


def _profile(light: np.ndarray, region: np.ndarray, y: float, x: float) -> np.ndarray:
    """(H, W) mean of ``light`` over the pixels of ``region`` in ellipses about (y, x) of its moments, falling
    outwards."""
    own = np.where(region, light, 0.0)
    rows, columns = np.indices(light.shape)
    dy, dx = rows - y, columns - x
    weight = np.where(own > PROFILE_LEVEL * own.max(), own, 0.0)
    total = weight.sum()
    if total <= 0:
        return np.zeros_like(light)
    xx, xy, yy = ((weight * p).sum() / total for p in (dx * dx, dx * dy, dy * dy))
    area = xx * yy - xy * xy
    if area <= 1e-6:
        xx, xy, yy, area = 1.0, 0.0, 1.0, 1.0
    radius = np.sqrt((yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / area) * area**0.25
    ring = np.rint(radius).astype(int)
    size = ring.max() + 2
    number = np.bincount(ring[region], minlength=size)
    mean = np.bincount(ring[region], own[region], minlength=size) / np.maximum(number, 1)
    filled = np.flatnonzero(number)
    mean = np.minimum.accumulate(np.interp(np.arange(size), filled, mean[filled]))
    return np.interp(radius, np.arange(size), mean)
