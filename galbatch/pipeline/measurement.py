"""The measured columns of the catalogue: which there are, what they mean, and how a band's draws fill
them.

How good a source is: the columns ``quality_{band}`` and ``quality``, from the levels of its flags.

0: every number may be used. 1: look at the reason first (the flags). 2: do not use.
A band has the worst level of its own flags, and 2 where nothing was measured in it. A source has the worst
level of the bands that were measured and of what concerns the source as a whole: a band that is missing makes
it 1, all of them 2.
"""

from __future__ import annotations

import numpy as np

from galbatch.columns import PLACE, Column, columns_of
from galbatch.flags import Flag, Level, quality_of
from galbatch.morphology import (
    MorphFlag,
    OwnLight,
    all_quantities,
    measure_posterior,
    sersic_severity,
    severity,
    summarise,
)
from galbatch.morphology.calibration import calibrated, reached
from galbatch.types import BandStamps

Table = dict[str, np.ndarray]

LOW_SNR = 2.5
# Two Petrosian radii hold all of an exponential disc and 83% of a de Vaucouleurs profile (Graham et al.
# 2005), and the segment less than all of either.
APERTURE_SHARE = 0.85


def column_info(bands: tuple[str, ...], draw_columns: bool = False) -> dict[str, Column]:
    """Every column of a run that is not passed through; ``draw_columns``: those of single draws too."""
    return columns_of(bands, all_quantities(), draw_columns)


def empty_columns(bands: tuple[str, ...], n: int) -> Table:
    """Every column that a batch fills, with nothing measured: NaN, 0 for counts, flag bits and quality
    (before it is graded); draws at their largest, to be lowered."""
    columns: Table = {}
    for name, about in column_info(bands).items():
        if name not in PLACE:
            kind, empty = (object, "") if about.dtype == "str" else (np.dtype(about.dtype), 0)
            columns[name] = np.full(n, np.nan if about.dtype.startswith("float") else empty, kind)
    columns["n_draws_ok"][:] = np.iinfo(np.int32).max
    columns["n_evaluations"][:] = 0
    return columns


def measure_band(
    columns: Table,
    band: BandStamps,
    done: np.ndarray,
    own: OwnLight,
    oversample: int,
    target_fwhm_pix: float,
    threads: int = 1,
    draw_columns: bool = False,
    calibration: dict | None = None,
    psf_in_error: np.ndarray | bool = False,
) -> np.ndarray:
    """Measure the sources' ``own`` light in the draws of the sources ``done`` in one band into ``columns``;
    returns flags (n,). ``draw_columns``: into columns (n, k) ``{quantity}_draws_{band}`` too.
    ``calibration``: the prior's table for the sampler's mode; ``psf_in_error`` (n,): whose draws have PSFs of
    their own."""
    draws, observed = measure_posterior(
        own.samples,
        band.data[done],
        band.sigma[done],
        band.mask[done],
        own.seg,
        band.psf[done],
        band.pixel_scale_arcsec,
        oversample,
        target_fwhm_pix,
        psf_scale_arcsec=band.psf_scale_arcsec,
        threads=threads,
    )
    found = summarise(draws, observed)
    target_fwhm_arcsec = target_fwhm_pix * band.pixel_scale_arcsec / oversample
    found |= calibrated(found, calibration, target_fwhm_arcsec, oversample, psf_in_error)
    shape = (len(columns["n_draws_ok"]), draws.shape[1])
    for name, about in all_quantities().items() if draw_columns else ():
        if about.summary != "observed":
            columns.setdefault(f"{name}_draws_{band.band}", np.full(shape, np.nan, np.float32))
            columns[f"{name}_draws_{band.band}"][done] = draws[name]
    for stem, values in found.items():
        columns[f"{stem}_{band.band}"][done] = values
    flags = band_flags(found, band.data.shape[1] * band.pixel_scale_arcsec, target_fwhm_arcsec)
    known = reached(found, calibration, target_fwhm_arcsec, oversample, psf_in_error)
    return flags | np.where(known, 0, int(Flag.UNCALIBRATED))


def band_flags(found: Table, stamp_arcsec: float, target_fwhm_arcsec: float) -> np.ndarray:
    """(n,) run flags from the statistics of one band; thresholds are named above."""
    bits = found["morph_flags"]
    large = (bits & int(MorphFlag.PETRO_LARGE)) != 0
    with np.errstate(invalid="ignore"):
        faint = found["sn_per_pixel_obs"] < LOW_SNR
        pairs = [
            (Flag.MORPH_FAILED, severity(bits) >= 4),
            (Flag.SERSIC_FAILED, sersic_severity(bits) >= 2),
            (Flag.SERSIC_BOUND, sersic_severity(bits) == 1),
            (Flag.LOW_SNR, faint),
            (Flag.UNRESOLVED, found["r20_raw50"] < target_fwhm_arcsec / 2),
            (Flag.BROKEN, (found["r_petro_raw50"] < target_fwhm_arcsec / 2) & ~faint),
            (Flag.STAMP_TOO_SMALL, large | (found["r_petro_raw50"] > stamp_arcsec / 2)),
            (Flag.APERTURE_LOSS, found["flux_njy_raw50"] < APERTURE_SHARE * found["flux_seg_njy_raw50"]),
        ]
    flags = np.zeros(len(bits), np.int64)
    for flag, where in pairs:
        flags |= np.where(where, int(flag), 0)
    return flags


def grade(
    columns: dict[str, np.ndarray], bands: tuple[str, ...], flags: np.ndarray, failed: np.ndarray
) -> np.ndarray:
    """Fill the columns of quality from ``flags_{band}``, ``flags`` (n,) of the source as a whole, and
    ``failed`` (n,); returns all flags of each source (n,)."""
    missing = int(Flag.BAND_MISSING)
    worst, measured = np.zeros(len(flags), np.int8), np.zeros(len(flags), bool)
    of_bands = np.zeros(len(flags), np.int64)
    for band in bands:
        own = columns[f"flags_{band}"]
        there = np.isfinite(columns[f"chi2_{band}"]) & ((own & missing) == 0) & ~failed
        quality = np.where(there, quality_of(own), np.int8(Level.BAD))
        columns[f"quality_{band}"] = quality
        worst = np.where(there, np.maximum(worst, quality), worst)
        measured |= there
        of_bands |= own
    # what a band lacks has been said of the band: the source keeps its other bands
    whole = quality_of((flags & ~of_bands) | (of_bands & missing))
    columns["quality"] = np.where(measured, np.maximum(worst, whole), np.int8(Level.BAD))
    return flags | (of_bands & ~int(Flag.OFF_IMAGE))  # off the image is a source that is off all of them
