"""Noise-free simulated galaxies from files: every layout in which TNG/SKIRT images are published.

Layouts (``read_images`` finds out which one a file has):

* ``idealised``: one image HDU a band in AB mag/arcsec2, CDELT in kpc (SKIRT 9, TNG-HSC) or pc (SKIRT 8); 99
  is empty.
* ``realistic``: HSC mosaics with HDUs ``BAND``, ``BAND MASK``, ``BAND VARIANCE``, ``BAND PSF`` in
  nanomaggies.
* ``counts``: one cube (bands, N, N) in counts/s/pixel with FILTERn and USE_Z cards (SDSS, Pan-STARRS).
* ``jwst``: one cube in MJy/sr with EXTn and REDSHIFT cards (TNG50 at NIRCam, Costantin et al. 2023).
* ``plain``: an image or cube in linear flux, FITS or npz (array ``images``: (n, H, W) or (n, bands, H, W)).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galbatch.errors import InputError

EMPTY_MAG = 99.0
_JY_PER_NANOMAGGY = 3.631e-6


@dataclass(frozen=True)
class GalaxyImages:
    """One galaxy in some bands. ``flux`` (bands, N, N) float32 per pixel in ``unit``; no PSF unless
    ``psf_fwhm_pix``.

    ``group``: what must not be split between training and test (the same object in another band, view or
    file). ``pixel_kpc`` is the pixel size at the galaxy, ``pixel_arcsec`` on the sky; None where the file
    does not say.
    """

    flux: np.ndarray
    bands: tuple[str, ...]
    unit: str
    layout: str
    group: str
    source: str
    redshift: float | None = None
    pixel_kpc: float | None = None
    pixel_arcsec: float | None = None
    psf_fwhm_pix: float = 0.0


def read_images(path) -> list[GalaxyImages]:
    """All galaxies of one file. Raises ``InputError`` naming the file, what is wrong with it, and the
    remedy."""
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    hdus = _open(path)
    layout = find_layout(hdus, path)
    return [_READERS[layout](hdus, path)]


def find_layout(hdus, path) -> str:
    """Name of the layout of an opened file: a list of (name, header, data)."""
    images = [(name, header, data) for name, header, data in hdus if data is not None]
    if not images:
        raise InputError(
            f"{path}: no image in any of its {len(hdus)} HDUs: not a galaxy image; remove it from the "
            "folder or narrow the file pattern."
        )
    if any(name.endswith(" VARIANCE") for name, _, _ in images):
        return "realistic"
    _, header, data = images[0]
    unit = re.sub(r"\s*/\s*", "/", str(header.get("BUNIT", "")).strip().lower())
    if unit == "ab mag/arcsec2":
        return "idealised"
    if data.ndim == 3 and unit == "mjy/sr" and "REDSHIFT" in header:
        return "jwst"
    if data.ndim == 3 and unit.startswith("counts") and "FILTER0" in header:
        return "counts"
    if "mag" in unit:
        raise InputError(
            f"{path}: BUNIT is '{header.get('BUNIT')}', a magnitude unit of no known layout "
            "(known: 'AB mag/arcsec2'): convert the image to linear flux."
        )
    if data.ndim in (2, 3) and "CTYPE1" not in header:
        return "plain"
    if data.ndim in (2, 3) and unit in (
        "",
        "jy",
        "njy",
        "ujy",
        "mjy/sr",
        "adu",
        "counts",
        "electron/s",
        "counts/s/pixel",
    ):
        return "plain"
    raise InputError(
        f"{path}: unknown layout (BUNIT '{header.get('BUNIT')}', shape {data.shape}): expected one of "
        f"{sorted(_READERS)}; convert it to a plain FITS image in linear flux."
    )


def _open(path):
    from astropy.io import fits

    if not path.is_file():
        raise InputError(f"{path}: no such file: check the folder and pattern of the training data.")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with fits.open(path, memmap=False) as hdus:
                out = []
                for hdu in hdus:
                    data = hdu.data if getattr(hdu, "is_image", False) else None
                    out.append(
                        (hdu.name.strip(), hdu.header.copy(), None if data is None else np.asarray(data))
                    )
        harm = [str(w.message) for w in caught if re.search("truncated|corrupted", str(w.message))]
        if harm:
            raise OSError(" ".join(harm[0].split()))
        return out
    except (OSError, TypeError, ValueError, EOFError) as err:
        size = path.stat().st_size
        raise InputError(
            f"{path}: cannot be read as FITS ({size} bytes: {err}): the file is truncated or damaged; "
            "download or make it again."
        ) from err


def _card(header, name, path, kind=float):
    try:
        return kind(header[name])
    except KeyError:
        raise InputError(
            f"{path}: card {name} is missing from the header: the file does not follow its layout; "
            "add the card or use a plain image."
        ) from None
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: card {name} is {header[name]!r}, not a {kind.__name__}: correct the header."
        ) from None


def _clean(flux, path):
    flux = np.ascontiguousarray(flux, dtype=np.float32)
    bad = int(np.count_nonzero(~np.isfinite(flux)))
    if bad:
        raise InputError(
            f"{path}: {bad} of {flux.size} pixels are NaN or infinite: a noise-free image has none; "
            "replace them by zero or leave the file out."
        )
    if flux.shape[-1] < 16 or flux.shape[-2] < 16:
        raise InputError(f"{path}: image of {flux.shape[-2:]} pixels: at least 16 by 16 are needed.")
    if not (flux.sum(axis=(-2, -1)) > 0).any():
        raise InputError(f"{path}: no flux in any band: the image is empty; leave the file out.")
    return flux


def kpc_per_arcsec(redshift: float) -> float:
    """Proper kpc per arcsec, Planck 2015 cosmology as in the TNG headers (COSMO = 'Planck15')."""
    from astropy.cosmology import Planck15

    return float(Planck15.kpc_proper_per_arcmin(redshift).value) / 60.0


def _read_idealised(hdus, path):
    first = next(header for _, header, data in hdus if data is not None)
    to_kpc = {"kpc": 1.0, "pc": 1e-3}.get(_card(first, "CTYPE1", path, str).strip())
    if to_kpc is None:
        raise InputError(f"{path}: CTYPE1 is '{first['CTYPE1']}': expected kpc (SKIRT 9) or pc (SKIRT 8).")
    redshift, pixel_kpc = _card(first, "REDSHIFT", path), _card(first, "CDELT1", path) * to_kpc
    pixel_arcsec = pixel_kpc / kpc_per_arcsec(redshift)
    planes, bands = [], []
    for name, header, data in hdus:
        if data is None:
            continue
        mag = np.asarray(data, dtype=np.float64)
        if np.isnan(mag).any():
            raise InputError(
                f"{path}[{name}]: {int(np.isnan(mag).sum())} NaN magnitudes: empty pixels must be 99."
            )
        empty = mag >= EMPTY_MAG
        planes.append(np.where(empty, 0.0, 10 ** (-0.4 * (np.where(empty, 0, mag) - 8.9)) * pixel_arcsec**2))
        bands.append(str(header.get("FILTER", name)).strip())
    return GalaxyImages(
        _clean(np.stack(planes), path),
        tuple(bands),
        "Jy",
        "idealised",
        _group(first, path),
        str(path),
        redshift,
        pixel_kpc,
        pixel_arcsec,
    )


def _read_realistic(hdus, path):
    kinds = (" MASK", " VARIANCE", " PSF")
    bands = [(n, h, d) for n, h, d in hdus if d is not None and not n.endswith(kinds)]
    psf = {n.removesuffix(" PSF"): d for n, _, d in hdus if d is not None and n.endswith(" PSF")}
    flux = _clean(np.stack([d for _, _, d in bands]) * _JY_PER_NANOMAGGY, path)
    width = max((_moment_fwhm(psf[n]) for n, _, _ in bands if n in psf), default=0.0)
    header = bands[0][1]
    return GalaxyImages(
        flux,
        tuple(n for n, _, _ in bands),
        "Jy",
        "realistic",
        _group(header, path),
        str(path),
        header.get("REDSHIFT"),
        None,
        0.168,
        width,
    )


def _moment_fwhm(psf):
    """FWHM of the Gaussian with the PSF's peak-to-sum ratio (robust against wings)."""
    return float(2.3548 * np.sqrt(psf.sum() / psf.max() / (2 * np.pi)))


