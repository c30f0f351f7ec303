"""Every column of the catalogue, once: name, unit, UCD, meaning, and how draws become its numbers.

Measuring, writing, the report and the documentation read these tables. A quantity of a band has one column
for each of its statistics, ``{quantity}_{statistic}_{band}``; what else there is of a band is
``{name}_{band}``. Position angles are counter-clockwise from the x axis of the image; pixel coordinates count
from 0 at the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple


class Column(NamedTuple):
    """Unit (astropy/VOUnit string, "" if none), UCD1+, one line of description, and type on disk."""

    unit: str = ""
    ucd: str = ""
    description: str = ""
    dtype: str = "float32"


_MORPH = "src.morph.param"
_SIZE = "phys.angSize"
_RGM = "Rodriguez-Gomez et al. 2019"

QUANTITIES: dict[str, Column] = {
    "flux_njy": Column("nJy", "phot.flux.density", "flux inside two circular Petrosian radii"),
    "mag_ab": Column("mag", "phot.mag", "AB magnitude of flux_njy"),
    "flux_ellip_njy": Column("nJy", "phot.flux.density", "flux inside two elliptical Petrosian radii"),
    "flux_seg_njy": Column("nJy", "phot.flux.density", "flux inside the source's segment"),
    "xc_centroid": Column("pix", "pos.cartesian.x;instr.det", "x of the centroid of the segment"),
    "yc_centroid": Column("pix", "pos.cartesian.y;instr.det", "y of the centroid of the segment"),
    "ellipticity_centroid": Column("", "src.ellipticity", "1 - b/a of the moments about the centroid"),
    "elongation_centroid": Column("", _MORPH, "a/b of the moments about the centroid"),
    "orientation_centroid": Column("rad", "pos.posAng", "position angle of the moments about the centroid"),
    "xc_asymmetry": Column("pix", "pos.cartesian.x;instr.det", "x of the centre of minimal asymmetry"),
    "yc_asymmetry": Column("pix", "pos.cartesian.y;instr.det", "y of the centre of minimal asymmetry"),
    "ellipticity": Column("", "src.ellipticity", "1 - b/a of the moments about the asymmetry centre"),
    "elongation": Column("", _MORPH, "a/b of the moments about the asymmetry centre"),
    "orientation": Column("rad", "pos.posAng", "position angle of the moments about the asymmetry centre"),
    "r_petro": Column("arcsec", _SIZE, "circular Petrosian radius, eta = 0.2"),
    "r_petro_ellip": Column("arcsec", _SIZE, "elliptical Petrosian semi-major axis, eta = 0.2"),
    "r_max": Column("arcsec", _SIZE, "radius of the farthest pixel of the detection mask"),
    "r_max_ellip": Column("arcsec", _SIZE, "semi-major axis of the ellipse around the detection mask"),
    "r_half": Column("arcsec", _SIZE, "radius of the circle with half of the flux inside r_max"),
    "r_half_ellip": Column("arcsec", _SIZE, "semi-major axis with half of the flux inside r_max_ellip"),
    "r20": Column("arcsec", _SIZE, "radius with 20% of the flux inside 1.5 r_petro"),
    "r50": Column("arcsec", _SIZE, "radius with 50% of the flux inside 1.5 r_petro"),
    "r80": Column("arcsec", _SIZE, "radius with 80% of the flux inside 1.5 r_petro"),
    "gini": Column("", _MORPH, "Gini coefficient, Lotz et al. 2004"),
    "m20": Column("", _MORPH, "M20, Lotz et al. 2004"),
    "gini_m20_bulge": Column("", _MORPH, f"bulge statistic, {_RGM}: -0.693 M20 + 4.95 G - 3.96"),
    "gini_m20_merger": Column("", _MORPH, f"merger statistic, {_RGM}: 0.139 M20 + 0.990 G - 0.327"),
    "sn_per_pixel": Column("", "stat.snr", "mean signal-to-noise ratio per pixel of the Gini segment"),
    "concentration": Column("", _MORPH, "5 log10(r80 / r20)"),
    "asymmetry": Column("", _MORPH, "rotational asymmetry inside 1.5 r_petro, Lotz et al. 2004"),
    "smoothness": Column("", _MORPH, "smoothness (clumpiness), Lotz et al. 2004"),
    "multimode": Column("", _MORPH, "multimode statistic M, Freeman et al. 2013, Peth et al. 2016"),
    "intensity": Column("", _MORPH, "intensity statistic I, Freeman et al. 2013, Peth et al. 2016"),
    "deviation": Column("", _MORPH, "deviation statistic D, Freeman et al. 2013, Peth et al. 2016"),
    "rms_asymmetry2": Column("", _MORPH, "square of the RMS asymmetry, Sazonova et al. 2024 eq. 27"),
    "outer_asymmetry": Column("", _MORPH, "asymmetry between r_half_ellip and r_max_ellip, Wen et al. 2014"),
    "shape_asymmetry": Column("", _MORPH, "asymmetry of the detection mask, Pawlik et al. 2016"),
    "sersic_n": Column("", _MORPH, "Sersic index"),
    "sersic_r_e": Column("arcsec", _SIZE, "semi-major axis of the half-light ellipse of the Sersic fit"),
    "sersic_ellipticity": Column("", "src.ellipticity", "1 - b/a of the Sersic fit"),
    "sersic_orientation": Column("rad", "pos.posAng", "position angle of the Sersic fit, 0 to pi"),
    "sersic_amplitude": Column("nJy arcsec-2", "phot.flux.sb", "surface brightness of the Sersic fit at r_e"),
    "sersic_xc": Column("pix", "pos.cartesian.x;instr.det", "x of the centre of the Sersic fit"),
    "sersic_yc": Column("pix", "pos.cartesian.y;instr.det", "y of the centre of the Sersic fit"),
    "sersic_chi2_dof": Column("", "stat.fit.chi2", "reduced chi2 of the Sersic fit"),
    "sersic_aic": Column("", "stat.fit.param", "Akaike information criterion of the Sersic fit"),
    "sersic_bic": Column("", "stat.fit.param", "Bayesian information criterion of the Sersic fit"),
    "sky_mean": Column("nJy", "phot.flux.density;instr.skyLevel", "mean of the sky box, per pixel"),
    "sky_median": Column("nJy", "phot.flux.density;instr.skyLevel", "median of the sky box, per pixel"),
    "sky_sigma": Column("nJy", "stat.stdev;instr.skyLevel", "standard deviation of the sky box, per pixel"),
}


OBSERVED_ONLY = frozenset({"sky_mean", "sky_median", "sky_sigma"})
ANGLES = frozenset({"orientation_centroid", "orientation", "sersic_orientation"})
CALIBRATED = (
    "flux_njy",
    "r_half",
    "r20",
    "r50",
    "r80",
    "r_petro",
    "sersic_r_e",
    "ellipticity",
    "gini",
    "m20",
    "gini_m20_merger",
    "concentration",
    "asymmetry",
    "sersic_n",
)

DRAWN = {
    "p16": ("15.87th percentile of draws", ""),
    "p50": ("median of draws", "stat.median"),
    "p84": ("84.13th percentile of draws", ""),
    "mean": ("mean of draws", "stat.mean"),
    "std": ("standard deviation of draws", "stat.stdev"),
}
OBSERVED = {"obs": ("on the observed stamp", "")}
CALIBRATED_LEVELS = {
    "cal16": ("15.87th percentile of the truth, calibrated on simulated galaxies", ""),
    "cal50": ("median of the truth, calibrated on simulated galaxies", "stat.median"),
    "cal84": ("84.13th percentile of the truth, calibrated on simulated galaxies", ""),
}
STATISTICS = DRAWN | OBSERVED | CALIBRATED_LEVELS
"""Words and UCD of every statistic of a quantity."""
COLOUR = Column("mag", "phot.color", "AB colour {} - {} of draws in one aperture, at one PSF")
COLOUR_RADIUS = Column("arcsec", "phys.angSize", "radius of the circle in which colours are measured")

_SHARE = "stat.probability"
CLASSES: dict[str, Column] = {
    "p_merger": Column("", _SHARE, "share of draws above the Gini-M20 merger line (Lotz et al. 2008)"),
    "p_bulge": Column("", _SHARE, "share of draws on the bulge side of the Gini-M20 plane"),
    "p_asymmetric": Column("", _SHARE, "share of draws with A > 0.35 and A > S (Conselice 2003)"),
    "p_disturbed_outskirts": Column(
        "", _SHARE, "share of draws with shape asymmetry > 0.2 (Pawlik et al. 2016)"
    ),
    "p_multimodal": Column("", _SHARE, "share of draws with M > 0.1 (Freeman et al. 2013)"),
    "p_disc": Column("", _SHARE, "share of draws with a Sersic index below 2.5"),
}
COUNTS: dict[str, Column] = {
    "n_draws_measured": Column("", "meta.number", "draws with a measured morphology", "int64"),
    "morph_flags": Column("", "meta.code", "morphology flag bits set in at least half of the draws", "int64"),
    "morph_flags_obs": Column("", "meta.code", "morphology flag bits of the observed stamp", "int64"),
}
FIT: dict[str, Column] = {
    "chi2": Column("", "stat.fit.chi2", "residual chi2 per valid pixel, mean over draws"),
    "chi2_p": Column("", "stat.probability", "p-value of the residuals"),
    "prior_driven_frac": Column("", "stat.value", "share of the flux in prior-dominated regions"),
}
STAMP: dict[str, Column] = {
    "neighbour_frac": Column("", "", "share of the light of all segments in the stamp that is neighbours'"),
    "n_neighbours": Column("", "meta.number", "neighbours in the stamp"),
    "background_njy": Column("nJy", "instr.background", "sky level of the stamp, not taken off; per pixel"),
    "background_err_njy": Column("nJy", "stat.error;instr.background", "error of the sky level"),
    "error_floor": Column("", "stat.error", "noise in proportion to the light, as a fraction of it"),
    "valid_frac": Column("", "", "share of the stamp's pixels that were used"),
}
GRADE: dict[str, Column] = {
    "quality": Column("", "meta.code.qual", "0 good, 1 caution, 2 do not use, of this band", "int8"),
    "flags": Column(
        "", "meta.code.qual", "flag bits of this band; `galbatch flags N` explains them", "int64"
    ),
}
SOURCE: dict[str, Column] = {
    "source_id": Column("", "meta.id;meta.main", "identifier of the input catalogue"),
    "ra": Column("deg", "pos.eq.ra;meta.main", "right ascension (ICRS)"),
    "dec": Column("deg", "pos.eq.dec;meta.main", "declination (ICRS)"),
    "status": Column(
        "", "meta.code", "ok (quality 0), flagged (1 and 2, see flags) or failed (see failures.parquet)"
    ),
    "flags": Column("", "meta.code.qual", "flag bits; `galbatch flags N` explains them", "int64"),
    "n_draws_ok": Column("", "meta.number", "posterior draws with finite pixels", "int32"),
    "_healpix_29": Column("", "pos.healpix", "nested HEALPix index of order 29", "int64"),
    "quality": Column(
        "", "meta.code.qual", "0 good, 1 caution, 2 do not use: the worst of the bands", "int8"
    ),
    "n_evaluations": Column("", "meta.number", "network evaluations per draw, products and re-runs counted"),
}


def statistics_of(quantity: str) -> tuple[str, ...]:
    """The statistics that the tables hold of a quantity."""
    return tuple(OBSERVED) if quantity in OBSERVED_ONLY else (*DRAWN, *OBSERVED)


def band_columns(quantities: Mapping[str, Column] = QUANTITIES, draws: bool = False) -> dict[str, Column]:
    """Every column of a band without the band's name, in order; ``draws``: those of single draws too."""
    names = [(q, s) for q in quantities for s in statistics_of(q)]
    names += [(q, s) for q in CALIBRATED for s in CALIBRATED_LEVELS]
    found = {f"{q}_{s}": _statistic(quantities[q], *STATISTICS[s]) for q, s in names}
    found |= CLASSES | COUNTS | FIT | STAMP | GRADE
    if draws:
        text = "{}; of each draw"
        found |= {
            f"{q}_draws": about._replace(description=text.format(about.description))
            for q, about in quantities.items()
            if q not in OBSERVED_ONLY
        }
    return found


def colour_columns(bands: Iterable[str]) -> dict[str, Column]:
    """Colours of neighbouring bands, ``color_{b1}_{b2}_{statistic}``, and their aperture; none of one
    band."""
    found = {}
    for one, two in pairwise(bands):
        about = COLOUR._replace(description=COLOUR.description.format(one, two))
        for name in ("p16", "p50", "p84"):
            found[f"color_{one}_{two}_{name}"] = _statistic(about, *DRAWN[name])
    return found | ({"color_radius": COLOUR_RADIUS} if found else {})


def columns_of(
    bands: Iterable[str], quantities: Mapping[str, Column] = QUANTITIES, draws: bool = False
) -> dict[str, Column]:
    """Every column of a run in these bands that is not passed through."""
    bands = tuple(bands)
    found = {
        f"{stem}_{band}": about._replace(description=f"{about.description} (band {band})")
        for stem, about in band_columns(quantities, draws).items()
        for band in bands
    }
    return found | colour_columns(bands) | SOURCE


def _statistic(about: Column, words: str, ucd: str) -> Column:
    ucd = ";".join(filter(None, (about.ucd, ucd)))
    return about._replace(ucd=ucd, description=f"{about.description}; {words}")
