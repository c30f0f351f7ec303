"""Real galaxies as held-out truth, for ``galbatch validate --truth real``.

Galaxies of TNG50 (SKIRT radiative transfer) and HST that the shipped priors were not trained on: the split is
that of ``training/configs/small.toml``, by galaxy. Every image is rotated, brought to a random size and seen
with a NIRCam-like PSF at each of ``SN``. HST images are cut at their segment, an edge that no galaxy has, so
truth and draws are compared inside it only, two pixels away from it. Their PSF is in them still: they are
blurred by what it lacks of the target PSF.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from galbatch.errors import InputError
from galbatch.forward import full_width
from galbatch.interfaces import Denoiser, PriorSpec
from galbatch.sampler.prior import as_denoiser
from galbatch.simulate.telescope import nircam_like_psf
from galbatch.training.fit import load_config
from galbatch.training.library import Library, SourceImage, is_held_out
from galbatch.training.sources import DataConfig, read_sources
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.validate.mock import STAMP, MockSet, observe, stamp_side

CONFIG = Path(__file__).parents[1] / "training" / "configs" / "small.toml"
FOLDER = "../shared/data/"  # as the configuration spells the folder of real files
SEED = 4_000_000
SN = (10.0, 50.0, 300.0)
PSF_PIX, SCALE_ARCSEC = 41, 0.03
FILTERS_UM = {"F200W": 1.99, "F277W": 2.76, "F444W": 4.40}
LIBRARY_PIX = 192
RADIUS_PIX = (2.0, 10.0)  # half-light radii of the views (log-uniform)
OFFSET_PIX = 1.5  # rms of their centres
INSIDE = 0.99  # of a sheet of light of the segment's shape, at the target PSF: two pixels from its edge


@dataclass(frozen=True)
class Kind:
    """Of a kind of real images: the bands used (None: all), the FWHM of the PSF that is in them (pixels), and
    the least of their pixels per pixel of a view."""

    bands: tuple[int, ...] | None
    psf_fwhm_pix: float
    min_zoom: float


KINDS = {"tng50-sdss": Kind(None, 0.0, 0.6), "hst": Kind((1,), 1.75, 1.3)}  # F814W: the deepest of HST's


def held_out_images(data: Path) -> list[SourceImage]:
    """Every image of the real galaxies that never train, from the folder ``data``.

    Raises ``InputError`` where the folder or its files are missing.
    """
    found: list[SourceImage] = []
    for table in load_config(CONFIG).data:
        kind = KINDS.get(table.origin)
        if kind is not None:
            files = tuple(name.removeprefix(FOLDER) for name in table.files)
            table = replace(table, files=files, average=1, bands=kind.bands)
            mine = [s for s in read_sources(table, data) if is_held_out(s.group, table.held_out)]
            found += mine or _missing(table, data)
    return found


def _missing(table: DataConfig, data: Path) -> list[SourceImage]:
    raise InputError(
        f"{data}: no held-out galaxy of '{table.origin}' ({', '.join(table.files)}). Give the folder that "
        "holds these files with --data, or use --truth simulated, which needs none."
    )


def make_real(
    prior: Denoiser, data: Path, images: int | None = None, seed: int = SEED, correlated: bool = False
) -> MockSet:
    """Observations of the held-out images in ``data`` (of ``images`` of them, at random), each at every
    ``SN``, for a prior of one channel. Raises what ``held_out_images`` does."""
    spec, rng = as_denoiser(prior).spec, np.random.default_rng([seed, 78])
    library = Library(held_out_images(Path(data)), LIBRARY_PIX)
    widths = np.array([KINDS[origin].psf_fwhm_pix for origin in library.origins])
    galaxies = rng.permutation(np.flatnonzero(library.radius > widths))[:images]  # the rest are stars
    views = [_view(spec, library.take(np.array([i])), widths[i], rng, (seed, int(i))) for i in galaxies]
    stamps, inside = (np.stack(part) for part in zip(*views, strict=True))
    psfs = [nircam_like_psf(um, SCALE_ARCSEC, PSF_PIX) for um in FILTERS_UM.values()]
    fwhm = full_width(np.stack(psfs))
    each = np.repeat(np.arange(len(views)), len(SN))
    choice = rng.integers(0, len(psfs), len(views))[each]
    mask = rng.random((len(each), 1, STAMP, STAMP)) < 0.01
    sn = np.tile(SN, len(views))
    psf = np.stack(psfs)[choice][:, None]
    mocks = observe(spec, stamps[each], psf, fwhm[choice], mask, sn, rng, correlated)
    names = np.array(library.groups)[galaxies][each]
    return replace(mocks, inside=inside[each], galaxy=np.unique(names, return_inverse=True)[1])


def _view(
    spec: PriorSpec, library: Library, psf_fwhm_pix: float, rng: np.random.Generator, seed: tuple[int, int]
) -> Any:
    """(H, W) of the image of a library of one, at the target PSF, and where it is inside its segment."""
    size, low = stamp_side(spec), RADIUS_PIX[0]
    high = min(RADIUS_PIX[1], library.radius[0] / KINDS[library.origins[0]].min_zoom)
    radius = low * (high / low) ** rng.random() if high > low else high
    zoom = library.radius / radius
    offset = torch.from_numpy(OFFSET_PIX * rng.standard_normal((1, 2)).astype(np.float32))

    def render(of: Library, fwhm_pix: float) -> np.ndarray:
        source = StampSource(of, StampConfig(target_fwhm_pix=fwhm_pix, margin_pix=spec.margin_pix))
        generator = torch.Generator().manual_seed(seed[0] + seed[1])
        return source.render(np.array([0]), zoom, offset, size, generator)[0].numpy()

    lacking = (spec.target_fwhm_pix**2 - (psf_fwhm_pix / zoom[0]) ** 2) ** 0.5
    sheet = render(_segment(library), spec.target_fwhm_pix)
    inner = slice(spec.margin_pix, spec.margin_pix + STAMP)
    level = np.median(sheet[sheet > sheet.max() / 2])
    return render(library, lacking), (sheet > INSIDE * level)[inner, inner]


def _segment(library: Library) -> Library:
    """The library of one image with a sheet of constant light in its segment (where it is not exactly zero,
    without islands and holes) in its place; views of the two are the same."""
    sheet = copy.copy(library)
    labels, _ = ndimage.label(ndimage.binary_fill_holes(library.levels[0][0] != 0))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    segment = (labels == sizes.argmax())[None].astype(np.float16)
    sheet._fill(segment, library.groups, library.origins, library.min_zoom, library.radius)
    return sheet
