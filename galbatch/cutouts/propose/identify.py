"""Which plane, band and mosaic an image of a folder is, from its name, its cards and its pixels.

Words of file names and extensions are those of the archives (MAST, grizli, HSC, Euclid). Nothing is decided
here that cannot be overruled by an editor: every answer comes with its reason.

Also a catalogue where there is none: sources found on the images of a survey file (Bertin & Arnouts 1996). A
start for cutouts and small mosaics; a survey has a catalogue whose deblending was looked at.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from galbatch.cutouts.fits.header import primary_header
from galbatch.cutouts.fits.images import ImagePool, Plane
from galbatch.cutouts.neighbours import DEBLEND_CONTRAST, DEBLEND_LEVELS
from galbatch.cutouts.opened import open_survey
from galbatch.cutouts.psf.file import read_psf
from galbatch.cutouts.survey.files import SurveyFiles
from galbatch.cutouts.survey.read import load_survey
from galbatch.cutouts.survey.tile import Tile
from galbatch.errors import InputError

ENDINGS = (".fits", ".fit", ".fits.gz", ".fits.fz", ".fit.gz", ".psf")
LARGEST_PSF_PIX = 1200
_WORDS = {  # the first role with a word in the name
    "psf": "psf psfs epsf stdpsf webbpsf stpsf oversamp overdist",
    "": "con ctx model models residual resid bkg poisson rnoise flat",
    "seg": "seg segm segmap segmentation",
    "mask": "mask dq flag flg badpix",
    "err": "err error errors rms sigma unc",
    "var": "var variance",
    "wht": "wht weight ivm ivar invvar",
    "exp": "exp expmap exptime texp",
    "sci": "sci science image img drz drc i2d bksub bgsub flux calexp mosaic coadd",
}
ROLES = {word: role for role, words in _WORDS.items() for word in words.split()}
_FILTER = re.compile(r"f\d{3,4}(?:w2|lp|[wmnx])(?![a-z0-9])", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:hsc|megacam|decam|sdss|ps1|(?<![a-z])des)[-_. ]?([ugrizy])2?(?![a-z0-9])|"
    r"(?<![a-z])(vis|nir[-_][yjh])(?![a-z])"
)
_OTHER = re.compile(
    r"(?!clear|open|none|unknown|blank|dark)[a-z][a-z0-9+-]{0,11}"
)  # a filter named in a card


@dataclass(frozen=True)
class Found:
    """An image of a folder. ``header``: its own cards over the primary ones; ``own``: its own only; ``role``:
    a plane or 'psf', '' for what is of no use; ``why`` it was taken for that; ``words`` of its path."""

    path: Path
    ext: str
    role: str
    band: str
    why: str
    shape: tuple[int, ...]
    header: Any
    own: Any
    words: frozenset[str]

    def plane(self) -> Plane:
        """What opens it."""
        return Plane(str(self.path), (self.ext,) if self.ext else ())


def words_of(text: str) -> list[str]:
    """Words of a path or name in lower case, without the endings of FITS files."""
    return [w for w in re.split(r"[^a-z0-9]+", text.lower()) if w not in ("", "fits", "fit", "gz", "fz")]


def role_in(words: list[str]) -> str | None:
    """The plane that a name stands for; '' for one of no use, None where no word tells."""
    roles = [ROLES[w] for w in words if w in ROLES]
    return min(roles, key=[*_WORDS].index) if roles else None


def band_in(text: str) -> str:
    """The band that a file name or card names, '' for none."""
    if match := _FILTER.search(text):
        return match[0].lower()
    if match := _NAMED.search(text.lower()):
        return (match[1] or match[2]).replace("_", "-")
    return ""


def wavelength_order(band: str) -> tuple[int, str]:
    """Sorts bands by wavelength, as far as their names tell."""
    number = re.search(r"\d+", band)
    return int(number[0]) if number else "ugrizyjhk".find(band.removesuffix("s")[-1:]), band


def find_images(folder: Path) -> tuple[list[Found], list[str]]:
    """The images of a folder and its subfolders, and what could not be read, one line each."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name.lower().endswith(ENDINGS))
    pool, found, said = ImagePool(), [], []
    for path in files:
        try:
            found += images_of(path, folder, pool)
        except InputError as error:
            said.append(str(error))
    return found, said


