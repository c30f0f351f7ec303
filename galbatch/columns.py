"""Every column of a run's tables, once: name, unit, UCD, meaning, how draws become its numbers, which table.

``catalog.parquet`` is what a person reads, ``statistics.parquet`` all the rest of the same sources, row by
row. A quantity is measured on every draw and on the observed pixels; it has one column for each of its
statistics, ``{quantity}_{statistic}_{band}``. All other columns are in ``MEASURED`` and ``PLACE``, in the
order of the tables, by name or pattern: ``{band}`` stands for each band, ``{pair}`` for each two that follow
each other, ``{b1}_{b2}``. What measures, writes, shows or documents a column reads these tables.

Position angles are counter-clockwise from the x axis of the image; pixel coordinates count from 0 at the
centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from galbatch.flags import Flag

LARGEST = 45  # columns per band of the catalogue, those of the user apart


class Column(NamedTuple):
    """Unit (astropy/VOUnit string, "" if none), UCD1+ and one line of description.

    ``summary``, of a quantity: which statistics there are of it, a key of ``SUMMARIES``; ``table``: "catalog"
    or "statistics", of a quantity the one that holds its interval; ``flags``: where one of them is set, the
    level of that flag is what the numbers are worth; ``dtype``: on disk.
    """

    unit: str = ""
    ucd: str = ""
    description: str = ""
    summary: str = "draws"
    table: str = "statistics"
    flags: Flag = Flag(0)
    dtype: str = "float32"


INTERVAL = ("p16", "p50", "p84")
_RAW = ("raw16", "raw50", "raw84", "mean", "std", "obs")
SUMMARIES: dict[str, tuple[str, ...]] = {
    "calibrated": (*INTERVAL, *_RAW),
    "follows": (*INTERVAL, *_RAW),
    "draws": _RAW,
    "angle": _RAW,
    "observed": ("obs",),
}
"""Statistics of a quantity. calibrated: with an interval that is calibrated; follows: with one that follows
from another's; draws: without; angle: of an axis, modulo pi; observed: of the observed pixels alone."""

STATISTICS: dict[str, tuple[str, str]] = {
    "p16": ("lower end of the 68% interval, calibrated", ""),
    "p50": ("median, calibrated", "stat.median"),
    "p84": ("upper end of the 68% interval, calibrated", ""),
    "raw16": ("15.87th percentile of draws", ""),
    "raw50": ("median of draws", "stat.median"),
    "raw84": ("84.13th percentile of draws", ""),
    "mean": ("mean of draws", "stat.mean"),
    "std": ("standard deviation of draws", "stat.stdev"),
    "obs": ("on the observed stamp", ""),
    "draws": ("of each draw", ""),
}
"""Words and UCD of every statistic of a quantity."""

_MORPH, _SIZE, _SHARE, _GRADE = "src.morph.param", "phys.angSize", "stat.probability", "meta.code.qual"
_RGM = "Rodriguez-Gomez et al. 2019"
_MATCHED = "flux in the circle in which colours are measured, one for all bands"
_COLOUR = "AB colour of draws in one aperture, at one PSF"
_GRADIENT = "AB colour from half to one Petrosian radius less that within half; below 0: bluer outside"
_FIT = Flag.SERSIC_FAILED | Flag.SERSIC_BOUND
_MISFIT = Flag.SAMPLER_CHI2 | Flag.NOISE_LEVEL
_printed = partial(Column, table="catalog")
_interval = partial(Column, summary="calibrated", table="catalog")
_SMALL, _PART = Flag.UNRESOLVED, Flag.APERTURE_LOSS

