"""The flags of a source: causes, what each says of its numbers, and what to do. One table for all.

``galbatch flags``, the report, the documentation and the columns ``quality`` are made from ``FLAGS``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np


class Flag(IntFlag):
    """What was met on the way of a source. Bits are causes and never change their meaning.

    ``FLAGS`` holds the level of each (info, caution, bad), what it means and what to do; ``galbatch flags``
    prints it.

    Examples
    --------
    >>> import galbatch
    >>> word = int(galbatch.Flag.NEIGHBOUR | galbatch.Flag.LOW_SNR)
    >>> [flag.name for flag in galbatch.Flag if word & flag]
    ['NEIGHBOUR', 'LOW_SNR']
    """

    EDGE = 1 << 0
    OFF_IMAGE = 1 << 1
    MASKED_CENTRE = 1 << 2
    MASKED_FRACTION = 1 << 3
    NONFINITE = 1 << 4
    ZERO_WEIGHT = 1 << 5
    SATURATED = 1 << 6
    NEIGHBOUR = 1 << 7
    BLENDED_SEG = 1 << 8
    NO_SEG = 1 << 9
    BAND_MISSING = 1 << 10
    GRID_MISMATCH = 1 << 11
    RESAMPLED = 1 << 12
    PSF_EXTRAPOLATED = 1 << 13
    PSF_BAD = 1 << 14
    LOW_SNR = 1 << 15
    UNRESOLVED = 1 << 16
    STAMP_TOO_SMALL = 1 << 17
    BACKGROUND = 1 << 18
    SAMPLER_NONFINITE = 1 << 19
    SAMPLER_CHI2 = 1 << 20
    FLUX_NOT_CONSERVED = 1 << 21
    MORPH_FAILED = 1 << 22
    SERSIC_FAILED = 1 << 23
    SERSIC_BOUND = 1 << 24
    DUPLICATE_ID = 1 << 25
    DUPLICATE_POSITION = 1 << 26
    VARIANCE_APPROX = 1 << 27
    READ_ERROR = 1 << 28
    # 1 << 29 was TIMEOUT, which nothing ever set: the bit stays free
    PRIOR_DRIVEN = 1 << 30
    SOLVER = 1 << 31
    NOISE_LEVEL = 1 << 32
    BROKEN = 1 << 33
    MASKED_LIGHT = 1 << 34
    MASKED_CORE = 1 << 35
    CONTAMINATED = 1 << 36
    RESIDUAL_ELSEWHERE = 1 << 37
    APERTURE_LOSS = 1 << 38
    UNCALIBRATED = 1 << 39
    PREDICTED = 1 << 40
    SECOND_SOURCE = 1 << 41
    PSF_DOUBTED = 1 << 42
    OFF_SOURCE = 1 << 43


class Level(IntEnum):
    """What a flag says of the numbers of a source: nothing, look at the reason first, do not use them."""

    INFO = 0
    CAUTION = 1
    BAD = 2


class About(NamedTuple):
    """Level of a flag, what it means, and what a user can do."""

    level: Level
    meaning: str
    remedy: str


_IF_LIGHT_IS_LOST = "nothing: MASKED_LIGHT is set too where light of the source is lost"
FLAGS: dict[Flag, About] = {
    Flag.EDGE: About(Level.INFO, "the stamp is partly outside the image", _IF_LIGHT_IS_LOST),
    Flag.OFF_IMAGE: About(
        Level.BAD,
        "the position is outside every image of a band",
        "check ra and dec, or add the tile that holds the source",
    ),
    Flag.MASKED_CENTRE: About(
        Level.CAUTION, "the central pixel is masked", "look at the mask: is it the source's own core?"
    ),
    Flag.MASKED_FRACTION: About(Level.INFO, "a large part of the stamp is masked", _IF_LIGHT_IS_LOST),
    Flag.NONFINITE: About(
        Level.INFO, "NaN or infinite pixels in the stamp; they are masked", _IF_LIGHT_IS_LOST
    ),
    Flag.ZERO_WEIGHT: About(
        Level.INFO, "pixels with zero or negative weight in the stamp; they are masked", _IF_LIGHT_IS_LOST
    ),
    Flag.SATURATED: About(Level.BAD, "saturated or missing core", "use a shorter exposure or another band"),
    Flag.NEIGHBOUR: About(
        Level.INFO,
        "neighbours contribute more than a fifth of the flux in the stamp",
        "look at the picture: is a part of the source taken for a neighbour?",
    ),
    Flag.BLENDED_SEG: About(
        Level.INFO,
        "the segment of the source was cut out of a blend with another",
        "nothing: CONTAMINATED is set too where the neighbour's light matters",
    ),
    Flag.NO_SEG: About(
        Level.CAUTION,
        "no light above the noise at the position: the segment was made from the posterior mean",
        "check ra and dec, or stack deeper data",
    ),
    Flag.BAND_MISSING: About(
        Level.CAUTION,
        "at least one band has no usable pixels; nothing is measured in it",
        "use the other bands (`quality_{band}`)",
    ),
    Flag.GRID_MISMATCH: About(
        Level.INFO,
        "the pixel grids of the bands do not nest",
        "nothing: each band is measured on its own grid",
    ),
    Flag.RESAMPLED: About(
        Level.INFO,
        "at least one band was resampled",
        "nothing: the noise is described as it is after resampling",
    ),
    Flag.PSF_EXTRAPOLATED: About(
        Level.CAUTION, "the PSF was taken from outside its grid", "give a PSF for this part of the image"
    ),
    Flag.PSF_BAD: About(
        Level.BAD,
        "the PSF is not finite, off-centre or otherwise unusable",
        "replace the PSF; `galbatch check` names the file",
    ),
    Flag.LOW_SNR: About(
        Level.INFO,
        "signal-to-noise ratio per pixel below 2.5",
        "use the intervals, which are wide and hold, and never the classical values (*_obs)",
    ),
    Flag.UNRESOLVED: About(
        Level.INFO,
        "r20 is below the half width at half maximum of the target PSF",
        "take sizes and concentration as those of the image at the target PSF",
    ),
    Flag.STAMP_TOO_SMALL: About(
        Level.BAD,
        "the source outgrows its stamp: light and size are lost",
        "run it again with a larger `stamp_arcsec`, or on a larger image where that is what ends",
    ),
    Flag.BACKGROUND: About(
        Level.CAUTION,
        "the sky level of the stamp is not zero",
        "subtract the sky of the mosaic; `background_njy_{band}` of statistics.parquet has the level",
    ),
    Flag.SAMPLER_NONFINITE: About(
        Level.CAUTION,
        "some draws were not finite, also after a redraw; they are left out",
        "see n_draws_ok; run the source again with another --seed",
    ),
    Flag.SAMPLER_CHI2: About(
        Level.BAD,
        "residuals on the source, or everywhere, are far from what the noise map says",
        "look at the residual: is the PSF right, and the noise map, and the mask?",
    ),
    Flag.FLUX_NOT_CONSERVED: About(
        Level.BAD,
        "the flux of the model seen through the PSF and of the pixels differ by more than 5% and 5 sigma",
        "look at the residual: is the PSF right, and the mask?",
    ),
    Flag.MORPH_FAILED: About(
        Level.BAD,
        "no morphology could be measured",
        "`galbatch flags --morphology N` with morph_flags_{band} says why",
    ),
    Flag.SERSIC_FAILED: About(
        Level.INFO,
        "the Sersic fit did not converge",
        "do not use the sersic_* columns of this source; all others hold",
    ),
    Flag.SERSIC_BOUND: About(
        Level.INFO,
        "a Sersic parameter is at its bound",
        "do not use the sersic_* columns of this source; all others hold",
    ),
    Flag.DUPLICATE_ID: About(
        Level.CAUTION, "the source id occurs more than once", "give every source its own id"
    ),
    Flag.DUPLICATE_POSITION: About(
        Level.INFO, "another source of the catalogue lies within 0.1 arcsec", "count it once"
    ),
    Flag.VARIANCE_APPROX: About(
        Level.INFO,
        "the photon noise of the source had to be approximated",
        "give the exposure map (`exp`) for exact weights in bright cores",
    ),
    Flag.READ_ERROR: About(
        Level.BAD,
        "the pixels could not be read",
        "failures.parquet names the file: repair it and run the source again",
    ),
    Flag.PRIOR_DRIVEN: About(
        Level.CAUTION,
        "more than half of the light is prior-dominated: the data say little about it",
        "do not interpret its structure; stack deeper data",
    ),
    Flag.SOLVER: About(
        Level.BAD,
        "linear solves of the sampler did not converge",
        "run it again with --mode accurate; if it stays, look at the noise map",
    ),
    Flag.NOISE_LEVEL: About(
        Level.CAUTION,
        "residuals say that the noise is wrong by more than a tenth: error bars are as wrong",
        "leave err_scale, noise_acf and error_floor measured; if they are, the noise map may lack the photon "
        "noise of sources (the guide on survey files, Photon noise)",
    ),
    Flag.BROKEN: About(
        Level.BAD,
        "the reconstruction is striped, negative in its core, or smaller than the resolution allows",
        'look at the picture; error_floor = "measure" and a better PSF mend most',
    ),
    Flag.MASKED_LIGHT: About(
        Level.CAUTION,
        "more than a tenth of the light of the source lies on masked pixels",
        "look at the mask; what is there comes from the prior",
    ),
    Flag.MASKED_CORE: About(
        Level.BAD,
        "the core, or more than a third of the light of the source, is masked",
        "look at the mask: is the source's own core taken for a defect?",
    ),
    Flag.CONTAMINATED: About(
        Level.CAUTION,
        "a neighbour touches the source, and how their light divides is uncertain, or both may be one galaxy",
        "look at the picture; give a segmentation map (`seg`) that parts or joins the two",
    ),
    Flag.RESIDUAL_ELSEWHERE: About(
        Level.INFO,
        "a compact residual beyond chance away from the source, or with less than 1% of its light",
        "nothing: it does not touch the numbers of the source",
    ),
    Flag.APERTURE_LOSS: About(
        Level.BAD,
        "two Petrosian radii hold less than 85% of the segment's light: a bright core ends them early",
        "use flux_seg_njy of statistics.parquet; flux_njy, r_half, C and all in that aperture are the core's",
    ),
    Flag.UNCALIBRATED: About(
        Level.CAUTION,
        "intervals are those of the draws: no calibration of the model reaches this S/N, size or mode",
        "take the intervals for too narrow; `galbatch model calibrate` makes the table of a model and mode",
    ),
    Flag.PREDICTED: About(
        Level.CAUTION,
        "a band without usable pixels was drawn from the other bands, its flux scale from those beside it",
        "use its draws as a guess of the shape, never of the flux or a colour; nothing is measured in it",
    ),
    Flag.SECOND_SOURCE: About(
        Level.CAUTION,
        "a lump of light has no counterpart across the centre, or the segment is 5 times brighter elsewhere "
        "than at the position: two galaxies in one segment, or a merger",
        "look at the picture; a segmentation map (`seg`) that separates the two mends it",
    ),
    Flag.PSF_DOUBTED: About(
        Level.CAUTION,
        "the band looks like the others seen with another PSF than its own",
        "check this band's PSF; a galaxy that is truly smoother or sharper in it has this flag too",
    ),
    Flag.OFF_SOURCE: About(
        Level.BAD,
        "the segment is 20 times brighter elsewhere than at the position: the light is another source's",
        "check ra and dec; look at the source where the light is",
    ),
}


def quality_of(flags: np.ndarray | int) -> np.ndarray:
    """int8, of the shape of ``flags``: the worst ``Level`` of the bits set."""
    flags = np.asarray(flags, np.int64)
    quality = np.zeros(flags.shape, np.int8)
    for level in (Level.CAUTION, Level.BAD):
        bits = sum(int(flag) for flag, about in FLAGS.items() if about.level == level)
        quality[(flags & bits) != 0] = level
    return quality


def names_of(flags: int, least: Level = Level.INFO) -> list[str]:
    """Names of the flags set that are of this level or worse, the worst first."""
    found = [flag for flag in FLAGS if flags & flag and FLAGS[flag].level >= least]
    return [flag.name or "" for flag in sorted(found, key=lambda flag: -FLAGS[flag].level)]


def count_flags(flags: np.ndarray) -> dict[str, int]:
    """How many of the sources (n,) have each flag, the commonest first; none that no source has."""
    counts = {flag.name or "": int(np.count_nonzero(flags & int(flag))) for flag in Flag}
    return dict(sorted(((name, n) for name, n in counts.items() if n), key=lambda item: -item[1]))
