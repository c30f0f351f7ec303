"""Colours of a source: ratios of the light of its draws in one aperture, the same in every band.

Draws of all bands are images at one PSF, the target PSF, so that an aperture on the sky holds the same part
of the source in each. The aperture is the circle of two Petrosian radii about the centre of least asymmetry
(medians of the draws) in the band of highest S/N per pixel; neighbours are left out in all bands, pixel by
pixel or, where they were fitted too, by the source's share of the light of each draw. Draws are taken as the
store keeps them, so that a band that is added later has the colours that it would have had at once.
With F the light inside,

    color_{b1}_{b2} = -2.5 log10(F_b1 / F_b2)   mag AB,

for neighbouring bands in the order of the survey file. ``color_gradient_{b1}_{b2}`` is the colour between
half of a Petrosian radius and one less that within half: below zero where a galaxy is bluer outside.

Where bands were sampled together draw n of one goes with draw n of the other; else they are independent, so
that every pair of them is a draw of the colour. Draws of each band are first moved away from their median by
the factor by which the interval of its flux is wider than that of its draws. Where the calibration of bands
together has numbers for colours, the interval is theirs instead (``calibrated_colour``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from galbatch.morphology import own_light
from galbatch.morphology.intervals import fewer_draws
from galbatch.types import BandStamps

# of apertures, inner and outer radius in Petrosian radii: as for flux_njy, and two of a gradient
_APERTURES = ((0.0, 2.0), (0.0, 0.5), (0.5, 1.0))
_LEAST_SPREAD = 1e-4  # mag
_PERCENTILES = {"p16": 15.865525393145708, "p50": 50.0, "p84": 84.13447460685429}


def colours(
    columns: dict[str, np.ndarray],
    bands: tuple[BandStamps, ...],
    samples: np.ndarray,
    oversample: int,
    paired: bool = False,
    table: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Columns (n,) ``color_{b1}_{b2}_{p16|p50|p84}``, the same of gradients, ``color_radius``, arcsec, and
    the light in it, ``color_flux_njy_{p16|p50|p84}_{band}``.

    ``columns``: measured ones of every band; ``samples`` (n, k, c, H, W): draws, NaN where there are none;
    ``paired``: draws of all bands were made together; ``table``: the numbers of their calibration for
    colours. NaN where a band has no pixel, where no band has a Petrosian radius, or where half of the draws
    hold no light.
    """
    n = len(samples)
    found = {"color_radius": np.full(n, np.nan, np.float32)}
    for (one, two), stem in product(pairwise(b.band for b in bands), ("color", "color_gradient")):
        found |= {f"{stem}_{one}_{two}_{p}": np.full(n, np.nan, np.float32) for p in _PERCENTILES}
    found |= {
        f"color_flux_njy_{p}_{b.band}": np.full(n, np.nan, np.float32) for b in bands for p in _PERCENTILES
    }
    for i in range(n):
        light, radius = light_in_apertures(columns, bands, samples[i], oversample, i)
        found["color_radius"][i] = radius
        factors = [widening(columns, b.band, i) for b in bands]
        magnitudes = [
            [widened_magnitudes(light[a, :, c], 1.0 if table else factors[c]) for a in range(len(_APERTURES))]
            for c in range(len(bands))
        ]
        for band, whole in zip(bands, (m[0][np.isfinite(m[0])] for m in magnitudes), strict=True):
            for name, level in _PERCENTILES.items() if whole.size else ():
                found[f"color_flux_njy_{name}_{band.band}"][i] = np.percentile(10 ** (-0.4 * whole), level)
        for (one, bluer), (two, redder) in pairwise(zip((b.band for b in bands), magnitudes, strict=True)):
            colour, inside, outside = (_pairs(*both, paired) for both in zip(bluer, redder, strict=True))
            for stem, values in (("color", colour), ("color_gradient", outside - inside)):
                values = values[np.isfinite(values)]
                if values.size:
                    ends = np.percentile(values, list(_PERCENTILES.values()))
                    ends = calibrated_colour(values, table[stem]) if table and values.size > 1 else ends
                    for name, end in zip(_PERCENTILES, ends, strict=True):
                        found[f"{stem}_{one}_{two}_{name}"][i] = end
    return found