def images_of(path: Path, folder: Path, pool: ImagePool | None = None) -> list[Found]:
    """The images of one file; ``folder``: where paths begin, whose words tell tiles apart. Raises
    ``InputError`` for a file that cannot be read."""
    pool = pool or ImagePool()
    source, images = pool.source(str(path))
    relative = str(path.relative_to(folder))
    words = words_of(relative)
    if not images:
        try:
            kind = read_psf(str(path)).kind
        except InputError:
            return []
        none = fits.Header()
        return [Found(path, "", "psf", band_in(relative), f"a {kind} PSF", (), none, none, frozenset(words))]
    primary = primary_header(source)
    named = role_in(words)
    out = []
    for image in images:
        header = primary.copy()
        header.update(image.header)
        of_ext = role_in(words_of(image.name)) if image.name != "PRIMARY" else None
        role, why = (of_ext, f"by extension {image.name}") if of_ext is not None else (named, "by name")
        kind = str(image.header.get("IMAGETYP", ""))
        if role is None and (role := role_in(words_of(kind))) is not None:
            why = f"by IMAGETYP = {kind}"
        if len(images) == 1 and named:
            role, why = named, "by name"
        unique = sum(i.name == image.name for i in images) == 1
        ext = "" if len(images) == 1 else image.name if image.name and unique else str(image.index)
        band, known = _band(header, image.name, relative), role or ""
        one = Found(path, ext, known, band, why, image.shape, header, image.header, frozenset(words))
        out.append(_by_content(one, pool) if role is None else one)
    return out


def _band(header: fits.Header, extension: str, relative: str) -> str:
    """The band by the cards, the name of the extension, the file's path; else what a card calls it."""
    cards = [str(header.get(k, "")).strip() for k in ("PUPIL", "FILTER", "FILTER1", "FILTER2", "BAND")]
    for text in (*cards, extension, relative):
        if band := band_in(text):
            return band
    named = (card.lower().replace("_", "-") for card in cards)
    return next((band for band in named if _OTHER.fullmatch(band)), "")


def _by_content(image: Found, pool: ImagePool) -> Found:
    """The plane of an image whose name says nothing, from its pixels."""
    opened = pool.open(image.plane())
    if len(image.shape) == 3:
        return replace(image, role="psf", why="a cube")
    data = _middle(image)
    good = data[np.isfinite(data)]
    if not good.size or not good.any():
        return replace(image, role="", why="by its pixels: nothing but zero")
    if opened.hdu.dtype[1] in "iu":
        role = "mask" if good.max() <= 1 else "seg"
        return replace(image, role=role, why=f"by its pixels: integers up to {good.max():.0f}")
    peak = np.unravel_index(np.nanargmax(data), data.shape)
    centred = all(abs(p - (n - 1) / 2) < 2 for p, n in zip(peak, data.shape, strict=True))
    if centred and 0.5 < good.sum() < 1.5 and image.shape == data.shape:
        return replace(image, role="psf", why=f"by its pixels: sum {good.sum():.3f}, peak in the middle")
    if good.min() >= 0:
        return replace(image, role="err", why=POSITIVE)
    return replace(image, role="sci", why="by its pixels: negative and positive")


def best_science(images: list[Found]) -> list[Found]:
    """One science image per file and band: the background-subtracted one before others."""
    best: dict[tuple[Path, str], Found] = {}
    for image in images:
        if image.role == "sci" and len(image.shape) == 2:
            old = best.setdefault((image.path, image.band), image)
            if "BKSUB" in image.ext.upper() and "BKSUB" not in old.ext.upper():
                best[image.path, image.band] = image
    return list(best.values())


POSITIVE = "by its pixels: none is negative"
MUCH_NEARER = 3.0


