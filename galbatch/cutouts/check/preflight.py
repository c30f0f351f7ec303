"""What a survey's files look like before a run: which file, both values, and what to do. Do the sources of a
catalogue lie on its images at all, and if not, why not?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from galbatch.cutouts.check.planes import check_planes
from galbatch.cutouts.fits.units import ZERO_POINT_NJY, njy_per_unit, pixel_area_sr
from galbatch.cutouts.psf.check import check_sharpness
from galbatch.cutouts.raw import place
from galbatch.cutouts.survey.config import subject_of
from galbatch.errors import GalbatchError
from galbatch.types import Finding

if TYPE_CHECKING:
    from galbatch.cutouts.survey.files import SurveyFiles
    from galbatch.cutouts.survey.tile import Tile


def check_survey(survey: SurveyFiles, columns: list[str] | None = None) -> list[Finding]:
    """Open every tile of every band, and the PSFs; ``columns``: the catalogue's column names, if known."""
    out, usable = [], 0
    for band in survey.config.bands:
        good = []
        for spec in band.tiles:
            subject = subject_of(band.name, spec.name)
            try:
                tile = survey.tile(band.name, spec.name)
                good.append(tile)
                out += _tile(tile)
                out += tile.psf.findings(columns)
                out += check_sharpness(tile, survey.config.layout.name, band.name)
                out += check_planes(survey, tile)
            except GalbatchError as error:
                remedy = "Mend the file that is named or its entry in the survey file, or omit the tile."
                out.append(Finding("error", "tile", subject, str(error), remedy))
        usable += bool(good)
        if not good:
            remedy = "Repair its files, or leave the band out with --bands."
            out.append(Finding("error", "band", band.name, "no tile of the band can be used", remedy))
    if usable == len(survey.config.bands):
        out += _together(survey)
    if survey.config.pixel_columns and columns is not None and not {"x", "y"} <= set(columns):
        what = "pixel_columns = true, but the catalogue has no columns x and y"
        remedy = "Add them, or use ra and dec."
        out.append(Finding("error", "pixel_columns", survey.config.path, what, remedy))
    return out


def _tile(tile: Tile) -> list[Finding]:
    grid, config, out = tile.grid, tile.config, []
    ny, nx = tile.shape
    what = (
        f"{nx} x {ny} pixels of {grid.scale_arcsec:.4f} arcsec, "
        f"{tile.njy:.6g} nJy per unit (AB zero point {ZERO_POINT_NJY - 2.5 * math.log10(tile.njy):.3f}), "
        f"noise from {tile.noise}"
    )
    remedy = "If that is not right, set pixel_scale_arcsec, unit or zero_point_ab in the survey file."
    out.append(Finding("info", "tile", tile.subject, what, remedy))
    if grid.header_scale_arcsec and grid.wcs is None:
        what = (
            f"pixel_scale_arcsec = {grid.scale_arcsec} is used and the WCS, which says "
            f"{grid.header_scale_arcsec:.5f}, is not: positions are in pixels"
        )
        remedy = "Make sure that the survey file is right, or remove pixel_scale_arcsec."
        out.append(Finding("warn", "pixel_scale", tile.subject, what, remedy))
    for plane in tile.missing:
        path = getattr(config, plane).path
        if path == config.sci.path:  # where the layout looks for it
            what, remedy = f"{path} holds no {plane} plane", f"Nothing to do; with {plane} = FILE it has one."
            out.append(Finding("info", "plane_missing", tile.subject, what, remedy))
            continue
        what = f"{plane} {path} cannot be read; the run goes on without it"
        out.append(Finding("warn", "plane_missing", tile.subject, what, "Add the file if there is one."))
    if tile.approximate:
        what = "the variance lacks the photon noise of the sources, or its gain cards"
        remedy = "Sources are flagged VARIANCE_APPROX; give an error map, or an exposure map."
        out.append(Finding("warn", "variance", tile.subject, what, remedy))
    out += _units(tile)
    hdu = tile.images["sci"].hdu
    if hdu.path != config.sci.path and config.sci.path.endswith(".fz"):
        what = f"{config.sci.path} is unpacked into the cache on each node"
        remedy = "Nothing to do; unpacked beforehand (funpack), it is read where it lies."
        out.append(Finding("info", "compressed", tile.subject, what, remedy))
    return out


