"""Mock galaxies as files: the layout of idealised SKIRT 9 images (one image HDU a band, AB mag/arcsec2).

The flux of a pixel is Jy = 10^(-0.4 (mu - 8.9)) (CDELT / kpc_per_arcsec)^2; empty pixels hold 99.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galbatch.errors import InputError
from galbatch.files import replacing
from galbatch.simulate.spectra import BLUE_UM, RED_UM, draw_wavelengths

if TYPE_CHECKING:
    from astropy.io import fits


EMPTY_MAG = 99.0
FILTERS = (("Subaru_HSC.g", BLUE_UM), ("Subaru_HSC.i", RED_UM))
"""Name and pivot wavelength (micron) of the blue and the red band."""
CDELT_KPC = 0.3
CHUNK, SNAPSHOT = 25, 91


def kpc_per_arcsec(redshift: float) -> float:
    """Proper kpc per arcsec, Planck 2015 cosmology as in the TNG headers (COSMO = 'Planck15')."""
    from astropy.cosmology import Planck15

    return float(Planck15.kpc_proper_per_arcmin(redshift).value) / 60.0


def write_skirt(
    path: str | Path,
    flux_jy: np.ndarray,
    *,
    redshift: float,
    fov_kpc: float,
    filters: Sequence[tuple[str, float]] = FILTERS,
    cards: dict[str, object] | None = None,
) -> Path:
    """Write flux (bands, h, w), Jy per pixel, as an idealised SKIRT 9 file, whole or not at all.

    ``fov_kpc`` is the width of the image. ``cards`` are added to every header (SUBHALO, INCL, ...). Raises
    ``InputError`` when the bands and the filters differ in number or a flux is negative or not finite.
    """
    from astropy.io import fits

    path = Path(path)
    flux_jy = np.asarray(flux_jy, dtype=np.float64)
    if flux_jy.ndim != 3 or len(filters) != flux_jy.shape[0]:
        raise InputError(
            f"{path}: images of shape {flux_jy.shape} for {len(filters)} filters; give (bands, h, w)."
        )
    if not np.isfinite(flux_jy).all() or flux_jy.min() < 0:
        raise InputError(f"{path}: flux must be finite and not negative; mask or clip it first.")
    npix = flux_jy.shape[2]
    cdelt = fov_kpc / npix
    area = (cdelt / kpc_per_arcsec(redshift)) ** 2
    hdus = fits.HDUList()
    for number, (plane, (name, pivot)) in enumerate(zip(flux_jy, filters, strict=True)):
        with np.errstate(divide="ignore"):
            mag = 8.9 - 2.5 * np.log10(plane / area)
        mag = np.where(plane > 0, np.minimum(mag, EMPTY_MAG), EMPTY_MAG).astype(np.float32)
        hdu = fits.PrimaryHDU(mag) if number == 0 else fits.ImageHDU(mag)
        for key, value in (cards or {}).items():
            hdu.header[key] = value
        _describe(hdu.header, name, pivot, redshift, fov_kpc, npix, cdelt)
        hdus.append(hdu)
    try:
        with replacing(path, synced=False, alone=True) as part:
            hdus.writeto(part, overwrite=True)
    except OSError as err:
        raise InputError(
            f"{path}: cannot be written ({err.strerror or err}): free space or choose another folder; "
            "repeat the command to go on."
        ) from err
    return path


def _describe(
    header: fits.Header, name: str, pivot: float, redshift: float, fov_kpc: float, npix: int, cdelt: float
) -> None:
    header["EXTNAME"] = name.upper()
    header["FILTER"] = name
    header["WLPIVOT"] = (pivot, "pivot wavelength [micron]")
    header["COSMO"] = "Planck15"
    header["REDSHIFT"] = redshift
    header["BUNIT"] = "AB mag/arcsec2"
    header["FOVSIZE"] = (fov_kpc, "[kpc]")
    for axis in (1, 2):
        header[f"CRPIX{axis}"] = npix / 2
        header[f"CRVAL{axis}"] = 0.0
        header[f"CDELT{axis}"] = (cdelt, "[kpc]")
        header[f"CTYPE{axis}"] = "kpc"


def write_galaxies(
    out: str | Path,
    n: int,
    seed: int,
    *,
    start: int = 0,
    npix: int = 128,
    redshift: float = 0.1,
    bands: int = 2,
    law: int = 1,
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Simulate ``n`` galaxies into ``out`` as ``shalo_SSS-N_v0_photo.fits``, with ``galaxies.ecsv`` beside.

    Files that are already there are left alone, so a stopped command goes on; the content of a file depends
    on (seed, index, npix, redshift, bands, law) only. With ``bands`` other than two, each galaxy is seen at
    as many wavelengths of its own. ``progress`` is called with the number of galaxies just done. Raises
    ``InputError`` when the folder holds galaxies of other settings.
    """
    from astropy.table import Table, vstack

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    wide = (f", bands {bands}" if bands != 2 else "") + (f", law {law}" if law != 1 else "")
    _claim(out, f"seed {seed}, npix {npix}, redshift {redshift}, snapshot {SNAPSHOT}{wide}\n")
    chunks = [
        (out, first, min(CHUNK, start + n - first), seed, npix, redshift, bands, law)
        for first in range(start, start + n, CHUNK)
    ]
    tables = []
    with ExitStack() as stack:
        made: Iterable[np.ndarray] = map(_write_chunk, chunks)
        if jobs > 1:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            made = pool.map(_write_chunk, chunks)
        for rows in made:
            tables.append(Table(rows))
            if progress:
                progress(len(rows))
    table = vstack(tables)
    table["r_half_pix"].unit = "pixel"
    table["inclination_deg"].unit = "deg"
    path = out / "galaxies.ecsv"
    table.write(path, overwrite=True)
    return path