def noise_of(image: Found, science: list[Found]) -> Found:
    """A plane that is noise by its pixels alone: sigma, variance or inverse variance, whichever is nearest to
    the scatter of the science image beside it (sigma unless another is nearer by ``MUCH_NEARER``)."""
    beside = [f for f in science if f.shape == image.shape and f.band == image.band]
    if image.why != POSITIVE or not beside:
        return image
    values, data = _middle(image), _middle(max(beside, key=lambda f: f.path == image.path))
    data = data[np.isfinite(data)]
    scatter = 1.4826 * np.median(np.abs(data - np.median(data)))
    middle = np.median(values[values > 0])
    if not (scatter > 0 and np.isfinite(middle)):
        return image
    sigma = {"err": middle, "var": math.sqrt(middle), "wht": 1 / math.sqrt(middle)}
    off = {role: abs(math.log(value / scatter)) for role, value in sigma.items()}
    best = min(off, key=off.__getitem__)
    if off[best] > off["err"] - math.log(MUCH_NEARER):
        return image
    what = {"var": "the square of", "wht": "one over the square of"}[best]
    return replace(image, role=best, why=f"by its pixels: near {what} the scatter of the image")


def _middle(image: Found) -> np.ndarray:
    h, w = (min(n, LARGEST_PSF_PIX) for n in image.shape)
    opened = ImagePool().open(image.plane())
    return opened.boxes([(image.shape[0] - h) // 2], [(image.shape[1] - w) // 2], h, w)[0][0]


THRESHOLD, LEAST_PIX = 5.0, 12  # sigma of the sky, and pixels above it, of a source
EDGE_PIX = 12  # a source nearer to the edge of its image is left out
LARGEST_PIX = 12_000  # side of an image that is read whole


def find_sources(survey: str | Path) -> dict[str, np.ndarray]:
    """Columns ``id``, ``ra`` and ``dec`` (deg), or ``tile``, ``x``, ``y`` where the catalogue must have
    pixels, of sources on the finest band (that with the most sources of several), the brightest of an image
    first.

    Raises ``InputError`` when there is none, or an image is too large to be read whole."""
    config = load_survey(survey)
    opened = open_survey(config)
    bands = opened.all_finest()[: 1 if config.pixel_columns else None]
    columns = max((_sources_in(opened, band) for band in bands), key=lambda found: len(found["x"]))
    if not len(columns["x"]):
        raise InputError(
            f"{survey}: no source of {THRESHOLD:g} sigma in {' or '.join(bands)}: give a catalogue."
        )
    kept = ("tile", "x", "y") if config.pixel_columns else ("ra", "dec")
    return {"id": np.arange(1, len(columns["x"]) + 1)} | {name: columns[name] for name in kept}


def _sources_in(opened: SurveyFiles, band: str) -> dict[str, np.ndarray]:
    """Columns ``tile``, ``x``, ``y``, ``ra``, ``dec`` of the sources in a band."""
    found: dict[str, list[np.ndarray]] = {"tile": [], "x": [], "y": [], "ra": [], "dec": []}
    for spec in opened.band(band).tiles:
        tile = opened.tile(band, spec.name)
        x, y = _positions(tile)
        sky = (x * np.nan, y * np.nan) if tile.grid.wcs is None else tile.grid.to_sky(x, y)
        for name, values in zip(found, (np.full(len(x), spec.name), x, y, *sky), strict=True):
            found[name].append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def _positions(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """x, y of the sources of an image, the brightest first."""
    import sep

    ny, nx = tile.shape
    if max(ny, nx) > LARGEST_PIX:
        raise InputError(
            f"{tile.images['sci'].path}: {nx} x {ny} pixels, too many to look for sources: give a catalogue."
        )
    data = np.ascontiguousarray(tile.images["sci"].boxes([0], [0], ny, nx)[0][0], np.float32)
    bad = ~np.isfinite(data)
    data[bad] = 0.0
    sky = sep.Background(data, mask=bad)
    try:
        objects = sep.extract(
            data - sky.back(),
            THRESHOLD,
            err=sky.globalrms,
            mask=bad,
            minarea=LEAST_PIX,
            deblend_nthresh=DEBLEND_LEVELS,
            deblend_cont=DEBLEND_CONTRAST,
        )
    except Exception as error:  # sep has no class of its own for full buffers
        raise InputError(
            f"{tile.images['sci'].path}: sources cannot be told apart ({error}): give a catalogue."
        ) from error
    x, y = objects["x"], objects["y"]
    inside = (np.minimum(x, nx - 1 - x) >= EDGE_PIX) & (np.minimum(y, ny - 1 - y) >= EDGE_PIX)
    order = np.argsort(-objects["flux"][inside], kind="stable")
    return x[inside][order], y[inside][order]
