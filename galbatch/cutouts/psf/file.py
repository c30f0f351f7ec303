"""PSF files: an image, a cube by index or nearest position, STDPSF and stpsf grids, PSFEx models.

STDPSF (Anderson): cube with NXPSFS, NYPSFS, IPSFXnn, JPSFYnn. stpsf grids: cube with OVERSAMP and DET_YXn =
'(y, x)'. PSFEx: table PSF_DATA with PSF_MASK (components), POLZEROi, POLSCALi, POLDEG1, PSF_SAMP. Grids and
PSFEx are functions of position, whose frame ('mosaic' or 'detector') the survey file must state.
Oversampled PSFs that sum to the square of their oversampling are brought to a sum near one.

PSFs for mosaics of JWST are made by stpsf (Perrin et al. 2014, SPIE 9143, 91433X), where it is installed.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from astropy.io import fits
from scipy import ndimage

from galbatch.cutouts.fits.source import open_bytes
from galbatch.errors import InputError, RunError

MAX_FIELDS = 999  # of a table, by the FITS standard (4.0, section 7.3)
MAX_BYTES = 1 << 31
_SCALES = ("PIXELSCL", "PIXSCALE", "PIXSCL", "PSFSCALE")


@dataclass(frozen=True)
class PsfFile:
    """What a file holds. ``kind`` 'image', 'cube', 'nearest', 'grid' or 'psfex'; ``cube`` (m, p, p).

    ``positions`` (m, 2): x, y (1-based pixels) or ra, dec of the planes; ``sky`` tells which.
    ``scale_arcsec`` None if not stated; ``per_detector``: PSF pixels to a detector pixel side, where
    stated. ``poly`` of PSFEx: zero (2,), scale (2,), degree.
    """

    path: str
    kind: str
    cube: np.ndarray
    scale_arcsec: float | None
    per_detector: float | None = None
    positions: np.ndarray | None = None
    sky: bool = False
    poly: Any = None

    @property
    def needs_frame(self) -> bool:
        return self.kind in ("grid", "psfex")

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a grid: sorted x (nx,), sorted y (ny,), and the plane at (ny, nx)."""
        x, y = np.zeros((2, 0)) if self.positions is None else self.positions.T
        xs, ys = np.unique(x), np.unique(y)
        plane = np.full((len(ys), len(xs)), -1)
        plane[np.searchsorted(ys, y), np.searchsorted(xs, x)] = np.arange(len(self.cube))
        return xs, ys, plane


def read_psf(path: str, ext: tuple[str, ...] = ()) -> PsfFile:
    """Read any of the formats above. Raises ``InputError`` naming what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(_content(path)), memmap=False) as hdus:
                return _read(path, hdus, ext)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"PSF file {path} cannot be read: {type(error).__name__}: {error}.") from error


def _content(path: str) -> bytes:
    """The file's bytes, unzipped. Local, or behind a URL."""
    source = open_bytes(path)
    try:
        if source.stamp.size > MAX_BYTES:
            raise InputError(f"PSF file {path} has {source.stamp.size} bytes; at most {MAX_BYTES} are read.")
        content = source.read(0, source.stamp.size)
    finally:
        source.close()
    if content[:2] != b"\x1f\x8b":
        return content
    with gzip.open(io.BytesIO(content)) as packed:
        return packed.read(MAX_BYTES)


