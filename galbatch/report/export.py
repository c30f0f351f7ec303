"""Sources of a run for other tools: FITS files that DS9 and astropy open, every plane an extension with WCS
and unit; and inputs of GALFIT (Peng et al. 2010), images and a start file with a Sersic model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.errors import RunError
from galbatch.flags import names_of, quality_of
from galbatch.morphology.calibration import ZERO_POINT_NJY
from galbatch.report.read import RunReader
from galbatch.store import Run, band_name, file_names, one_line, open_export
from galbatch.store.folder import ExportFolder

if TYPE_CHECKING:
    from galbatch.report.view import SourceView


def export_sources(
    run: Run, form: str, source_ids: list, out: Path, on_source: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write sources as files of a ``form``; returns the paths. ``on_source`` is called after each source.

    "fits": ``<out>/<id>.fits`` with extensions by band, e.g. ``F200W_OBSERVED``, ``_SIGMA``, ``_MASK``,
    ``_MODEL`` on the detector grid and ``_MEAN``, ``_STD``, ``_PRIOR``, ``_SAMPLES`` (a cube, one plane per
    draw) on the fine grid.
    "galfit": the start files ``<id>_<band>.galfit``, and the images that galbatch fitted: same pixels, noise
    and mask (1 = bad). The start values are the posterior medians.

    Ids become file names as ``file_names`` says, and escapes in headers where they are not plain ASCII.
    Raises ``InputError`` for an unknown id, ``RunError`` for a source that failed, or whose PSF cannot be
    read any more (galfit), or a folder with other files.
    """
    refuse_failed(run, source_ids)
    reader, folder = RunReader(run), open_export(out, form, run.paths)
    names, paths = file_names(run.locate(source_ids)), []
    for source_id in source_ids:
        name = names[str(source_id)]
        if form == "fits":
            paths.append(folder.write(f"{name}.fits", _bytes(run, source_id)))
        else:
            paths += [_galfit(reader, source_id, b, folder, f"{name}_{band_name(b)}") for b in run.bands]
        on_source()
    return paths


def refuse_failed(run: Run, source_ids: list) -> None:
    """Raise ``InputError`` for the first id that is unknown, ``RunError`` for the first that failed."""
    run.locate(source_ids)
    for source_id in source_ids:
        run.refuse_failed(source_id)


def _bytes(run: Run, source_id: int | str) -> bytes:
    from astropy.io import fits

    first = fits.PrimaryHDU()
    first.header["OBJECT"] = (one_line(source_id, True), "source_id of the catalogue")
    first.header["RUN"] = (one_line(run.paths.root.name, True), "run folder")
    first.header["STATUS"] = run.status(source_id)
    first.header["FLAGS"] = (run.flags(source_id), "flag bits")
    first.header["QUALITY"] = (int(quality_of(run.flags(source_id))), "0 good, 1 caution, 2 do not use")
    names = names_of(run.flags(source_id))
    first.header["FLAGNAME"] = " ".join(names)  # as long as it is: astropy goes on in CONTINUE cards
    first.header["ORIGIN"] = "galbatch"
    planes = [first]
    for band in run.bands:
        planes += _band(run, source_id, band)
    out = io.BytesIO()
    fits.HDUList(planes).writeto(out)
    return out.getvalue()


def _band(run: Run, source_id: int | str, band: str) -> list:
    from astropy.io import fits

    fine = run.wcs(source_id, band)
    detector = detector_wcs(fine, run.layout.oversample)
    contents = [
        ("OBSERVED", run.observed(source_id, band), detector, "nJy", "observed flux per pixel"),
        ("SIGMA", run.sigma(source_id, band), detector, "nJy", "noise; inf where excluded"),
        ("MASK", run.mask(source_id, band), detector, "", "bit 0 excluded, bit 1 neighbour"),
        ("MODEL", run.model(source_id, band), detector, "nJy", "posterior mean seen by the telescope"),
        ("MEAN", run.mean(source_id, band), fine, "nJy", "posterior mean at the target PSF"),
        ("STD", run.std(source_id, band), fine, "nJy", "posterior standard deviation"),
        ("PRIOR", run.prior_driven(source_id, band), fine, "", "0 data dominate, 1 prior dominates"),
    ]
    if run.has_draws(source_id):
        contents.append(("SAMPLES", run.samples(source_id, band), fine, "nJy", "posterior draws"))
    planes = []
    for name, image, wcs, unit, text in contents:
        plane = fits.ImageHDU(
            np.ascontiguousarray(image), wcs.to_header(), name=one_line(f"{band}_{name}".upper(), True)
        )
        plane.header["OBJECT"] = one_line(source_id, True)
        if unit:
            plane.header["BUNIT"] = (unit, "per pixel")
        plane.header["COMMENT"] = text
        planes.append(plane)
    return planes


