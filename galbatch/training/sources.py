"""From the ``[[data]]`` tables of a training configuration to sharp source images, split by galaxy.

Each table names an ``origin`` (a label that the card repeats), ``files`` (paths or patterns, relative to the
configuration), its ``weight`` among the draws, and how its images may be used.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import ConfigError, InputError
from galbatch.training.library import Library, SourceImage, is_held_out
from galbatch.training.readers import read_images


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
    if images.ndim not in (3, 4):
        raise InputError(f"{path}: array of shape {images.shape}: (n, H, W) or (n, bands, H, W) is expected.")
    images = images[:, None] if images.ndim == 3 else images
    for i, galaxy in enumerate(images):
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


def build_libraries(configs: list[DataConfig], base: Path, npix: int = 128) -> tuple[Library, Library]:
    """(training, held-out) libraries; a galaxy is in one of them with all its bands and views."""
    train: list[SourceImage] = []
    held: list[SourceImage] = []
    for config in configs:
        for source in read_sources(config, base):
            (held if is_held_out(source.group, config.held_out) else train).append(source)
    weights = {config.origin: config.weight for config in configs}
    return Library(train, npix, weights), Library(held, npix, weights)