def _claim(out: Path, settings: str) -> None:
    """Refuse to mix galaxies of two settings in one folder."""
    note = out / "settings.txt"
    if note.exists() and note.read_text() != settings:
        raise InputError(
            f"{out} holds galaxies made with {note.read_text().strip()}; asked for {settings.strip()}. "
            "Choose another folder, or delete that one."
        )
    note.write_text(settings)


def _write_chunk(chunk: tuple[Path, int, int, int, int, float, int, int]) -> np.ndarray:
    from galbatch.simulate.galaxies import PROPERTIES, galaxy_generator, simulate_galaxy

    out, first, count, seed, npix, redshift, bands, law = chunk
    table = np.zeros(count, dtype=PROPERTIES)
    for number, index in enumerate(range(first, first + count)):
        filters: Sequence[tuple[str, float]] = FILTERS
        emitted = None
        if bands != 2:
            emitted = draw_wavelengths(galaxy_generator(seed, index + 2**34), bands).tolist()
            filters = tuple((f"rest_{um:.4f}um", um * (1 + redshift)) for um in emitted)
        image, row = simulate_galaxy(seed, index, npix, wavelengths_um=emitted, law=law)
        table[number] = row
        path = out / f"shalo_{SNAPSHOT:03d}-{index}_v0_photo.fits"
        if path.exists():
            continue
        magnitude = galaxy_generator(seed, index + 2**32).normal(18.0, 1.0)
        cards = {
            "ORIGIN": "galbatch simulator",
            "SIMTAG": "galbatch",
            "SNAPNUM": SNAPSHOT,
            "SUBHALO": index,
            "CAMERA": "v0",
            "INCL": float(np.nan_to_num(row["inclination_deg"])),
            "AZIM": 0.0,
            "ROLL": 0.0,
            "NPACKET": 0.0,
            "SIMSEED": seed,
            "KIND": str(row["kind"]),
        }
        flux = image.astype(np.float64) * 10.0 ** (-0.4 * (magnitude - 8.9))
        write_skirt(path, flux, redshift=redshift, fov_kpc=CDELT_KPC * 128, filters=filters, cards=cards)
    return table