def _read_counts(hdus, path):
    _, header, data = next(h for h in hdus if h[2] is not None)
    bands = tuple(_card(header, f"FILTER{i}", path, str) for i in range(len(data)))
    return GalaxyImages(
        _clean(data, path),
        bands,
        "counts/s",
        "counts",
        _group(header, path),
        str(path),
        _card(header, "USE_Z", path),
        _card(header, "CDELT1", path) * 1e-3,
        _card(header, "PIXSCALE", path),
    )


def _read_jwst(hdus, path):
    _, header, data = next(h for h in hdus if h[2] is not None)
    bands = tuple(_card(header, f"EXT{i + 1}", path, str).strip() for i in range(len(data)))
    redshift = _card(header, "REDSHIFT", path)
    pixel_arcsec = abs(_card(header, "CDELT1", path)) * 3600
    jy = data * 1e6 * np.deg2rad(pixel_arcsec / 3600) ** 2
    return GalaxyImages(
        _clean(jy, path),
        bands,
        "Jy",
        "jwst",
        _group(header, path),
        str(path),
        redshift,
        pixel_arcsec * kpc_per_arcsec(redshift),
        pixel_arcsec,
    )


def _read_plain(hdus, path):
    name, header, data = next(h for h in hdus if h[2] is not None)
    data = np.atleast_3d(data) if data.ndim > 3 else data.reshape(-1, *data.shape[-2:])
    bands = tuple(
        str(header.get("FILTER", name or "image")) + (f"_{i}" if len(data) > 1 else "")
        for i in range(len(data))
    )
    return GalaxyImages(
        _clean(data, path),
        bands,
        str(header.get("BUNIT", "flux")),
        "plain",
        _group(header, path),
        str(path),
        header.get("REDSHIFT"),
    )


