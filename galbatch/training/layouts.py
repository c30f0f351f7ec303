"""How each published layout of TNG/SKIRT images becomes a galaxy; ``readers`` says what the layouts are.

Every reader takes the HDUs of a file as (name, header, data) and its path, and raises ``InputError``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.errors import InputError
from galbatch.simulate.skirt import kpc_per_arcsec

if TYPE_CHECKING:
    from astropy.io import fits


EMPTY_MAG = 99.0
_JY_PER_NANOMAGGY = 3.631e-6
_SDSS_UM = {"u": 0.3556, "g": 0.4702, "r": 0.6176, "i": 0.7490, "z": 0.8947}


@dataclass(frozen=True)
class GalaxyImages:
    """One galaxy in some bands. ``flux`` (bands, N, N) float32 per pixel; no PSF unless ``psf_fwhm_pix``.

    ``group``: what must not be split between training and test (the same object in another band, view or
    file). ``wavelengths_um``: by band, empty where unknown.
    """

    flux: np.ndarray
    bands: tuple[str, ...]
    group: str
    psf_fwhm_pix: float = 0.0
    wavelengths_um: tuple[float, ...] = ()


def _read_idealised(hdus: list[tuple[str, fits.Header, np.ndarray]], path: Path) -> GalaxyImages:
    first = next(header for _, header, data in hdus if data is not None)
    to_kpc = {"kpc": 1.0, "pc": 1e-3}.get(_card(first, "CTYPE1", path, str).strip())
    if to_kpc is None:
        raise InputError(f"{path}: CTYPE1 is '{first['CTYPE1']}': expected kpc (SKIRT 9) or pc (SKIRT 8).")
    pixel_kpc = _card(first, "CDELT1", path) * to_kpc
    pixel_arcsec = pixel_kpc / kpc_per_arcsec(_card(first, "REDSHIFT", path))
    planes, bands, pivots = [], [], []
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
        pivots += [float(header["WLPIVOT"])] if "WLPIVOT" in header else []
    known = tuple(pivots) if len(pivots) == len(bands) else ()
    return _galaxy(first, path, np.stack(planes), bands, wavelengths_um=known)


def _read_realistic(hdus: list[Any], path: Path) -> GalaxyImages:
    kinds = (" MASK", " VARIANCE", " PSF")
    bands = [(n, h, d) for n, h, d in hdus if d is not None and not n.endswith(kinds)]
    psf = {n.removesuffix(" PSF"): d for n, _, d in hdus if d is not None and n.endswith(" PSF")}
    flux = np.stack([d for _, _, d in bands]) * _JY_PER_NANOMAGGY
    width = max((_moment_fwhm(psf[n]) for n, _, _ in bands if n in psf), default=0.0)
    return _galaxy(bands[0][1], path, flux, [n for n, _, _ in bands], psf_fwhm_pix=width)


def _moment_fwhm(psf: np.ndarray) -> float:
    """FWHM of the Gaussian with the PSF's peak-to-sum ratio (robust against wings)."""
    return float(2.3548 * np.sqrt(psf.sum() / psf.max() / (2 * np.pi)))


def _read_counts(hdus: list[tuple[str, fits.Header, np.ndarray]], path: Path) -> GalaxyImages:
    _, header, data = next(h for h in hdus if h[2] is not None)
    bands = tuple(_card(header, f"FILTER{i}", path, str) for i in range(len(data)))
    return _galaxy(header, path, data, bands, wavelengths_um=_pivots(bands))


def _read_jwst(hdus: list[tuple[str, fits.Header, np.ndarray]], path: Path) -> GalaxyImages:
    _, header, data = next(h for h in hdus if h[2] is not None)
    bands = tuple(_card(header, f"EXT{i + 1}", path, str).strip() for i in range(len(data)))
    pixel_arcsec = abs(_card(header, "CDELT1", path)) * 3600
    jy = data * 1e6 * np.deg2rad(pixel_arcsec / 3600) ** 2
    return _galaxy(header, path, jy, bands, wavelengths_um=_pivots(bands))


def _pivots(bands: tuple[str, ...]) -> tuple[float, ...]:
    """Wavelengths (micron) that names of JWST and SDSS filters say; empty when one does not."""
    found = [re.fullmatch(r"[fF](\d{3})[A-Z]+\d?|.*sdss_([ugriz])", band) for band in bands]
    if not all(found):
        return ()
    return tuple(int(m[1]) / 100 if m[1] else _SDSS_UM[m[2]] for m in found if m)


def _read_plain(hdus: list[tuple[str, fits.Header, np.ndarray]], path: Path) -> GalaxyImages:
    name, header, data = next(h for h in hdus if h[2] is not None)
    data = np.atleast_3d(data) if data.ndim > 3 else data.reshape(-1, *data.shape[-2:])
    bands = tuple(
        str(header.get("FILTER", name or "image")) + (f"_{i}" if len(data) > 1 else "")
        for i in range(len(data))
    )
    return _galaxy(header, path, data, bands)


def _galaxy(
    header: fits.Header, path: Path, flux: np.ndarray, bands: Sequence[str], **known: Any
) -> GalaxyImages:
    return GalaxyImages(clean(flux, path), tuple(bands), _group(header, path), **known)


def _card(header: fits.Header, name: str, path: Path, kind: type = float) -> Any:
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


def clean(flux: np.ndarray, path: Path | str) -> np.ndarray:
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


def _group(header: fits.Header, path: Path) -> str:
    """Simulation and subhalo: views, bands and files of one subhalo stay together."""
    number = next((str(header[k]) for k in ("SUBHALO", "TARGET", "SUBTAG") if k in header), None)
    if number is None:
        match = re.search(r"shalo_\d+-(\d+)|broadband_(\d+)", path.name)
        number = next(g for g in match.groups() if g) if match else path.stem
    sim = str(header.get("SIMTAG", path.parent.name))
    snap = header.get("SNAPNUM", header.get("REDSHIFT", ""))
    return f"{sim}-{snap}-{number}".replace(" ", "")


READERS = {
    "idealised": _read_idealised,
    "realistic": _read_realistic,
    "counts": _read_counts,
    "jwst": _read_jwst,
    "plain": _read_plain,
}