def _units(tile: Tile) -> list[Finding]:
    out, config, header = [], tile.config, tile.images["sci"].header
    if config.unit and config.zero_point_ab is not None:
        implied = 10 ** (-0.4 * (config.zero_point_ab - ZERO_POINT_NJY))
        if abs(math.log(implied / tile.njy)) > 0.01:
            what = (
                f"unit = {config.unit!r} means {tile.njy:.5g} nJy per count and "
                f"is used; zero_point_ab = {config.zero_point_ab} means {implied:.5g}"
            )
            out.append(Finding("warn", "unit", tile.subject, what, "Remove the one that is wrong."))
    if header.get("BUNIT") and (config.unit or config.zero_point_ab is not None):
        try:
            own = njy_per_unit(header, tile.grid.scale_arcsec)
        except GalbatchError:
            own = None
        if own and abs(math.log(own / tile.njy)) > 0.05:
            what = (
                f"the survey file gives {tile.njy:.5g} nJy per unit and is used; "
                f"the header's BUNIT = {header['BUNIT']!r} means {own:.5g}"
            )
            out.append(Finding("warn", "unit", tile.subject, what, "Make sure which is right."))
    area = header.get("PIXAR_SR")
    if (
        isinstance(area, float)
        and area > 0
        and abs(math.log(area / pixel_area_sr(tile.grid.scale_arcsec))) > 0.05
    ):
        own = pixel_area_sr(tile.grid.scale_arcsec)
        what = f"PIXAR_SR = {area:.4g} is not the area of a pixel of the mosaic, {own:.4g} sr, which is used"
        remedy = "Nothing to do: that card is often of the detector's pixels."
        out.append(Finding("info", "pixel_area", tile.subject, what, remedy))
    return out


def _together(survey: SurveyFiles) -> list[Finding]:
    try:
        geometry = survey.geometry()
    except GalbatchError as error:
        remedy = "Choose bands whose pixels fit together with --bands, or drizzle them to one scale."
        return [Finding("error", "grid", survey.config.path, str(error), remedy)]
    out = []
    finest = survey.finest()
    for band, g in geometry.items():
        if g.step != 1.0:
            what = (
                f"{g.scale_arcsec:.5f} arcsec is no multiple of {finest}'s "
                f"{geometry[finest].scale_arcsec:.5f}: resampled to {g.delivered_scale_arcsec:.5f}"
            )
            remedy = "Sources are flagged RESAMPLED; drizzle the band to a multiple for the best result."
            out.append(Finding("warn", "resampled", band, what, remedy))
        elif g.ratio > 1:
            what = f"pixels of {g.scale_arcsec:.4f} arcsec, {g.ratio} x those of {finest}"
            out.append(Finding("info", "ratio", band, what, "Nothing to do: each band keeps its own pixels."))
    remedy = "Sources are flagged GRID_MISMATCH; each band keeps its own frame, position angles refer to it."
    for band in filter(survey.turned, survey.band_names):
        what = f"its pixels are turned by {survey.turned(band):.2f} deg against {finest}"
        out.append(Finding("warn", "rotation", band, what, remedy))
    return out


def check_resolution(survey: SurveyFiles, target_fwhm_arcsec: float) -> list[Finding]:
    """The PSF of every band (of its first tile that has a usable one) against that of the draws."""
    out = []
    for band in survey.config.bands:
        widths = (_fwhm_arcsec(survey, band.name, tile.name) for tile in band.tiles)
        width = next(filter(math.isfinite, widths), None)
        if width is None:  # ``check_survey`` says why
            continue
        what = f"from a PSF of FWHM {width:.3f} arcsec, draws have {target_fwhm_arcsec:.3f} arcsec"
        if width < target_fwhm_arcsec:
            remedy = "A larger --oversample makes them sharper; twice takes four times as long."
            out.append(Finding("warn", "resolution", band.name, f"{what}: less sharp than the data", remedy))
        else:
            remedy = "Nothing to do; a larger --oversample makes them sharper still."
            out.append(Finding("info", "resolution", band.name, what, remedy))
    return out


def _fwhm_arcsec(survey: SurveyFiles, band: str, tile: str) -> float:
    try:
        return survey.tile(band, tile).psf.fwhm_arcsec()
    except GalbatchError:
        return math.nan


def unreadable(survey: SurveyFiles) -> list[str]:
    """Files of an opened survey, and its PSFs, that this machine cannot read, one line each; they are opened
    and closed."""
    known, out = survey.pins, []
    for entry in survey.inputs():
        path = entry["path"]
        if "://" in path or not (path in known or entry["role"] == "psf"):
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            out.append(f"{path}: {error.strerror or error}")
    return list(dict.fromkeys(out))


