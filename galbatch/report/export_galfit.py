"""Inputs of GALFIT (Peng et al. 2010) for sources of a run: images and a start file with a Sersic model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galbatch.errors import RunError
from galbatch.morphology.calibration import ZERO_POINT_NJY
from galbatch.report.export_fits import detector_wcs, refuse_failed
from galbatch.report.read import RunReader
from galbatch.store import Run, band_name, file_names, one_line, open_export
from galbatch.store.export_folder import ExportFolder

if TYPE_CHECKING:
    from galbatch.report.view import SourceView

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


def export_galfit(
    run: Run, source_ids: list, out: Path, on_source: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write ``<id>_<band>.galfit`` and its images for each source and band; returns the start files.

    The images are the ones that galbatch fitted: same pixels, noise and mask (1 = bad). The start
    values are the posterior medians. ``on_source`` is called after each source. Raises ``InputError`` for an
    unknown id, ``RunError`` for a source that failed, or whose PSF cannot be read any more, or a folder with
    other files.
    """
    refuse_failed(run, source_ids)
    reader, folder = RunReader(run), open_export(out, "galfit", run.paths)
    names, paths = file_names(run.locate(source_ids)), []
    for source_id in source_ids:
        for band in run.bands:
            stem = f"{names[str(source_id)]}_{band_name(band)}"
            paths.append(_write(reader, source_id, band, folder, stem))
        on_source()
    return paths


def _write(reader: RunReader, source_id: int | str, band: str, folder: ExportFolder, stem: str) -> Path:
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