def calibrated_colour(draws: np.ndarray, numbers: Mapping[str, Any]) -> np.ndarray:
    """(3,) p16, p50 and p84 of a colour from ``draws`` (k,) of it: m + z exp(a + b ln s), with m their
    median, s half of their 68% interval, and a, b and the three z what simulated galaxies asked for
    (``error`` and ``z``; see ``galbatch.morphology.calibration``). Wider about the median with fewer draws
    than theirs."""
    middle, spread = (float(v[0]) for v in middle_and_spread(np.asarray(draws, float)[None]))
    a, b = numbers["error"]
    ends = middle + np.array(numbers["z"]) * np.exp(a + b * np.log(spread))
    return ends[1] + fewer_draws(len(draws), numbers["draws"], b) * (ends - ends[1])


def middle_and_spread(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) median and half of the 68% interval of ``draws`` (n, k) of a colour, mag."""
    low, middle, high = np.percentile(draws, list(_PERCENTILES.values()), axis=1)
    return middle, np.maximum((high - low) / 2, _LEAST_SPREAD)


def _pairs(one: np.ndarray, two: np.ndarray, paired: bool) -> np.ndarray:
    """Differences of draws, each with its own or each with all."""
    return one - two if paired else np.subtract.outer(one, two)


def widening(columns: dict[str, np.ndarray], band: str, i: int) -> float:
    """The interval of ln flux over that of the draws, in one band; 1 where either is unknown."""
    low, high, least, most = (columns[f"flux_njy_{p}_{band}"][i] for p in ("raw16", "raw84", "p16", "p84"))
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.log(most / least) / np.log(high / low)
    return float(factor) if np.isfinite(factor) else 1.0


def widened_magnitudes(light: np.ndarray, factor: float) -> np.ndarray:
    """Magnitudes of draws of ``light`` (k,), ``factor`` times as far from their median; NaN of one without
    light, and of all where that is more than half."""
    good = np.isfinite(light) & (light > 0)
    if 2 * good.sum() < max(len(light), 1):
        return np.full(len(light), np.nan)
    magnitudes = -2.5 * np.log10(np.where(good, light, np.nan))
    middle = np.nanmedian(magnitudes)
    return middle + factor * (magnitudes - middle)


def light_in_apertures(
    columns: dict[str, np.ndarray],
    bands: Sequence[BandStamps],
    samples: np.ndarray,
    oversample: int,
    i: int,
) -> tuple[np.ndarray, float]:
    """Light (3, k, c) of the draws (k, c, H, W) of source ``i`` in the common ``_APERTURES``, NaN without a
    pixel, and the radius of the first, arcsec; NaN without one."""
    light = np.full((len(_APERTURES), *samples.shape[:2]), np.nan)
    snr = [columns[f"sn_per_pixel_raw50_{b.band}"][i] for b in bands]
    petro = [columns[f"r_petro_raw50_{b.band}"][i] for b in bands]
    judged = np.where(np.isfinite(snr) & np.isfinite(petro), snr, -np.inf)
    best = int(np.argmax(judged))
    if judged[best] == -np.inf:
        return light, np.nan
    centre = [columns[f"{axis}c_asymmetry_raw50_{bands[best].band}"][i] for axis in "xy"]
    there = to_scene(bands[best], i)
    scene = there[:, :2] @ np.asarray(centre, float) + there[:, 2]
    for c, band in enumerate(bands):
        if band.mask[i].all():
            continue
        back = to_scene(band, i)
        place = np.linalg.solve(back[:, :2], scene - back[:, 2])
        fine = oversample * band.ratio
        unit = petro[best] / band.pixel_scale_arcsec * fine
        own = own_light(samples[None, :, c], band.seg[i : i + 1], band.mask[i : i + 1], fine)
        others = (own.seg[0] > 1).repeat(fine, axis=0).repeat(fine, axis=1)
        for a, radii in enumerate(_APERTURES):
            inner, outer = (circle(samples.shape[-2:], (place + 0.5) * fine - 0.5, r * unit) for r in radii)
            pixels = np.where(others, 0.0, outer - inner if radii[0] else outer)
            used = pixels > 0
            light[a, :, c] = own.samples[0][:, used] @ pixels[used]
    return light, _APERTURES[0][1] * petro[best]


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