LEAST_INSIDE = 0.05


def check_footprint(
    survey: SurveyFiles, batches: Iterable[tuple[int, dict[str, np.ndarray]]]
) -> list[Finding]:
    """Count the sources inside each band; ``batches`` as from ``Catalog.batches``.

    Level 'error' when fewer than ``LEAST_INSIDE`` of all sources lie inside any band: a run would be
    not worth starting.
    """
    total, anywhere = 0, 0
    sample: dict[str, np.ndarray] = {}
    inside = dict.fromkeys(survey.band_names, 0)
    try:
        survey.geometry()
        for _, rows in batches:
            hits = {b: place(survey, b, rows).inside.max(axis=0) > 0 for b in survey.band_names}
            for band, hit in hits.items():
                inside[band] += int(hit.sum())
            any_band = np.any(list(hits.values()), axis=0)
            anywhere, total = anywhere + int(any_band.sum()), total + len(any_band)
            sample = sample or rows
    except GalbatchError as error:
        remedy = "Mend the tiles or the positions that are named, then check again."
        return [Finding("error", "footprint", survey.config.path, str(error), remedy)]
    if not total:
        return []
    found = f"{anywhere} of {total} sources lie on the images"
    if anywhere < LEAST_INSIDE * total:
        return [Finding("error", "footprint", survey.config.path, found, _why(survey, sample))]
    out = [Finding("info", "footprint", "catalogue", found, "Nothing to do: those are computed.")]
    for band, count in inside.items():
        if count < anywhere:
            found = f"{anywhere - count} sources of {anywhere} are not covered"
            out.append(Finding("warn", "footprint", band, found, "They lack this band (BAND_MISSING)."))
    if anywhere < total:
        found = f"{total - anywhere} of {total} sources lie outside every image"
        remedy = "They fail in the run (OFF_IMAGE); all others are processed."
        out.append(Finding("warn", "footprint", "catalogue", found, remedy))
    return out


def _why(survey: SurveyFiles, rows: dict[str, np.ndarray]) -> str:
    """A guess that would put the sources of the first batch onto the images."""
    if survey.config.pixel_columns or not {"ra", "dec"} <= set(rows):
        return "Are x and y (and tile) those of the finest band's images?"
    ra, dec = np.asarray(rows["ra"], float), np.asarray(rows["dec"], float)
    guesses = {
        "ra and dec look swapped.": (dec, ra),
        "They look like radians: convert to degrees.": (np.degrees(ra), np.degrees(dec)),
        "ra looks like hours: multiply by 15.": (ra * 15, dec),
    }
    for text, (a, b) in guesses.items():
        found = place(survey, survey.finest(), {"ra": a, "dec": b}).inside.max(axis=0) > 0
        if found.mean() > 0.5:
            return text
    usable = survey.usable_tiles(survey.finest())
    tile = survey.tile(survey.finest(), usable[0].name) if usable else None
    if tile is None or tile.grid.wcs is None:
        return "Is it the right survey file?"
    ny, nx = tile.shape
    at = tile.grid.to_sky([(nx - 1) / 2], [(ny - 1) / 2])
    return (
        f"Is it the right survey file? {tile.images['sci'].path} is centred on ra {at[0][0]:.5f}, dec "
        f"{at[1][0]:.5f}; the first source is at {ra[0]:.5f}, {dec[0]:.5f}."
    )


def verify_checksums(survey: SurveyFiles) -> list[Finding]:
    """Read every local file through and compare it with the DATASUM and CHECKSUM cards that it has."""
    out = []
    for path in dict.fromkeys(e["path"] for e in survey.inputs() if "://" not in e["path"]):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with fits.open(path, checksum=True, memmap=False) as hdus:
                    known = sum("DATASUM" in h.header for h in hdus if h.data is not None)
            wrong = [str(w.message) for w in caught if "erification failed" in str(w.message)]
        except Exception as error:
            out.append(Finding("error", "checksum", path, f"cannot be read: {error}", "Copy the file again."))
            continue
        if wrong:
            out.append(Finding("error", "checksum", path, " ".join(wrong[0].split()), "Copy the file again."))
        elif not known:
            what = "has no DATASUM: damage to its pixels cannot be seen"
            remedy = "Compare it with its source, or write it with DATASUM (astropy: checksum=True)."
            out.append(Finding("info", "checksum", path, what, remedy))
    return out