def _read(path: str, hdus: fits.HDUList, ext: tuple[str, ...]) -> PsfFile:
    for hdu in hdus:
        if not 0 <= int(hdu.header.get("TFIELDS", 0)) <= MAX_FIELDS:  # astropy makes a list of as many
            raise InputError(f"PSF file {path} is damaged: TFIELDS is {hdu.header['TFIELDS']}.")
        if hdu.header.get("XTENSION", "").strip() == "BINTABLE" and "PSF_MASK" in (hdu.columns.names or []):
            return _psfex(path, hdu)
    images = [
        h
        for h in hdus
        if isinstance(h, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
        and h.header.get("NAXIS", 0) in (2, 3)
        and h.data is not None
    ]
    if ext:
        images = [h for h in images if h.name.upper() == ext[0].upper() or str(hdus.index(h)) == ext[0]]
    if not images:
        raise InputError(
            f"PSF file {path} has no image{f' {ext[0]}' if ext else ''}: it holds "
            f"{', '.join(h.name or '?' for h in hdus)}."
        )
    header = images[0].header
    data = np.asarray(images[0].data, np.float64)
    scale = next((float(header[k]) for k in _SCALES if _positive(header.get(k))), None)
    over = float(header["OVERSAMP"]) if _positive(header.get("OVERSAMP")) else None
    if data.ndim == 2:
        return PsfFile(path, "image", data[None], scale, over)
    if "NXPSFS" in header and "NYPSFS" in header:
        return _stdpsf(path, header, data, scale)
    if "DET_YX0" in header:
        pairs = [re.findall(r"-?[0-9.]+", str(header[f"DET_YX{i}"]))[:2] for i in range(len(data))]
        xy = np.array([[float(p[1]) + 1, float(p[0]) + 1] for p in pairs])
        return _grid(path, data, scale, over or 1.0, xy)
    table = _positions(hdus, len(data))
    if table is not None:
        return PsfFile(path, "nearest", data, scale, over, table[0], table[1])
    return PsfFile(path, "image" if len(data) == 1 else "cube", data, scale, over)


def _stdpsf(path: str, header: fits.Header, data: np.ndarray, scale: float | None) -> PsfFile:
    nx, ny = int(header["NXPSFS"]), int(header["NYPSFS"])
    xs = [float(header[f"IPSFX{i + 1:02d}"]) for i in range(nx)]
    ys = [float(header[f"JPSFY{i + 1:02d}"]) for i in range(ny)]
    if nx * ny != len(data):
        raise InputError(
            f"PSF file {path}: NXPSFS x NYPSFS = {nx} x {ny}, but the cube has {len(data)} planes."
        )
    return _grid(
        path, data, scale, float(header.get("OVERSAMP", 4)), np.array([(x, y) for y in ys for x in xs])
    )


def _grid(path: str, data: np.ndarray, scale: float | None, over: float, xy: np.ndarray) -> PsfFile:
    out = PsfFile(path, "grid", _near_unit(data, over), scale, over, xy)
    if len(xy) != len(data) or np.any(out.axes[2] < 0):
        raise InputError(f"PSF file {path}: the positions of its {len(data)} PSFs do not form a grid.")
    return out


def _psfex(path: str, hdu: fits.BinTableHDU) -> PsfFile:
    header = hdu.header
    basis = np.asarray(hdu.data["PSF_MASK"][0], np.float64)
    axes = int(header.get("POLNAXIS", 0))
    degree = int(header.get("POLDEG1", 0)) if axes else 0
    zero = np.array([float(header.get(f"POLZERO{i + 1}", 0.0)) for i in range(2)])
    width = np.array([float(header.get(f"POLSCAL{i + 1}", 1.0)) for i in range(2)])
    samp = float(header.get("PSF_SAMP", 1.0))
    terms = (degree + 1) * (degree + 2) // 2 if axes else 1
    if basis.ndim != 3 or axes not in (0, 2) or len(basis) != terms or not samp > 0 or not np.all(width != 0):
        raise InputError(
            f"PSF file {path}: {basis.shape} components for {axes} variables of degree {degree}: only "
            "polynomials in x and y can be used."
        )
    if not np.all(np.isfinite(basis)):
        raise InputError(f"PSF file {path}: its components hold NaN or infinite values. Run PSFEx again.")
    basis = basis / (1.0 if abs(np.log(abs(basis[0].sum()) + 1e-30)) < 0.5 else basis[0].sum())
    return PsfFile(path, "psfex", basis, None, 1.0 / samp, poly=(zero, width, degree))


def _near_unit(cube: np.ndarray, over: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        sums = np.abs([cube.sum(axis=(1, 2)).mean(), cube.sum(axis=(1, 2)).mean() / over**2])
        return cube / over**2 if abs(np.log(sums[1])) < abs(np.log(sums[0])) else cube


def _positions(hdus: fits.HDUList, planes: int) -> tuple[np.ndarray, bool] | None:
    for hdu in hdus:
        if (
            isinstance(hdu, fits.BinTableHDU)
            and not isinstance(hdu, fits.CompImageHDU)
            and hdu.data is not None
        ):
            names = {n.lower(): n for n in hdu.columns.names}
            for pair, sky in ((("ra", "dec"), True), (("x", "y"), False)):
                if all(p in names for p in pair) and len(hdu.data) == planes:
                    return np.stack([np.asarray(hdu.data[names[p]], float) for p in pair], 1), sky
    return None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6


PIXELS_PER_NATIVE = 4


def model_psf(
    band: str, angle_deg: float = 0.0, instrument: str = "NIRCam", fov_arcsec: float = 5.0
) -> tuple[np.ndarray, float]:
    """The PSF of a telescope's filter, over the pixels of its detector, turned as the mosaic is.

    Parameters
    ----------
    band : str
        Name of the filter, such as f200w.
    angle_deg : float
        Angle from the mosaic's y axis to the detector's, counter-clockwise: PA_APER of the exposures where
        north is up.
    instrument : str
        Class of stpsf: NIRCam, NIRISS, MIRI.
    fov_arcsec : float
        Side of the image.

    Returns
    -------
    tuple of ndarray, float
        (n, n) float64, n odd, of sum 1 and centred on its middle pixel, a quarter of the detector's wide; and
        the side of these pixels in arcsec. The smoothing by a drizzle is not in it.

    Raises
    ------
    RunError
        stpsf is not installed, or lacks its data.
    InputError
        It does not know the instrument or filter.
    """
    stpsf = _stpsf()
    if not hasattr(stpsf, instrument):
        raise InputError(f"stpsf has no instrument {instrument!r}. Give NIRCam, NIRISS or MIRI.")
    try:
        camera = getattr(stpsf, instrument)()
        camera.filter = band.upper()
    except ValueError as error:
        raise InputError(f"{instrument} has no filter {band.upper()}: {error}") from error
    hdus = camera.calc_psf(oversample=PIXELS_PER_NATIVE, fov_arcsec=fov_arcsec)
    hdu = hdus["OVERDIST"] if "OVERDIST" in hdus else hdus[0]
    native = np.r_[0.5, np.ones(PIXELS_PER_NATIVE - 1), 0.5] / PIXELS_PER_NATIVE
    image = np.asarray(hdu.data, float)
    for axis in (0, 1):
        image = ndimage.convolve1d(image, native, axis=axis, mode="constant")
    turned = _turned(image, np.radians(angle_deg))
    return turned / turned.sum(), float(hdu.header["PIXELSCL"])


def _stpsf() -> Any:
    for name in ("stpsf", "webbpsf"):  # its name until 2025
        try:
            return import_module(name)
        except ImportError:
            continue
        except OSError as error:
            raise RunError(f"{name} lacks its data ({error}): see its installation page.") from error
    raise RunError("stpsf is not installed. `pip install stpsf`, and its data as its installation page says.")


def _turned(image: np.ndarray, angle: float) -> np.ndarray:
    """``image`` turned counter-clockwise about its centre, on an odd number of pixels."""
    half = (min(image.shape) - 1) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    back = (np.cos(angle) * y - np.sin(angle) * x, np.cos(angle) * x + np.sin(angle) * y)
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.map_coordinates(image, [back[0] + centre[0], back[1] + centre[1]], order=3)
