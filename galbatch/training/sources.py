"""From files and the ``[[data]]`` tables of a training configuration to sharp images, split by galaxy.

Each table names an ``origin`` (a label that the card repeats), ``files`` (paths or patterns, relative to the
configuration), its ``weight`` among the draws, and how its images may be used. ``read_images`` finds out
which layout of published TNG/SKIRT images a file has:

* ``idealised``: one image HDU a band in AB mag/arcsec2, CDELT in kpc (SKIRT 9, TNG-HSC) or pc (SKIRT 8); 99
  is empty.
* ``realistic``: HSC mosaics with HDUs ``BAND``, ``BAND MASK``, ``BAND VARIANCE``, ``BAND PSF`` in
  nanomaggies.
* ``counts``: one cube (bands, N, N) in counts/s/pixel with FILTERn and USE_Z cards (SDSS, Pan-STARRS).
* ``jwst``: one cube in MJy/sr with EXTn and REDSHIFT cards (TNG50 at NIRCam, Costantin et al. 2023).
* ``plain``: an image or cube in linear flux, FITS or npz (array ``images``: (n, H, W) or (n, bands, H, W)).
"""

from __future__ import annotations

import glob
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import ConfigError, InputError
from galbatch.training.layouts import READERS, GalaxyImages, clean
from galbatch.training.library import Library, SourceImage, is_held_out

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
    images = _by_band(images, f"{path}: array '{key}'")
    bands = tuple(str(i) for i in range(images.shape[1]))
    return [
        GalaxyImages(clean(image, f"{path}[{i}]"), bands, f"{path.stem}-{i}")
        for i, image in enumerate(images)
    ]


def _by_band(images: np.ndarray, what: str) -> np.ndarray:
    """(n, bands, H, W) of an array that may lack the axis of the bands. Raises ``InputError``."""
    if images.ndim not in (3, 4):
        raise InputError(f"{what} has shape {images.shape}: (n, H, W) or (n, bands, H, W) is expected.")
    return images[:, None] if images.ndim == 3 else images


@dataclass(frozen=True)
class DataConfig:
    """One kind of training images.

    ``average``: pixels to block-average on reading. ``bands``: which bands to take (all when None).
    ``min_zoom``: library pixels per stamp pixel below which an image must not be magnified. ``exclude``:
    groups to leave out. ``decode``: images to make when the file is an ONNX decoder of unit vectors.
    ``credit``, ``licence``: for the card. ``held_out``: share of the galaxies that never train.
    ``optional``: go on without the files. ``wavelengths_um``: of the bands taken, for a joint network, where
    the files do not say.
    """

    origin: str
    files: tuple[str, ...]
    weight: float = 1.0
    average: int = 1
    bands: tuple[int, ...] | None = None
    min_zoom: float = 0.6
    exclude: tuple[str, ...] = ()
    decode: int = 0
    credit: str = ""
    licence: str = ""
    held_out: float = 0.1
    optional: bool = False
    wavelengths_um: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        files = (self.files,) if isinstance(self.files, str) else tuple(self.files)
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "exclude", tuple(self.exclude))
        object.__setattr__(self, "wavelengths_um", tuple(self.wavelengths_um))
        if self.bands is not None:
            object.__setattr__(self, "bands", tuple(self.bands))


def find_files(config: DataConfig, base: Path) -> list[Path]:
    """Files of a table in sorted order. Raises ``ConfigError`` when a pattern matches nothing."""
    found: list[Path] = []
    for pattern in config.files:
        full = str(Path(base) / Path(pattern).expanduser())
        if Path(full).is_dir():
            full = str(Path(full) / "*.fits")
        matches = sorted(glob.glob(full, recursive=True))
        if not matches and not config.optional:
            raise ConfigError(
                f"training data '{config.origin}': no file matches {full}: make the images (galbatch "
                "simulate galaxies), download them, or remove this [[data]] table."
            )
        found += [Path(m) for m in matches]
    return found


