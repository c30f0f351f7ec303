"""Colours of a source: ratios of the light of its draws in one aperture, the same in every band.

Draws of all bands are images at one PSF, the target PSF, so that an aperture on the sky holds the same part
of the source in each. The aperture is the circle of two Petrosian radii about the centre of least asymmetry
(medians of the draws) in the band of highest S/N per pixel; neighbours are left out in all bands, pixel by
pixel or, where they were fitted too, by the source's share of the light of each draw.
With F the light inside,

    color_{b1}_{b2} = -2.5 log10(F_b1 / F_b2)   mag AB,

for neighbouring bands in the order of the survey file. Draws of two bands are independent, so that every pair
of them is a draw of the colour; percentiles are over all pairs. Draws of each band are first moved away from
their median by the factor by which the interval of its flux is wider than that of its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from galbatch.morphology.separate import fitted_neighbours
from galbatch.types import BandStamps

APERTURE_PETROSIAN = 2.0  # radii, as for flux_njy
_PERCENTILES = {"p16": 15.865525393145708, "p50": 50.0, "p84": 84.13447460685429}


def colours(
    columns: dict[str, np.ndarray],
    bands: tuple[BandStamps, ...],
    samples: np.ndarray,
    oversample: int,
    shares: dict[tuple[int, int], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Columns (n,) ``color_{b1}_{b2}_{p16|p50|p84}``, and ``color_radius``, arcsec.

    ``columns``: measured ones of every band; ``samples`` (n, k, c, H, W): draws, NaN where there are none;
    ``shares``: the source's share (k, H, W) of its draws by source and band, one where there is none. NaN
    where a band has none, where no band has a Petrosian radius, or where half of the draws hold no light.
    """
    n = len(samples)
    found = {"color_radius": np.full(n, np.nan, np.float32)}
    for one, two in pairwise(b.band for b in bands):
        found |= {f"color_{one}_{two}_{p}": np.full(n, np.nan, np.float32) for p in _PERCENTILES}
    for i in range(n):
        own = {c: share for (n, c), share in (shares or {}).items() if n == i}
        light, radius = light_in_aperture(columns, bands, samples[i], oversample, i, own)
        found["color_radius"][i] = radius
        magnitudes = [
            widened_magnitudes(light[:, c], widening(columns, b.band, i)) for c, b in enumerate(bands)
        ]
        for (one, bluer), (two, redder) in pairwise(zip((b.band for b in bands), magnitudes, strict=True)):
            pairs = np.subtract.outer(bluer, redder)
            for name, level in _PERCENTILES.items() if pairs.size else ():
                found[f"color_{one}_{two}_{name}"][i] = np.percentile(pairs, level)
    return found


def widening(columns: dict[str, np.ndarray], band: str, i: int) -> float:
    """The interval of ln flux over that of the draws, in one band; 1 where either is unknown."""
    low, high, least, most = (columns[f"flux_njy_{p}_{band}"][i] for p in ("raw16", "raw84", "p16", "p84"))
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.log(most / least) / np.log(high / low)
    return float(factor) if np.isfinite(factor) else 1.0


def widened_magnitudes(light: np.ndarray, factor: float) -> np.ndarray:
    """Magnitudes of the draws that hold light, ``factor`` times as far from their median; none where that is
    fewer than half of ``light`` (k,)."""
    good = light[np.isfinite(light) & (light > 0)]
    if 2 * len(good) < max(len(light), 1):
        return np.empty(0)
    magnitudes = -2.5 * np.log10(good)
    middle = np.median(magnitudes)
    return middle + factor * (magnitudes - middle)


def light_in_aperture(
    columns: dict[str, np.ndarray],
    bands: Sequence[BandStamps],
    samples: np.ndarray,
    oversample: int,
    i: int,
    shares: dict[int, np.ndarray] | None = None,
) -> tuple[np.ndarray, float]:
    """Light (k, c) of the draws (k, c, H, W) of source ``i`` in the common aperture, and its radius, arcsec;
    NaN without one. ``shares``: its share (k, H, W) of the draws, by band, where neighbours were fitted."""
    light = np.full(samples.shape[:2], np.nan)
    snr = [columns[f"sn_per_pixel_raw50_{b.band}"][i] for b in bands]
    petro = [columns[f"r_petro_raw50_{b.band}"][i] for b in bands]
    judged = np.where(np.isfinite(snr) & np.isfinite(petro), snr, -np.inf)
    best = int(np.argmax(judged))
    if judged[best] == -np.inf:
        return light, np.nan
    radius = APERTURE_PETROSIAN * petro[best]
    centre = [columns[f"{axis}c_asymmetry_raw50_{bands[best].band}"][i] for axis in "xy"]
    there = to_scene(bands[best], i)
    scene = there[:, :2] @ np.asarray(centre, float) + there[:, 2]
    for c, band in enumerate(bands):
        back = to_scene(band, i)
        place = np.linalg.solve(back[:, :2], scene - back[:, 2])
        fine = oversample * band.ratio
        pixels = circle(
            samples.shape[-2:], (place + 0.5) * fine - 0.5, radius / band.pixel_scale_arcsec * fine
        )
        others, images = band.seg[i] > 1, samples[:, c]
        if shares and c in shares:
            others, images = others & ~fitted_neighbours(band.seg[i], band.mask[i]), images * shares[c]
        pixels = np.where(others.repeat(fine, axis=0).repeat(fine, axis=1), 0.0, pixels)
        used = pixels > 0
        light[:, c] = images[:, used] @ pixels[used]
    return light, radius


def to_scene(band: BandStamps, i: int) -> np.ndarray:
    """(2, 3): affine map of x, y in the stamp of source ``i`` to pixels that are one for all bands."""
    if band.to_scene is not None:
        return band.to_scene[i]
    middle = band.data.shape[-1] // 2 * np.ones(2)
    return np.column_stack([band.ratio * np.eye(2), -band.ratio * middle])


def circle(shape: tuple[int, int], centre: np.ndarray, radius: float) -> np.ndarray:
    """(H, W) share of each pixel inside a circle; at its edge, as if the edge were straight."""
    y, x = np.indices(shape)
    return np.clip(radius + 0.5 - np.hypot(x - centre[0], y - centre[1]), 0.0, 1.0)
