"""Is a PSF usable: finite, centred, odd-sized, normalised, at a known scale? Even sizes are resampled, not
guessed.

The centre is a Gaussian-windowed centroid about the peak: of the core and of the whole PSF (windows of the
width of the PSF and 2.4 times that); coma parts the two, so a PSF is off-centre when both are. A PSF whose
centre lies between pixels (even size) is shifted by half a pixel with a quintic spline and loses its outer
row and column; one centred on a pixel of an even array is cropped. The norm (sum) is recorded and kept,
unless the user asks for unit norm.

And is it sharper than diffraction lets a telescope see? Then it is the PSF of something else (another band,
or another pixel scale)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from galbatch.types import Finding

TOLERANCE_PIX = 0.1
NORM_RANGE = (0.5, 1.5)
_FEW_PIXELS, _REACH_PIX, _PARTS = 100, 10, 9


@dataclass(frozen=True)
class CheckedPsf:
    """``image`` (p, p) float32, p odd; ``offset_pix`` of its centre from the array's; ``problem`` '' if
    usable."""

    image: np.ndarray
    norm: float
    offset_pix: float
    fwhm_pix: float
    problem: str = ""


def unusable(problem: str, norm: float = 0.0) -> CheckedPsf:
    """What stands in the place of a PSF that cannot be used."""
    return CheckedPsf(np.zeros((3, 3), np.float32), norm, 0.0, 0.0, problem)


def check_psf(
    image: np.ndarray, pixels_per_detector: float = 1.0, centre: str = "check", norm: str = "keep"
) -> CheckedPsf:
    """``image`` (ny, nx) with ``pixels_per_detector`` PSF pixels to a detector pixel side. Never raises:
    see ``problem``."""
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or min(image.shape) < 3:
        return unusable(f"has shape {image.shape}: at least 3x3 pixels are needed")
    if not np.all(np.isfinite(image)):
        return unusable(f"has {int((~np.isfinite(image)).sum())} pixels that are not finite")
    total = float(image.sum())
    if total <= 0 or image.max() <= 0:
        return unusable(f"has a sum of {total:.4g}: it must be positive", total)
    size = min(image.shape)
    image = image[(image.shape[0] - size) // 2 :, (image.shape[1] - size) // 2 :][:size, :size]
    fwhm = fwhm_pix(image)
    centres = [centroid(image, fwhm), centroid(image, 2.355 * fwhm)]
    image, offset = _to_odd(image, centres, centre == "recentre")
    problem = ""
    if centre == "check" and max(map(abs, offset)) > TOLERANCE_PIX * pixels_per_detector:
        problem = (
            f"is off-centre by ({offset[1]:+.3f}, {offset[0]:+.3f}) of its pixels (allowed "
            f'{TOLERANCE_PIX * pixels_per_detector:.2f}); recentre it, or set psf_centre = "recentre"'
        )
    elif norm == "keep" and not NORM_RANGE[0] <= total <= NORM_RANGE[1]:
        problem = (
            f"sums to {total:.4g}, outside {NORM_RANGE[0]} to {NORM_RANGE[1]}; normalise it, or set "
            'psf_norm = "unit"'
        )
    if norm == "unit":
        image = image / image.sum()
    return CheckedPsf(image.astype(np.float32), total, float(np.hypot(*offset)), fwhm, problem)


def fwhm_pix(image: np.ndarray) -> float:
    """Full width at half maximum from the area above half of the peak, counted in parts of pixels where the
    PSF is a few pixels wide (cubic spline about the peak)."""
    area, fine = _area_above_half(image), 1
    if area < _FEW_PIXELS:
        y, x = np.unravel_index(np.argmax(image), image.shape)
        core = np.pad(image, _REACH_PIX)[y : y + 2 * _REACH_PIX + 1, x : x + 2 * _REACH_PIX + 1]
        fine = _PARTS
        area = _area_above_half(ndimage.zoom(core, fine, order=3, mode="grid-constant", grid_mode=True))
    return max(float(2 * np.sqrt(area / np.pi)) / fine, 1.0)


def _area_above_half(image: np.ndarray) -> int:
    peak = np.unravel_index(np.argmax(image), image.shape)
    labels, _ = ndimage.label(image >= 0.5 * image.max())
    return int((labels == labels[peak]).sum())


def centroid(image: np.ndarray, fwhm: float) -> tuple[float, float]:
    """(y, x) by first moments under a Gaussian window of the PSF's own width, iterated."""
    y, x = map(float, np.unravel_index(np.argmax(image), image.shape))
    yy, xx = np.indices(image.shape)
    sigma = max(fwhm / 2.355, 0.7)
    for _ in range(50):
        weight = image * np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / sigma**2)
        total = weight.sum()
        if not total > 0:
            break
        dy, dx = (weight * (yy - y)).sum() / total, (weight * (xx - x)).sum() / total
        y, x = y + 2 * dy, x + 2 * dx
        if not (0 <= y < image.shape[0] and 0 <= x < image.shape[1]) or max(abs(dy), abs(dx)) < 1e-5:
            break
    return y, x


HALO_REACH = 1.5  # FWHM: beyond it are half of a halo three times as wide, and hardly any of the core
HALO_SHARE = 0.5