QUANTITIES: dict[str, Column] = {
    "flux_njy": _interval(
        "nJy", "phot.flux.density", "flux inside two circular Petrosian radii", flags=_PART
    ),
    "mag_ab": Column("mag", "phot.mag", "AB magnitude of flux_njy", "follows", "catalog", _PART),
    "flux_ellip_njy": Column("nJy", "phot.flux.density", "flux inside two elliptical Petrosian radii"),
    "flux_seg_njy": Column("nJy", "phot.flux.density", "flux inside the source's segment"),
    "xc_centroid": Column("pix", "pos.cartesian.x;instr.det", "x of the centroid of the segment"),
    "yc_centroid": Column("pix", "pos.cartesian.y;instr.det", "y of the centroid of the segment"),
    "ellipticity_centroid": Column("", "src.ellipticity", "1 - b/a of the moments about the centroid"),
    "elongation_centroid": Column("", _MORPH, "a/b of the moments about the centroid"),
    "orientation_centroid": Column(
        "rad", "pos.posAng", "position angle of the moments about the centroid", "angle"
    ),
    "xc_asymmetry": Column("pix", "pos.cartesian.x;instr.det", "x of the centre of minimal asymmetry"),
    "yc_asymmetry": Column("pix", "pos.cartesian.y;instr.det", "y of the centre of minimal asymmetry"),
    "ellipticity": _interval("", "src.ellipticity", "1 - b/a of the moments about the asymmetry centre"),
    "elongation": Column("", _MORPH, "a/b of the moments about the asymmetry centre"),
    "orientation": Column(
        "rad", "pos.posAng", "position angle of the moments about the asymmetry centre", "angle"
    ),
    "r_petro": _interval("arcsec", _SIZE, "circular Petrosian radius, eta = 0.2", flags=_PART),
    "r_petro_ellip": Column("arcsec", _SIZE, "elliptical Petrosian semi-major axis, eta = 0.2"),
    "r_max": Column("arcsec", _SIZE, "radius of the farthest pixel of the detection mask"),
    "r_max_ellip": Column("arcsec", _SIZE, "semi-major axis of the ellipse around the detection mask"),
    "r_half": _interval(
        "arcsec", _SIZE, "radius of the circle with half of the flux inside r_max", flags=_SMALL | _PART
    ),
    "r_half_ellip": Column("arcsec", _SIZE, "semi-major axis with half of the flux inside r_max_ellip"),
    "r20": Column(
        "arcsec", _SIZE, "radius with 20% of the flux inside 1.5 r_petro", "calibrated", flags=_SMALL | _PART
    ),
    "r50": Column(
        "arcsec", _SIZE, "radius with 50% of the flux inside 1.5 r_petro", "calibrated", flags=_SMALL | _PART
    ),
    "r80": Column(
        "arcsec", _SIZE, "radius with 80% of the flux inside 1.5 r_petro", "calibrated", flags=_PART
    ),
    "gini": _interval("", _MORPH, "Gini coefficient, Lotz et al. 2004", flags=_PART),
    "m20": _interval("", _MORPH, "M20, Lotz et al. 2004", flags=_PART),
    "gini_m20_bulge": Column("", _MORPH, f"bulge statistic, {_RGM}: -0.693 M20 + 4.95 G - 3.96"),
    "gini_m20_merger": Column(
        "", _MORPH, f"merger statistic, {_RGM}: 0.139 M20 + 0.990 G - 0.327", "calibrated", flags=_PART
    ),
    "sn_per_pixel": Column(
        "",
        "stat.snr",
        "mean signal-to-noise ratio per pixel of the Gini segment",
        "draws",
        flags=Flag.LOW_SNR,
    ),
    "concentration": _interval("", _MORPH, "5 log10(r80 / r20)", flags=_SMALL | _PART),
    "asymmetry": _interval(
        "", _MORPH, "rotational asymmetry inside 1.5 r_petro, Lotz et al. 2004", flags=_PART
    ),
    "smoothness": Column("", _MORPH, "smoothness (clumpiness), Lotz et al. 2004"),
    "multimode": Column("", _MORPH, "multimode statistic M, Freeman et al. 2013, Peth et al. 2016"),
    "intensity": Column("", _MORPH, "intensity statistic I, Freeman et al. 2013, Peth et al. 2016"),
    "deviation": Column("", _MORPH, "deviation statistic D, Freeman et al. 2013, Peth et al. 2016"),
    "rms_asymmetry2": Column("", _MORPH, "square of the RMS asymmetry, Sazonova et al. 2024 eq. 27"),
    "outer_asymmetry": Column("", _MORPH, "asymmetry between r_half_ellip and r_max_ellip, Wen et al. 2014"),
    "shape_asymmetry": Column("", _MORPH, "asymmetry of the detection mask, Pawlik et al. 2016"),
    "sersic_n": _interval("", _MORPH, "Sersic index", flags=_FIT),
    "sersic_r_e": _interval(
        "arcsec", _SIZE, "semi-major axis of the half-light ellipse of the Sersic fit", flags=_FIT
    ),
    "sersic_ellipticity": Column("", "src.ellipticity", "1 - b/a of the Sersic fit", flags=_FIT),
    "sersic_orientation": Column(
        "rad", "pos.posAng", "position angle of the Sersic fit, 0 to pi", "angle", flags=_FIT
    ),
    "sersic_amplitude": Column(
        "nJy arcsec-2", "phot.flux.sb", "surface brightness of the Sersic fit at r_e", flags=_FIT
    ),
    "sersic_xc": Column("pix", "pos.cartesian.x;instr.det", "x of the centre of the Sersic fit", flags=_FIT),
    "sersic_yc": Column("pix", "pos.cartesian.y;instr.det", "y of the centre of the Sersic fit", flags=_FIT),
    "sersic_chi2_dof": Column("", "stat.fit.chi2", "reduced chi2 of the Sersic fit", flags=_FIT),
    "sersic_aic": Column("", "stat.fit.param", "Akaike information criterion of the Sersic fit", flags=_FIT),
    "sersic_bic": Column(
        "", "stat.fit.param", "Bayesian information criterion of the Sersic fit", flags=_FIT
    ),
    "sky_mean": Column(
        "nJy", "phot.flux.density;instr.skyLevel", "mean of the sky box, per pixel", "observed"
    ),
    "sky_median": Column(
        "nJy", "phot.flux.density;instr.skyLevel", "median of the sky box, per pixel", "observed"
    ),
    "sky_sigma": Column(
        "nJy", "stat.stdev;instr.skyLevel", "standard deviation of the sky box, per pixel", "observed"
    ),
}
MEASURED: dict[str, Column] = {
    "color_{pair}_p16": _printed("mag", "phot.color", f"{_COLOUR}; lower end of the 68% interval"),
    "color_{pair}_p50": _printed("mag", "phot.color;stat.median", f"{_COLOUR}; median"),
    "color_{pair}_p84": _printed("mag", "phot.color", f"{_COLOUR}; upper end of the 68% interval"),
    "quality_{band}": _printed("", _GRADE, "0 good, 1 caution, 2 do not use, of this band", dtype="int8"),
    "quality": _printed("", _GRADE, "0 good, 1 caution, 2 do not use: the worst of the bands", dtype="int8"),
    "flags_{band}": _printed(
        "", _GRADE, "flag bits of this band; `galbatch flags N` explains them", dtype="int64"
    ),
    "flags": _printed("", _GRADE, "flag bits; `galbatch flags N` explains them", dtype="int64"),
    "status": _printed(
        "",
        "meta.code",
        "ok (quality 0), flagged (1 and 2, see flags) or failed (see failures.parquet)",
        dtype="str",
    ),
    "chi2_{band}": _printed(
        "", "stat.fit.chi2", "residual chi2 per valid pixel, mean over draws", flags=_MISFIT
    ),
    "prior_driven_frac_{band}": _printed(
        "", "stat.value", "share of the flux in prior-dominated regions", flags=Flag.PRIOR_DRIVEN
    ),
    "n_draws_ok": _printed(
        "", "meta.number", "posterior draws with finite pixels", flags=Flag.SAMPLER_NONFINITE, dtype="int32"
    ),
    "color_gradient_{pair}_p16": Column("mag", "phot.color", f"{_GRADIENT}; lower end of the 68% interval"),
    "color_gradient_{pair}_p50": Column("mag", "phot.color;stat.median", f"{_GRADIENT}; median"),
    "color_gradient_{pair}_p84": Column("mag", "phot.color", f"{_GRADIENT}; upper end of the 68% interval"),
    "color_radius": Column("arcsec", _SIZE, "radius of the circle in which colours are measured"),
    "color_flux_njy_p16_{band}": Column(
        "nJy", "phot.flux.density", f"{_MATCHED}; lower end of the 68% interval"
    ),
    "color_flux_njy_p50_{band}": Column("nJy", "phot.flux.density;stat.median", f"{_MATCHED}; median"),
    "color_flux_njy_p84_{band}": Column(
        "nJy", "phot.flux.density", f"{_MATCHED}; upper end of the 68% interval"
    ),
    "n_evaluations": Column(
        "", "meta.number", "network evaluations per draw, in the band with most; products and re-runs counted"
    ),
    "chi2_p_{band}": Column("", _SHARE, "p-value of the residuals"),
    "p_merger_{band}": Column("", _SHARE, "share of draws above the Gini-M20 merger line (Lotz et al. 2008)"),
    "p_bulge_{band}": Column("", _SHARE, "share of draws on the bulge side of the Gini-M20 plane"),
    "p_asymmetric_{band}": Column("", _SHARE, "share of draws with A > 0.35 and A > S (Conselice 2003)"),
    "p_disturbed_outskirts_{band}": Column(
        "", _SHARE, "share of draws with shape asymmetry > 0.2 (Pawlik et al. 2016)"
    ),
    "p_multimodal_{band}": Column("", _SHARE, "share of draws with M > 0.1 (Freeman et al. 2013)"),
    "p_disc_{band}": Column("", _SHARE, "share of draws with a Sersic index below 2.5", flags=_FIT),
    "n_draws_measured_{band}": Column("", "meta.number", "draws with a measured morphology", dtype="int64"),
    "morph_flags_{band}": Column(
        "", "meta.code", "morphology flag bits set in at least half of the draws", dtype="int64"
    ),
    "morph_flags_obs_{band}": Column(
        "", "meta.code", "morphology flag bits of the observed stamp", dtype="int64"
    ),
    "neighbour_frac_{band}": Column(
        "", "", "share of the light of all segments in the stamp that is neighbours'", flags=Flag.CONTAMINATED
    ),
    "n_neighbours_{band}": Column("", "meta.number", "neighbours in the stamp", dtype="int32"),
    "background_njy_{band}": Column(
        "nJy", "instr.background", "sky level of the stamp, not taken off; per pixel", flags=Flag.BACKGROUND
    ),
    "background_err_njy_{band}": Column("nJy", "stat.error;instr.background", "error of the sky level"),
    "err_scale_{band}": Column("", "stat.error", "factor on what the noise map says of the sky, as used"),
    "error_floor_{band}": Column("", "stat.error", "noise in proportion to the light, as a fraction of it"),
    "valid_frac_{band}": Column(
        "", "", "share of the stamp's pixels that were used", flags=Flag.MASKED_FRACTION
    ),
}
PLACE: dict[str, Column] = {
    "source_id": _printed("", "meta.id;meta.main", "identifier of the input catalogue", dtype="str"),
    "ra": _printed("deg", "pos.eq.ra;meta.main", "right ascension (ICRS)", dtype="float64"),
    "dec": _printed("deg", "pos.eq.dec;meta.main", "declination (ICRS)", dtype="float64"),
    "_healpix_29": _printed("", "pos.healpix", "nested HEALPix index of order 29", dtype="int64"),
}
"""Which source it is and where: from the plan. They are the first and the last column of the catalogue."""