def read_sources(config: DataConfig, base: Path) -> Iterator[SourceImage]:
    """Every band of every galaxy of a table as its own source image.

    An image with a PSF of its own is never shown with that PSF wider than one stamp pixel.
    """
    for path in find_files(config, base):
        for flux, group, psf_fwhm_pix in _planes(path, config):
            if group in config.exclude:
                continue
            yield SourceImage(
                block_average(flux, config.average),
                f"{config.origin}:{group}",
                config.origin,
                max(config.min_zoom, psf_fwhm_pix / config.average),
            )


def _planes(path: Path, config: DataConfig) -> Iterator[tuple[np.ndarray, str, float]]:
    if path.suffix == ".onnx":
        yield from _decode(path, config.decode)
    elif path.suffix == ".npy":
        yield from _read_npy(path, config)
    else:
        for galaxy in read_images(path):
            for i, flux in enumerate(galaxy.flux):
                if config.bands is None or i in config.bands:
                    yield flux, galaxy.group, galaxy.psf_fwhm_pix


def _read_npy(path: Path, config: DataConfig) -> Iterator[tuple[np.ndarray, str, float]]:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise InputError(
            f"{path}: cannot be read as npy ({err}): the file is truncated or damaged; make it again."
        ) from err
    for i, galaxy in enumerate(_by_band(images, f"{path}: its array")):
        for band, flux in enumerate(galaxy):
            if config.bands is None or band in config.bands:
                yield np.asarray(flux), f"{path.stem}-{i}", 0.0


def _decode(path: Path, n: int) -> Iterator[Any]:
    """Images of an autoencoder's decoder at ``n`` points of the sphere, converted back to linear flux.

    With m the mean of the three channels, flux = sinh(5 m) / 4.5 + 0.001 and channel ratios are unchanged
    (Lupton stretch of the HiPSter decoder); its floor is removed. Each point counts as its own group.
    """
    try:
        import onnxruntime
    except ImportError as err:
        raise ConfigError(
            f"{path}: decoding needs onnxruntime: pip install 'galbatch[train]', or remove this table."
        ) from err
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    points = np.random.default_rng(5).normal(size=(n, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    name = session.get_inputs()[0].name
    for i in range(0, n, 32):
        for j, rgb in enumerate(session.run(None, {name: points[i : i + 32]})[0].astype(np.float64)):
            rgb = np.clip(rgb, 0, 1)
            mean = rgb.mean(axis=0)
            flux = rgb * (np.sinh(5 * mean) / 4.5 + 0.001) / np.maximum(mean, 1e-3)
            for plane in flux:
                border = np.concatenate(
                    [plane[:4].ravel(), plane[-4:].ravel(), plane[:, :4].ravel(), plane[:, -4:].ravel()]
                )
                yield np.maximum(plane - np.median(border), 0), f"decoder-{i + j}", 0.0


def block_average(image: np.ndarray, n: int) -> np.ndarray:
    """(H, W) -> (H // n, W // n): mean of n by n pixels."""
    if n == 1:
        return image
    h, w = image.shape[0] // n, image.shape[1] // n
    return image[: h * n, : w * n].reshape(h, n, w, n).mean(axis=(1, 3))


def build_libraries(
    configs: Sequence[DataConfig],
    base: Path,
    npix: int = 128,
    read: Callable[[DataConfig, Path], Iterable[Any]] = read_sources,
    kind: type[Library] = Library,
) -> tuple[Library, Library]:
    """(training, held-out) libraries of a ``kind``, of what ``read`` makes of each table; a galaxy is in one
    of them with all its bands and views."""
    split: tuple[list[Any], list[Any]] = ([], [])
    for config in configs:
        for source in read(config, base):
            split[is_held_out(source.group, config.held_out)].append(source)
    weights = {config.origin: config.weight for config in configs}
    return kind(split[0], npix, weights), kind(split[1], npix, weights)