def _read_npz(path):
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive)
            key = next((k for k in ("images", "source_maps") if k in names), names[0] if names else None)
            images = archive[key]
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as err:
        raise InputError(
            f"{path}: cannot be read as npz ({err}): the file is truncated or damaged; make it again."
        ) from err
    if images.ndim not in (3, 4):
        raise InputError(
            f"{path}: array '{key}' has shape {images.shape}: (n, H, W) or (n, bands, H, W) is expected."
        )
    images = images[:, None] if images.ndim == 3 else images
    bands = tuple(str(i) for i in range(images.shape[1]))
    return [
        GalaxyImages(
            _clean(image, f"{path}[{i}]"), bands, "flux", "plain", f"{path.stem}-{i}", f"{path}[{i}]"
        )
        for i, image in enumerate(images)
    ]


def _group(header, path):
    """Simulation and subhalo: views, bands and files of one subhalo stay together."""
    number = next((str(header[k]) for k in ("SUBHALO", "TARGET", "SUBTAG") if k in header), None)
    if number is None:
        match = re.search(r"shalo_\d+-(\d+)|broadband_(\d+)", path.name)
        number = next(g for g in match.groups() if g) if match else path.stem
    sim = str(header.get("SIMTAG", path.parent.name))
    snap = header.get("SNAPNUM", header.get("REDSHIFT", ""))
    return f"{sim}-{snap}-{number}".replace(" ", "")


_READERS = {
    "idealised": _read_idealised,
    "realistic": _read_realistic,
    "counts": _read_counts,
    "jwst": _read_jwst,
    "plain": _read_plain,
}