def detector_wcs(fine: Any, oversample: int) -> Any:
    """The WCS of the grid of ``observed``, from that of the fine grid."""
    wcs = fine.deepcopy()
    wcs.wcs.crpix = (np.asarray(fine.wcs.crpix) - 0.5) / oversample + 0.5
    wcs.wcs.cd = np.asarray(fine.wcs.cd) * oversample
    return wcs


_START = """\
# GALFIT start file for source {source_id}, band {band}. Written by galbatch.
A) {stem}_sci.fits
B) {stem}_fit.fits
C) {stem}_sigma.fits
D) {stem}_psf.fits
E) 1
F) {stem}_mask.fits
G) none
H) 1 {size} 1 {size}
I) {psf_size} {psf_size}
J) {zero_point}
K) {scale:.6f} {scale:.6f}
O) regular
P) 0

 0) sersic
 1) {x:.3f} {y:.3f} 1 1
 3) {magnitude:.3f} 1
 4) {radius:.3f} 1
 5) {index:.3f} 1
 9) {axis_ratio:.3f} 1
10) {angle:.2f} 1
 Z) 0

 0) sky
 1) 0.0 1
 2) 0.0 0
 3) 0.0 0
 Z) 0
"""


def _galfit(reader: RunReader, source_id: int | str, band: str, folder: ExportFolder, stem: str) -> Path:
    from astropy.io import fits

    view = reader.view(source_id, band)
    if view.psf is None:
        raise RunError(
            f"The PSF of source {source_id} in {band} cannot be read: the images of the survey are not "
            "where the run found them. Put them back, then export again."
        )
    if not np.isclose(view.psf_scale_arcsec or 0.0, view.pixel_scale_arcsec, rtol=1e-3):
        raise RunError(
            f'The PSF of {band} has pixels of {view.psf_scale_arcsec:g}", the stamp of '
            f'{view.pixel_scale_arcsec:g}": GALFIT needs them equal. Give the survey a PSF on its grid.'
        )
    wcs = detector_wcs(reader.run.wcs(source_id, band), reader.run.layout.oversample).to_header()
    good = view.good
    sigma = np.where(good, view.sigma, 0)
    images = {
        "sci": np.where(np.isfinite(view.observed), view.observed, 0),
        "sigma": np.where(good, sigma, sigma.max()),
        "mask": (~good).astype(np.uint8),
        "psf": view.psf,
    }
    for name, image in images.items():
        data = io.BytesIO()
        fits.writeto(data, image, None if name == "psf" else wcs)
        folder.write(f"{stem}_{name}.fits", data.getvalue())
    text = _START.format(
        stem=stem, source_id=one_line(source_id), band=one_line(band), **_start_values(reader, view)
    )
    return folder.write(f"{stem}.galfit", text.encode())


def _start_values(reader: RunReader, view: SourceView) -> dict[str, float]:
    """GALFIT's parameters from posterior medians; pixels count from 1, angles from +y counter-clockwise."""

    def median(name: str, otherwise: float) -> float:
        values = (reader.number(f"{name}_{s}_{view.band}", view.source_id) for s in ("p50", "raw50"))
        return next(filter(np.isfinite, values), otherwise)

    middle = (view.mean.shape[1] - 1) / 2
    x, y = ((median(n, middle) + 0.5) / view.oversample + 0.5 for n in ("xc_asymmetry", "yc_asymmetry"))
    flux = float(np.sum(view.mean))
    magnitude = ZERO_POINT_NJY - 2.5 * np.log10(flux) if flux > 0 else 30.0
    return {
        "size": view.observed.shape[1],
        "psf_size": np.asarray(view.psf).shape[0],
        "zero_point": ZERO_POINT_NJY,
        "scale": view.pixel_scale_arcsec,
        "x": x,
        "y": y,
        "magnitude": median("mag_ab", magnitude),
        "radius": median("r_half", 3 * view.pixel_scale_arcsec) / view.pixel_scale_arcsec,
        "index": float(np.clip(median("sersic_n", 1.5), 0.3, 6)),
        "axis_ratio": float(np.clip(1 - median("ellipticity", 0.3), 0.1, 1)),
        "angle": float(np.degrees(median("orientation", 0.0)) - 90),
    }
