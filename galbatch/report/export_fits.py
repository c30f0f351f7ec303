"""Sources of a run as FITS files that DS9 and astropy open: every plane an extension with WCS and unit."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import RunError
from galbatch.flags import names_of, quality_of
from galbatch.store import Run, file_names, one_line, open_export


def export_fits(
    run: Run, source_ids: list, out: Path, on_source: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write ``<out>/<id>.fits`` for each source; returns the paths. ``on_source`` is called after each.

    Extensions by band, e.g. ``F200W_OBSERVED``, ``_SIGMA``, ``_MASK``, ``_MODEL`` on the detector grid and
    ``_MEAN``, ``_STD``, ``_PRIOR``, ``_SAMPLES`` (a cube, one plane per draw) on the fine grid. Ids become
    file names as ``file_names`` says, and escapes in headers where they are not plain ASCII. Raises
    ``InputError`` for an unknown id, ``RunError`` for a source that failed, or a folder with other files.
    """
    refuse_failed(run, source_ids)
    folder, names, paths = open_export(out, "fits", run.paths), file_names(run.locate(source_ids)), []
    for source_id in source_ids:
        paths.append(folder.write(f"{names[str(source_id)]}.fits", _bytes(run, source_id)))
        on_source()
    return paths


def refuse_failed(run: Run, source_ids: list) -> None:
    """Raise ``InputError`` for the first id that is unknown, ``RunError`` for the first that failed."""
    run.locate(source_ids)
    for source_id in source_ids:
        if run.status(source_id) == "failed":
            raise RunError(
                f"Source {source_id} failed and has no images: failures.parquet in {run.paths.root} says why."
            )


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
