"""The statistics and their order: name -> (unit, UCD, description). The one place where a column is defined.

Position angles are counter-clockwise from the x axis of the image; pixel coordinates count from 0 at the
centre of the first pixel.
"""

from __future__ import annotations

from typing import NamedTuple


class Quantity(NamedTuple):
    """Unit (astropy/VOUnit string, "" if none), UCD, and description of a statistic."""

    unit: str
    ucd: str
    description: str


_MORPH = "src.morph.param"
_SIZE = "phys.angSize"
_RGM = "Rodriguez-Gomez et al. 2019"

QUANTITIES: dict[str, Quantity] = {
    "flux_njy": Quantity("nJy", "phot.flux.density", "flux inside two circular Petrosian radii"),
    "mag_ab": Quantity("mag", "phot.mag", "AB magnitude of flux_njy"),
    "flux_ellip_njy": Quantity("nJy", "phot.flux.density", "flux inside two elliptical Petrosian radii"),
    "flux_seg_njy": Quantity("nJy", "phot.flux.density", "flux inside the source's segment"),
    "xc_centroid": Quantity("pix", "pos.cartesian.x;instr.det", "x of the centroid of the segment"),
    "yc_centroid": Quantity("pix", "pos.cartesian.y;instr.det", "y of the centroid of the segment"),
    "ellipticity_centroid": Quantity("", "src.ellipticity", "1 - b/a of the moments about the centroid"),
    "elongation_centroid": Quantity("", _MORPH, "a/b of the moments about the centroid"),
    "orientation_centroid": Quantity("rad", "pos.posAng", "position angle of the moments about the centroid"),
    "xc_asymmetry": Quantity("pix", "pos.cartesian.x;instr.det", "x of the centre of minimal asymmetry"),
    "yc_asymmetry": Quantity("pix", "pos.cartesian.y;instr.det", "y of the centre of minimal asymmetry"),
    "ellipticity": Quantity("", "src.ellipticity", "1 - b/a of the moments about the asymmetry centre"),
    "elongation": Quantity("", _MORPH, "a/b of the moments about the asymmetry centre"),
    "orientation": Quantity("rad", "pos.posAng", "position angle of the moments about the asymmetry centre"),
    "r_petro": Quantity("arcsec", _SIZE, "circular Petrosian radius, eta = 0.2"),
    "r_petro_ellip": Quantity("arcsec", _SIZE, "elliptical Petrosian semi-major axis, eta = 0.2"),
    "r_max": Quantity("arcsec", _SIZE, "radius of the farthest pixel of the detection mask"),
    "r_max_ellip": Quantity("arcsec", _SIZE, "semi-major axis of the ellipse around the detection mask"),
    "r_half": Quantity("arcsec", _SIZE, "radius of the circle with half of the flux inside r_max"),
    "r_half_ellip": Quantity("arcsec", _SIZE, "semi-major axis with half of the flux inside r_max_ellip"),
    "r20": Quantity("arcsec", _SIZE, "radius with 20% of the flux inside 1.5 r_petro"),
    "r50": Quantity("arcsec", _SIZE, "radius with 50% of the flux inside 1.5 r_petro"),
    "r80": Quantity("arcsec", _SIZE, "radius with 80% of the flux inside 1.5 r_petro"),
    "gini": Quantity("", _MORPH, "Gini coefficient, Lotz et al. 2004"),
    "m20": Quantity("", _MORPH, "M20, Lotz et al. 2004"),
    "gini_m20_bulge": Quantity("", _MORPH, f"bulge statistic, {_RGM}: -0.693 M20 + 4.95 G - 3.96"),
    "gini_m20_merger": Quantity("", _MORPH, f"merger statistic, {_RGM}: 0.139 M20 + 0.990 G - 0.327"),
    "sn_per_pixel": Quantity("", "stat.snr", "mean signal-to-noise ratio per pixel of the Gini segment"),
    "concentration": Quantity("", _MORPH, "5 log10(r80 / r20)"),
    "asymmetry": Quantity("", _MORPH, "rotational asymmetry inside 1.5 r_petro, Lotz et al. 2004"),
    "smoothness": Quantity("", _MORPH, "smoothness (clumpiness), Lotz et al. 2004"),
    "multimode": Quantity("", _MORPH, "multimode statistic M, Freeman et al. 2013, Peth et al. 2016"),
    "intensity": Quantity("", _MORPH, "intensity statistic I, Freeman et al. 2013, Peth et al. 2016"),
    "deviation": Quantity("", _MORPH, "deviation statistic D, Freeman et al. 2013, Peth et al. 2016"),
    "rms_asymmetry2": Quantity("", _MORPH, "square of the RMS asymmetry, Sazonova et al. 2024 eq. 27"),
    "outer_asymmetry": Quantity(
        "", _MORPH, "asymmetry between r_half_ellip and r_max_ellip, Wen et al. 2014"
    ),
    "shape_asymmetry": Quantity("", _MORPH, "asymmetry of the detection mask, Pawlik et al. 2016"),
    "sersic_n": Quantity("", _MORPH, "Sersic index"),
    "sersic_r_e": Quantity("arcsec", _SIZE, "semi-major axis of the half-light ellipse of the Sersic fit"),
    "sersic_ellipticity": Quantity("", "src.ellipticity", "1 - b/a of the Sersic fit"),
    "sersic_orientation": Quantity("rad", "pos.posAng", "position angle of the Sersic fit, 0 to pi"),
    "sersic_amplitude": Quantity(
        "nJy arcsec-2", "phot.flux.sb", "surface brightness of the Sersic fit at r_e"
    ),
    "sersic_xc": Quantity("pix", "pos.cartesian.x;instr.det", "x of the centre of the Sersic fit"),
    "sersic_yc": Quantity("pix", "pos.cartesian.y;instr.det", "y of the centre of the Sersic fit"),
    "sersic_chi2_dof": Quantity("", "stat.fit.chi2", "reduced chi2 of the Sersic fit"),
    "sersic_aic": Quantity("", "stat.fit.param", "Akaike information criterion of the Sersic fit"),
    "sersic_bic": Quantity("", "stat.fit.param", "Bayesian information criterion of the Sersic fit"),
    "sky_mean": Quantity("nJy", "phot.flux.density;instr.skyLevel", "mean of the sky box, per pixel"),
    "sky_median": Quantity("nJy", "phot.flux.density;instr.skyLevel", "median of the sky box, per pixel"),
    "sky_sigma": Quantity("nJy", "stat.stdev;instr.skyLevel", "standard deviation of the sky box, per pixel"),
}

OBSERVED_ONLY = frozenset({"sky_mean", "sky_median", "sky_sigma"})
ANGLES = frozenset({"orientation_centroid", "orientation", "sersic_orientation"})
GROUPS: dict[str, int] = {"gini": 1, "cas": 2, "mid": 4, "shape": 8, "sersic": 16}
