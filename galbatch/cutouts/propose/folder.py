"""A survey file proposed from a folder of FITS files, with a comment on every guess.

What the files do not say is asked (``ask``); without an answer the line is a TODO, which ``load_survey``
refuses in words.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from galbatch.cutouts.fits.grid import celestial_wcs
from galbatch.cutouts.propose import identify
from galbatch.cutouts.propose.identify import ROLES, Found, best_science, find_images, images_of, words_of
from galbatch.cutouts.propose.text import Ask, Line, Mosaic, positive, quoted, survey_text, unit_lines
from galbatch.cutouts.psf.check import NORM_RANGE, SLACK, check_psf, fwhm_pix, limit_arcsec
from galbatch.cutouts.psf.file import PsfFile, read_psf
from galbatch.errors import InputError

NOISE = ("err", "var", "wht", "exp")
SHOWN = 8  # files that are named where no science image is found
NATIVE_ARCSEC = {
    "ACS WFC": 0.05,
    "WFC3 UVIS": 0.04,
    "WFC3 IR": 0.13,
    "NIRCAM SHORT": 0.031,
    "NIRCAM LONG": 0.063,
}
LOST = 0.02  # relative difference of two statements of a pixel scale beyond which one is wrong


def propose(folder: Path, out: Path, ask: Ask) -> tuple[str, list[str]]:
    """The text of a survey file for the images in ``folder``, to be written to ``out``, and what to know
    about it, one line each. Raises ``InputError`` where no science image is found."""
    images, said = find_images(folder)
    science = best_science(images)
    if not science:
        seen = [*said, *(f"{_inside(f, folder)}: {_taken(f)}" for f in images)]
        raise InputError(
            f"{folder} has no FITS file that looks like a science image. Give the folder of the mosaics or "
            "cutouts, or start from a template: galbatch init --survey NAME."
            + "".join(f"\n  {line}" for line in seen[:SHOWN])
            + (f"\n  and {len(seen) - SHOWN} more" if len(seen) > SHOWN else "")
        )
    images = [identify.noise_of(f, science) for f in images]
    mosaics = _mosaics(science, images, folder)
    asked: dict[str, str | None] = {}

    def once(question: str, suggestion: str) -> str | None:
        if question not in asked:
            asked[question] = ask(question, suggestion)
        return asked[question]

    for mosaic in mosaics:
        _describe(mosaic, out.parent, once)
    used = {id(f) for m in mosaics for f in m.planes.values()}
    shapes = {f.shape for f in science}
    for f in (f for f in images if id(f) not in used):
        alien = f.role in (*NOISE, "mask", "seg") and f.shape not in shapes
        why = _taken(f) + (f"; no image has its {_size(f)}" if alien else "")
        said.append(f"not used: {_inside(f, folder)} ({why})")
    said += _twins(mosaics)
    return survey_text(folder, mosaics), said


def _inside(image: Found, folder: Path) -> str:
    return f"{image.path.relative_to(folder)}{f'[{image.ext}]' if image.ext else ''}"


def _taken(image: Found) -> str:
    cube = "; a cube" if len(image.shape) == 3 and image.role != "psf" else ""
    return f"read as {image.role or 'no plane that a run needs'}, {image.why}{cube}"


def _size(image: Found) -> str:
    return f"{' x '.join(map(str, image.shape[::-1]))} pixels"


def _twins(mosaics: list[Mosaic]) -> list[str]:
    """A line for each place that two images of one band show."""
    places: dict[tuple[str, str], list[str]] = {}
    for mosaic in mosaics:
        where = _where(mosaic.planes["sci"])
        if "centred" in where:
            places.setdefault((mosaic.band, where), []).append(mosaic.planes["sci"].path.name)
    return [
        f"{band}: {' and '.join(names)} show the same place. Keep one of them in the survey file."
        for (band, _), names in places.items()
        if len(names) > 1
    ]


def propose_one(image: Path, psf: Path | None, err: Path | None, base: Path, settings: dict[str, Any]) -> str:
    """The survey file of one image, to be written in the folder ``base``: ``psf`` and ``err`` are its files,
    else those in the file of the image. ``settings``: values for what no header says; positions are pixels.
    Raises ``InputError`` for a file that holds no image."""
    images = [replace(f, band=f.band or "image") for f in images_of(image, image.parent)]
    science = best_science(images) or [replace(f, role="sci") for f in images if len(f.shape) == 2][:1]
    if not science:
        raise InputError(f"{image} holds no image of two axes. Give the FITS file of the image.")
    planes = _planes(science[0], images, set(), set(), True)
    for role, path in (("psf", psf), ("err", err)):
        if path is not None:
            held = images_of(path, path.parent)
            if not held:
                raise InputError(f"{path} ({role}) holds no image. Give a FITS file.")
            if len(held[0].shape) == 3:
                raise InputError(
                    f"{path} ({role}) is a cube of {held[0].shape[0]} images. Give a file with one."
                )
            planes[role] = replace(held[0], role=role, why="as you said")
    mosaic = Mosaic(science[0].band, "0", {**planes, "sci": science[0]}, in_pixels=True)
    _describe(mosaic, base, lambda question, like: settings.get("unit"))
    if "zero_point_ab" in settings and "unit" not in settings:
        mosaic.lines = [line for line in mosaic.lines if line.key != "unit"]
    mosaic.lines = [line for line in mosaic.lines if line.key not in settings]
    for key, value in settings.items():
        mosaic.lines.append(
            Line(key, quoted(value) if isinstance(value, str) else repr(value), "as you said")
        )
    return survey_text(image.parent, [mosaic])


def _mosaics(science: list[Found], images: list[Found], folder: Path) -> list[Mosaic]:
    out = []
    bands = dict.fromkeys(f.band for f in science)
    for band in sorted(bands, key=identify.wavelength_order):
        own = [f for f in science if f.band == band]
        common = frozenset.intersection(*(f.words for f in own))
        usual = common | set(ROLES)
        words = {id(f): words_of(str(f.path.relative_to(folder))) for f in own}
        names = {key: [w for w in own_words if w not in usual] for key, own_words in words.items()}
        for image in own:
            tile = names[id(image)]
            others = {w for f in own if f is not image for w in names[id(f)]} - set(tile)
            planes = _planes(image, images, set(tile), others, len(bands) == 1)
            out.append(Mosaic(band or "band", "_".join(tile) or "0", planes))
    return out


def _planes(
    image: Found, images: list[Found], tile: set[str], others: set[str], alone: bool
) -> dict[str, Found]:
    """The planes that go with a science image: of its band (or of none), of its tile (or of none), and, but
    for PSFs and exposure maps, of its shape; the one whose name is nearest."""
    planes = {"sci": image}
    for role in (*NOISE, "mask", "seg", "psf"):
        fit = [
            f
            for f in images
            if f.role == role
            and (f.band == image.band or (not f.band and (role == "seg" or alone)))
            and (role in ("psf", "exp") or f.shape == image.shape)
            and (f.path == image.path or tile <= f.words or not (f.words & others))
            and (role == "psf" or f.path.parent == image.path.parent or not tile or tile <= f.words)
        ]
        if fit:
            planes[role] = max(fit, key=lambda f: (f.path == image.path, _likeness(f, image)))
    noise = [role for role in NOISE if role in planes]
    for role in noise[1:]:
        if not (role == "exp" and noise[0] == "wht"):
            planes.pop(role)
    return planes


def _likeness(a: Found, b: Found) -> int:
    return len(a.words & b.words) - len(a.words ^ b.words)


def _describe(mosaic: Mosaic, base: Path, ask: Ask) -> None:
    """The lines of a mosaic."""
    sci, lines = mosaic.planes["sci"], mosaic.lines
    lines.append(Line("", "", _where(sci)))
    for role in ("sci", *NOISE, "mask", "seg"):
        if role in mosaic.planes:
            plane = mosaic.planes[role]
            lines.append(Line(role, quoted(_path(plane, base)), plane.why))
        elif role == "err" and not any(r in mosaic.planes for r in NOISE):
            lines.append(Line("err", '"measure"', "no noise map found: one sigma, measured on blank sky"))
    psf = _psf(mosaic, base, ask)
    _scale(mosaic, ask)
    lines += [] if psf is None else _psf_scale(mosaic, psf)
    lines += unit_lines(sci, ask)


def _where(sci: Found) -> str:
    """Size and centre of an image: what a catalogue must lie on."""
    ny, nx = sci.shape
    wcs, problem = celestial_wcs(sci.header)
    if wcs is None:
        return f"{nx} x {ny} pixels; {problem}"
    ra, dec = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    return f"{nx} x {ny} pixels, centred on ra {float(ra):.5f}, dec {float(dec):.5f}"


def _path(plane: Found, base: Path) -> str:
    inside = plane.path.resolve().is_relative_to(base.resolve())
    path = os.path.relpath(plane.path.resolve(), base.resolve()) if inside else str(plane.path.resolve())
    return f"{path}[{plane.ext}]" if plane.ext else path


def _psf(mosaic: Mosaic, base: Path, ask: Ask) -> PsfFile | None:
    """The lines on the PSF of a mosaic, and its file; None without one that can be read."""
    lines, found = mosaic.lines, mosaic.planes.get("psf")
    if found is None:
        answer = ask(f"PSF file of {mosaic.band} (an image, a cube or a grid)", "")
        path = os.path.relpath(Path(answer).resolve(), base.resolve()) if answer else ""
        todo = "TODO: the PSF of this band, a FITS image centred on a pixel (stpsf, PSFEx, a stack of stars)"
        lines.append(Line("psf", quoted(path or todo)))
        return None
    lines.append(Line("psf", quoted(_path(found, base)), found.why))
    try:
        file = read_psf(str(found.path), (found.ext,) if found.ext else ())
    except InputError as error:
        lines[-1].why = f"cannot be read: {error}"
        return None
    total = float(np.median(file.cube.sum(axis=(1, 2)))) if file.kind in ("image", "cube") else 1.0
    if file.kind == "cube":
        lines[-1].why = f"a cube of {len(file.cube)}: the catalogue needs psf_index, counted from 0"
    if file.needs_frame:
        lines.append(Line("psf_frame", '"mosaic"', "guess: a function of the position in this mosaic"))
    if not NORM_RANGE[0] <= total <= NORM_RANGE[1]:
        lines.append(Line("psf_norm", '"unit"', f"its sum is {total:.4g}"))
    if file.kind == "image":
        problem = check_psf(file.cube[0], norm="unit").problem
        if problem and not check_psf(file.cube[0], centre="recentre", norm="unit").problem:
            lines.append(Line("psf_centre", '"recentre"', f"it {problem.split(';')[0]}"))
    return file


def _scale(mosaic: Mosaic, ask: Ask) -> None:
    """The pixel scale where the WCS does not say it."""
    sci, psf = mosaic.planes["sci"], mosaic.planes.get("psf")
    wcs, problem = celestial_wcs(sci.header)
    found = math.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600 if wcs is not None else math.nan
    stated = _stated_scale(sci.header) or (_stated_scale(psf.header) if psf is not None else 0.0)
    step = abs(float(sci.header.get("CDELT1", 1.0))) * 3600
    lost = wcs is not None and _lost_terms(wcs, step)
    mosaic.scale_arcsec = found
    if wcs is None or lost:
        why = problem or f"the WCS lost terms of its matrix: it gives {found:.4f}, CDELT1 {step:.4f}"
        mosaic.scale_arcsec = step if lost else stated
        if not mosaic.scale_arcsec:
            answer = ask(f"Pixel scale of {mosaic.band} in arcsec ({why})", "")
            mosaic.scale_arcsec = positive(answer)
        value = f"{mosaic.scale_arcsec:.6g}" if mosaic.scale_arcsec > 0 else quoted("TODO: arcsec per pixel")
        mosaic.in_pixels = True
        mosaic.lines.append(Line("pixel_scale_arcsec", value, why))


def _psf_scale(mosaic: Mosaic, file: PsfFile) -> list[Line]:
    """A guess where the file does not say: the image's scale, or that of the detector where the PSF would be
    sharper than the telescope's diffraction allows."""
    if file.scale_arcsec is not None or file.per_detector is not None:
        return []
    header, scale = mosaic.planes["sci"].header, mosaic.scale_arcsec
    limit, width = limit_arcsec("", mosaic.band, header) or 0.0, fwhm_pix(file.cube[0])
    if not scale > 0:
        return [
            Line("psf_scale_arcsec", quoted("TODO: arcsec per pixel of the PSF; often that of the image"))
        ]
    if not width * scale < SLACK * limit:
        return [
            Line("psf_scale_arcsec", f"{scale:.6g}", "guess: the PSF file does not say; that of the image")
        ]
    why = f"at the image's {scale:.4g} the PSF would be sharper than diffraction allows"
    words = {str(header.get(k, "")).strip().upper() for k in ("INSTRUME", "DETECTOR", "CHANNEL")}
    native = next((s for names, s in NATIVE_ARCSEC.items() if set(names.split()) <= words), 0.0)
    if width * native < SLACK * limit:
        return [Line("psf_scale_arcsec", quoted(f"TODO: arcsec per pixel of the PSF; {why}"))]
    return [Line("psf_scale_arcsec", f"{native:.6g}", f"guess: the pixels of the detector; {why}")]


def _stated_scale(header: Any) -> float:
    return max(positive(header.get(k)) for k in ("PIXSCALE", "PIXELSCL"))


def _lost_terms(wcs: WCS, step_arcsec: float) -> bool:
    """Whether the PC matrix of a WCS has a determinant that no rotation has."""
    if not 1e-3 < step_arcsec < 10 or wcs.wcs.has_cd():
        return False
    return abs(abs(np.linalg.det(wcs.wcs.get_pc())) - 1) > LOST
