"""Where the light of a source is: on masked pixels, beyond its stamp, or a neighbour's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from galbatch.cutouts import outgrows
from galbatch.flags import Flag
from galbatch.morphology import OwnLight, fitted_neighbours, second_source
from galbatch.types import BandStamps

MASKED_SHARE, LOST_SHARE = 0.1, 1 / 3  # of the light: caution, bad
CORE_LEVEL, CORE_SHARE = 0.5, 0.5  # the core: above half of the maximum; lost where half of it is masked
# by how much the segment is brighter elsewhere: one galaxy in a hundred, no galaxy (docs/decisions/0044)
NEAR_PIX, BRIGHTER, FAR_BRIGHTER = 2, 5, 20
APERTURE_INSIDE = 0.325  # of the stamp's side, above a Petrosian radius in which little is lost (0042)
OUTSHONE = 0.5  # share of the light of all segments that is neighbours'
SECOND_SHARE = 0.05  # of the light without a counterpart: another galaxy's is three times as much, and more


def light_flags(band: BandStamps, done: np.ndarray, model: np.ndarray) -> np.ndarray:
    """(n,) flags of the sources ``done`` whose posterior mean the telescope would see as ``model`` (n, h,
    w)."""
    flags = np.zeros(len(done), np.int64)
    for k, i in enumerate(done):
        own = (band.seg[i] < 2) & ~_holes(band.seg[i], band.mask[i])
        flags[k] |= _masked(model[k], band.sigma[i], band.mask[i], own)
        if outgrows(band.data[i], band.sigma[i], ~band.mask[i] & own):
            flags[k] |= Flag.STAMP_TOO_SMALL
        elsewhere = _brighter_elsewhere(model[k], band.seg[i])
        if elsewhere > FAR_BRIGHTER:
            flags[k] |= Flag.OFF_SOURCE
        elif elsewhere > BRIGHTER and not fitted_neighbours(band.seg[i], band.mask[i]).any():
            flags[k] |= Flag.SECOND_SOURCE  # of neighbours that are parted in the draws it may be the light
    return flags


def _holes(seg: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w) bool: masked pixels of no segment that touch a neighbour and not the source, such as the middle
    of a saturated star."""
    labels, _ = ndimage.label(mask & (seg == 0))
    theirs, own = (labels[ndimage.binary_dilation(of)] for of in (seg > 1, seg == 1))
    return np.isin(labels, np.setdiff1d(theirs[theirs > 0], own))


def _brighter_elsewhere(model: np.ndarray, seg: np.ndarray) -> float:
    """How many times brighter the source's segment is at its brightest than at the position in the middle of
    the stamp."""
    y, x = (n // 2 for n in model.shape)
    here = model[y - NEAR_PIX : y + NEAR_PIX + 1, x - NEAR_PIX : x + NEAR_PIX + 1].max()
    most = model[seg == 1].max(initial=0.0)
    return float(most / here) if here > 0 else np.inf if most > 0 else 0.0


def _masked(model: np.ndarray, sigma: np.ndarray, mask: np.ndarray, own: np.ndarray) -> int:
    """Flags by the share of the model's light, above the noise and not a neighbour's, on masked pixels."""
    known = np.isfinite(sigma) & ~mask
    if not known.any() or not np.isfinite(model).all():
        return 0
    light = np.where(own & (model > np.median(sigma[known])), model, 0.0)
    if light.sum() <= 0:
        return 0
    core = np.where(light > CORE_LEVEL * light.max(), light, 0.0)
    share = (light * mask).sum() / light.sum()
    if share > LOST_SHARE or (core * mask).sum() > CORE_SHARE * core.sum():
        return int(Flag.MASKED_CORE)
    return int(Flag.MASKED_LIGHT) if share > MASKED_SHARE else 0


def still_measured(flags: np.ndarray, r_petro_arcsec: np.ndarray, band: BandStamps) -> np.ndarray:
    """``flags`` (n,) without STAMP_TOO_SMALL where the aperture of the flux, two Petrosian radii (n,), hardly
    reaches beyond the stamp: what is lost is beyond all that is measured (docs/decisions/0042)."""
    with np.errstate(invalid="ignore"):
        inside = r_petro_arcsec < APERTURE_INSIDE * band.data.shape[1] * band.pixel_scale_arcsec
    return np.where(inside, flags & ~int(Flag.STAMP_TOO_SMALL), flags)


def contaminated(flags: np.ndarray, neighbour_frac: np.ndarray, own: OwnLight) -> np.ndarray:
    """(n,) flags where a neighbour's light exceeds the error bars: it is cut from a blend with the source,
    outshines it or is not lost in the noise (docs/decisions/0019), and is not parted from it in the draws; or
    what is whose is disputed (docs/decisions/0023)."""
    blended = (flags & Flag.BLENDED_SEG) != 0
    lost = ((flags & Flag.LOW_SNR) != 0) & (neighbour_frac <= OUTSHONE)
    parted = np.isin(np.arange(len(flags)), list(own.share))
    return np.where((blended & ~lost & ~parted) | own.disputed, int(Flag.CONTAMINATED), 0)


def second_sources(own: OwnLight, fwhm_pix: float) -> np.ndarray:
    """(n,) flags where the segment seems to hold another galaxy, by the mean of the draws at a PSF of
    ``fwhm_pix``."""
    means = np.nan_to_num(own.samples).mean(1)
    fine = means.shape[-1] // own.seg.shape[-1]
    segs = own.seg.repeat(fine, 1).repeat(fine, 2)
    share = [second_source(*of, fwhm_pix) for of in zip(means, segs, strict=True)]
    return np.where(np.array(share) > SECOND_SHARE, int(Flag.SECOND_SOURCE), 0)