def shape_of(image: np.ndarray) -> np.ndarray:
    """(6,): FWHM, place y and x of the centre, the two ellipticities of the core (of its second moments
    under a Gaussian window of the PSF's own width, times two: the window halves them), and the share of the
    light in wings, of which ``HALO_SHARE`` lie beyond ``HALO_REACH`` widths."""
    width = fwhm_pix(image)
    y, x = centroid(image, width)
    dy, dx = np.indices(image.shape) - np.array([y, x])[:, None, None]
    r2 = dy**2 + dx**2
    weight = image * np.exp(-0.5 * r2 / (width / 2.355) ** 2)
    size = max((weight * r2).sum(), 1e-12)  # a point has none
    ellipticity = [2 * (weight * of).sum() / size for of in (dx**2 - dy**2, 2 * dx * dy)]
    beyond = image[r2 > (HALO_REACH * width) ** 2].sum() / image.sum()
    return np.array([width, y, x, *ellipticity, beyond / HALO_SHARE])


def _to_odd(
    image: np.ndarray, centres: list[tuple[float, float]], recentre: bool
) -> tuple[np.ndarray, tuple[float, float]]:
    """An odd-sized image whose middle pixel is the PSF's centre, and the smallest offset (y, x) of
    ``centres`` left."""
    size = image.shape[0]
    middle = (size - 1) / 2
    if recentre:
        return _shifted(image, *centres[0]), (0.0, 0.0)
    places = (middle,) if size % 2 else (middle, middle + 0.5, middle - 0.5)
    nearest = [min(places, key=lambda c: abs(v - c)) for v in centres[0]]
    offset = min(((y - nearest[0], x - nearest[1]) for y, x in centres), key=lambda o: max(map(abs, o)))
    if size % 2:
        return image, offset
    if all(float(c).is_integer() for c in nearest):
        half = (size - 2) // 2
        top, left = int(nearest[0]) - half, int(nearest[1]) - half
        return image[top : top + size - 1, left : left + size - 1], offset
    return _shifted(image, *nearest), offset


def _shifted(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """``image`` resampled so that (y, x) becomes the middle of an odd array; the sum is kept."""
    size = image.shape[0] - 1 + image.shape[0] % 2
    half = size // 2
    grid = np.arange(size) - half
    out = ndimage.map_coordinates(
        image, np.meshgrid(grid + y, grid + x, indexing="ij"), order=5, mode="constant"
    )
    return out * (image.sum() / out.sum())


ARCSEC_PER_RAD = math.degrees(1) * 3600
AIRY_FWHM = 1.03  # full width at half maximum of the Airy pattern in wavelengths per diameter
SLACK = 0.85  # of that width: finite bandwidth, obstruction and the measurement's own error stay above it
DIAMETER_M = {"JWST": 6.5, "HST": 2.4, "EUCLID": 1.2, "ROMAN": 2.4}
LAYOUTS = {"jwst-i2d": "JWST", "ceers": "JWST", "hst": "HST", "euclid-mer": "EUCLID"}
EUCLID_UM = {"vis": 0.715, "y": 1.08, "j": 1.37, "h": 1.77}


def limit_arcsec(layout: str, band: str, header: Any) -> float | None:
    """Full width at half maximum of the diffraction pattern, 1.03 wavelengths per diameter (Airy); None where
    telescope or wavelength are not known.

    ``header``: of the science image; its TELESCOP and PHOTPLAM (Angstrom) are used, else ``layout`` and the
    number in the name of ``band``.
    """
    telescope = str(header.get("TELESCOP", "")).strip().upper() or LAYOUTS.get(layout, "")
    diameter, wavelength = DIAMETER_M.get(telescope), _wavelength_um(telescope, band, header)
    if diameter is None or wavelength is None:
        return None
    return AIRY_FWHM * wavelength * 1e-6 / diameter * ARCSEC_PER_RAD


def _wavelength_um(telescope: str, band: str, header: Any) -> float | None:
    pivot = header.get("PHOTPLAM")
    if isinstance(pivot, int | float) and 1000 < pivot < 50000:
        return pivot / 1e4
    if telescope == "EUCLID":
        return EUCLID_UM.get(re.split(r"[^a-z]+", band.lower())[-1])
    number = re.search(r"f(\d{3,4})[a-z]", band.lower())
    if number is None:
        return None
    value = int(number[1])
    if telescope == "HST" and value > 200:
        return value / 1e3  # f606w: nm; f160w: tens of nm
    return value / 1e2


def check_sharpness(tile: Any, layout: str, band: str) -> list[Finding]:
    """An error where the PSF of an open tile is narrower than its telescope can make one."""
    limit = limit_arcsec(layout, band, tile.images["sci"].header)
    width = tile.psf.fwhm_arcsec()
    if limit is None or not width < SLACK * limit:
        return []
    what = f"the PSF has a FWHM of {width:.3f} arcsec; diffraction allows none below {limit:.3f} here"
    remedy = "Give the PSF of this band, and its pixel scale with psf_scale_arcsec."
    return [Finding("error", "psf_sharp", tile.subject, what, remedy)]
