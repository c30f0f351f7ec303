"""Pixel grids on the sky: positions of many sources at once, the scale, and the WCS of a stamp.

Pixel coordinates count from 0 at the centre of the first pixel. A pixel scale given by the user states the
scale of an image; it never moves a source. One that is not that of the WCS is an error, unless positions are
in pixels: the WCS is then left out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from galbatch.errors import InputError

if TYPE_CHECKING:
    from galbatch.cutouts.fits.header import Header

SCALE_TOLERANCE = 1e-3  # of the scale: what moves the edge of a stamp by this part of its half width


@dataclass(frozen=True)
class Grid:
    """The grid of one image. ``wcs`` None where there is none (pixel columns only). Scales in arcsec."""

    shape: tuple[int, int]
    wcs: WCS | None
    scale_arcsec: float
    header_scale_arcsec: float | None
    linear: bool

    def to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """(n,) deg to (n,) x, y; NaN where the position has no pixel (other side of the sky, not finite)."""
        ra, dec = np.asarray(ra, float), np.asarray(dec, float)
        x, y = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
        good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        if self.wcs is None or not good.any():
            return x, y
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                x[good], y[good] = self.wcs.all_world2pix(ra[good], dec[good], 0, quiet=True)
            except Exception:
                return x, y
        return x, y

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """(n,) pixels to (n,) ra, dec in deg; of a grid with a WCS."""
        assert self.wcs is not None
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self.wcs.all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)

    def edge_distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) pixels to the nearest edge, negative outside, -inf where x or y is NaN."""
        ny, nx = self.shape
        inside = np.minimum(np.minimum(x + 0.5, nx - 0.5 - x), np.minimum(y + 0.5, ny - 0.5 - y))
        return np.where(np.isfinite(inside), inside, -np.inf)

    def stamp_wcs(
        self, x0: np.ndarray, y0: np.ndarray, x: np.ndarray, y: np.ndarray, ra: np.ndarray, dec: np.ndarray
    ) -> np.ndarray:
        """(n, 8) crpix1 crpix2 crval1 crval2 cd11 cd12 cd21 cd22 of TAN stamps whose first pixel is (x0,
        y0)."""
        out = np.empty((len(x0), 8))
        if self.linear and self.wcs is not None:
            out[:, 0], out[:, 1] = self.wcs.wcs.crpix[0] - x0, self.wcs.wcs.crpix[1] - y0
            out[:, 2:4] = self.wcs.wcs.crval
            out[:, 4:] = (self.wcs.pixel_scale_matrix).ravel()
            return out
        out[:, 0], out[:, 1], out[:, 2], out[:, 3] = x - x0 + 1, y - y0 + 1, ra, dec
        if self.wcs is None:
            out[:, 4:] = np.array([-1, 0, 0, 1]) * self.scale_arcsec / 3600
            return out
        centre = self.to_sky(x, y)
        step = [self.to_sky(x + 1, y), self.to_sky(x, y + 1)]
        for k, (a, d) in enumerate(step):
            da = (a - centre[0] + 180) % 360 - 180
            out[:, 4 + k], out[:, 6 + k] = da * np.cos(np.radians(centre[1])), d - centre[1]
        return out


def grid_of(
    header: Header,
    shape: tuple[int, int],
    where: str,
    scale_arcsec: float | None = None,
    need_sky: bool = True,
) -> Grid:
    """The grid of an image from its header; ``scale_arcsec``: what the survey file says of its scale.

    Raises ``InputError`` when the header has no usable celestial WCS and one is needed, when no scale is
    known, or when the scale given differs from that of the WCS by more than ``SCALE_TOLERANCE``.
    """
    wcs, problem = celestial_wcs(header)
    if wcs is None:
        if need_sky:
            raise InputError(
                f"{where}: {problem}. Repair its header, or give positions in pixels: pixel_columns = true "
                "and columns x, y."
            )
        if scale_arcsec is None:
            raise InputError(
                f"{where}: {problem}, and pixel_scale_arcsec is not given. Give it in the survey file."
            )
        return Grid(shape, None, float(scale_arcsec), None, False)
    found = _scale(wcs)
    off = 0.0 if scale_arcsec is None else abs(scale_arcsec / found - 1)
    if scale_arcsec is not None and off > SCALE_TOLERANCE:
        if not need_sky:
            return Grid(shape, None, float(scale_arcsec), found, False)
        raise InputError(
            f"{where}: pixel_scale_arcsec = {scale_arcsec}, but its WCS has pixels of {found:.6g} arcsec. "
            "Remove pixel_scale_arcsec, or where the WCS is the wrong one give positions in pixels: "
            "pixel_columns = true and columns x, y."
        )
    linear = (
        wcs.sip is None
        and wcs.cpdis1 is None
        and wcs.cpdis2 is None
        and wcs.det2im1 is None
        and all(t.endswith("-TAN") for t in wcs.wcs.ctype)
    )
    return Grid(shape, wcs, float(scale_arcsec) if scale_arcsec and off < 1e-6 else found, found, linear)


def celestial_wcs(header: Header) -> tuple[WCS | None, str]:
    """The celestial WCS of a header, or None and why there is none that can be used."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            full = WCS(header)
            if not full.has_celestial:
                return None, "it has no celestial WCS"
            wcs = full.celestial
            matrix = wcs.pixel_scale_matrix
            if not np.all(np.isfinite(matrix)) or abs(np.linalg.det(matrix)) < 1e-20:
                return None, "its WCS is singular (CD matrix without an inverse)"
            if wcs.wcs.lng != 0 or not wcs.wcs.ctype[0].startswith("RA"):
                return None, "its first axis is not right ascension"
            if not (np.all(np.abs(wcs.wcs.crval) <= [720, 90]) and np.all(np.abs(wcs.wcs.crpix) < 1e9)):
                return (None, f"it has impossible CRVAL {list(wcs.wcs.crval)} or CRPIX {list(wcs.wcs.crpix)}")
            centre = wcs.all_pix2world([[0.0, 0.0]], 0)
            if not np.all(np.isfinite(centre)):
                return None, "its WCS gives no finite coordinates"
            return wcs, ""
        except Exception as error:
            return (
                None,
                f"its WCS cannot be read ({type(error).__name__}: {str(error).strip().splitlines()[:1]})",
            )


def _scale(wcs: WCS) -> float:
    return math.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0
