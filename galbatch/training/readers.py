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
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import InputError
from galbatch.training.layouts import READERS, GalaxyImages, clean

PLAIN_UNITS = ("", "jy", "njy", "ujy", "mjy/sr", "adu", "counts", "electron/s", "counts/s/pixel")


def read_images(path: Path) -> list[GalaxyImages]:
    """All galaxies of one file. Raises ``InputError`` naming the file, what is wrong with it, and the
    remedy."""
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    hdus = _open(path)
    layout = find_layout(hdus, path)
    return [READERS[layout](hdus, path)]


def find_layout(hdus: list[Any], path: Path) -> str:
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
    if data.ndim in (2, 3) and unit in PLAIN_UNITS:
        return "plain"
    raise InputError(
        f"{path}: unknown layout (BUNIT '{header.get('BUNIT')}', shape {data.shape}): expected one of "
        f"{sorted(READERS)}; convert it to a plain FITS image in linear flux."
    )


def _open(path: Path) -> list[Any]:
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


def _read_npz(path: Path) -> list[GalaxyImages]:
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
        GalaxyImages(clean(image, f"{path}[{i}]"), bands, "flux", "plain", f"{path.stem}-{i}", f"{path}[{i}]")
        for i, image in enumerate(images)
    ]