def statistics_of(about: Column, draws: bool = False) -> tuple[str, ...]:
    """The statistics that the tables hold of a quantity; ``draws``: its values of single draws too."""
    return SUMMARIES[about.summary] + ("draws",) * (draws and about.summary != "observed")


def is_positive(about: Column) -> bool:
    """Are the errors of a quantity in proportion to it? Those of fluxes and sizes, which have a unit."""
    return about.summary == "calibrated" and bool(about.unit)


def statistic(about: Column, name: str) -> Column:
    """The column of a statistic of a quantity: only its interval can be in the catalogue."""
    words, ucd = STATISTICS[name]
    return about._replace(
        ucd=";".join(filter(None, (about.ucd, ucd))),
        description=f"{about.description}; {words}",
        table=about.table if name in INTERVAL else "statistics",
    )


def columns_of(
    bands: Iterable[str], quantities: Mapping[str, Column] = QUANTITIES, draws: bool = False
) -> dict[str, Column]:
    """Every column of a run in these bands that is not passed through, in the order of the tables.

    ``quantities``: those measured; ``draws``: with the values of single draws.
    """
    bands = tuple(bands)
    found: dict[str, Column] = {}
    for quantity, about in quantities.items():
        stems = {f"{quantity}_{s}": statistic(about, s) for s in statistics_of(about, draws)}
        for band in bands:
            found |= {f"{stem}_{band}": _of(column, f"band {band}") for stem, column in stems.items()}
    for pattern, about in MEASURED.items():
        if len(bands) > 1 or not pattern.startswith("color_"):
            found |= expand(pattern, about, bands)
    return found | PLACE


def expand(pattern: str, about: Column, bands: tuple[str, ...]) -> dict[str, Column]:
    """The columns of a pattern: one for each band, or for each two that follow each other, or just one."""
    pairs = {f"{one}_{two}": f"{one} - {two}" for one, two in pairwise(bands)}
    for mark, names in {"{band}": {b: f"band {b}" for b in bands}, "{pair}": pairs}.items():
        if mark in pattern:
            return {pattern.replace(mark, name): _of(about, what) for name, what in names.items()}
    return {pattern: about}


def _of(about: Column, what: str) -> Column:
    return about._replace(description=f"{about.description} ({what})")
