"""Sources of a run as FITS files that DS9 and astropy open: every plane an extension with WCS and unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from galbatch.errors import RunError
from galbatch.report.read import RunReader
from galbatch.store import Run
from galbatch.types import Flag


def export_fits(run: Run, source_ids: list, out: Path) -> list[Path]:
    """Write ``<out>/<id>.fits`` for each source; returns the paths.

    Extensions by band, e.g. ``F200W_OBSERVED``, ``_SIGMA``, ``_MASK``, ``_MODEL`` on the detector grid and
    ``_MEAN``, ``_STD``, ``_PRIOR``, ``_SAMPLES`` (a cube, one plane a draw) on the fine grid. Raises
    ``InputError`` for an unknown id, ``RunError`` for a source that failed.
    """
    reader = RunReader(run)
    out.mkdir(parents=True, exist_ok=True)
    return [_write(reader, source_id, out / f"{_file_name(source_id)}.fits") for source_id in source_ids]


def _write(reader: RunReader, source_id, path: Path) -> Path:
    from astropy.io import fits

    run = reader.run
    if run.status(source_id) == "failed":
        raise RunError(
            f"Source {source_id} failed and has no images: failures.parquet in {run.paths.root} says why."
        )
    first = fits.PrimaryHDU()
    first.header["OBJECT"] = (str(source_id), "source_id of the catalogue")
    first.header["RUN"] = (run.paths.root.name, "run folder")
    first.header["STATUS"] = run.status(source_id)
    first.header["FLAGS"] = (run.flags(source_id), "flag bits")
    names = [flag.name for flag in Flag if flag in Flag(run.flags(source_id))]
    first.header["FLAGNAME"] = (" ".join(names)[:60], "names of the flags")
    first.header["ORIGIN"] = "galbatch"
    planes = [first]
    for band in run.bands:
        planes += _band(run, source_id, band)
    fits.HDUList(planes).writeto(path, overwrite=True)
    return path


def _band(run: Run, source_id, band: str) -> list:
    from astropy.io import fits

    fine = run.wcs(source_id, band)
    detector = _detector_wcs(fine, run.layout.oversample)
    contents = [
        ("OBSERVED", run.observed(source_id, band), detector, "nJy", "observed flux per pixel"),
        ("SIGMA", run.sigma(source_id, band), detector, "nJy", "noise; inf where excluded"),
        ("MASK", run.mask(source_id, band), detector, "", "bit 0 excluded, bit 1 neighbour"),
        ("MODEL", run.model(source_id, band), detector, "nJy", "posterior mean seen by the telescope"),
        ("MEAN", run.mean(source_id, band), fine, "nJy", "posterior mean at the target PSF"),
        ("STD", run.std(source_id, band), fine, "nJy", "posterior standard deviation"),
        ("PRIOR", run.prior_driven(source_id, band), fine, "", "0 owed to the data, 1 to the prior"),
    ]
    if run.layout.samples:
        contents.append(("SAMPLES", run.samples(source_id, band), fine, "nJy", "posterior draws"))
    planes = []
    for name, image, wcs, unit, text in contents:
        plane = fits.ImageHDU(np.ascontiguousarray(image), wcs.to_header(), name=f"{band}_{name}".upper())
        plane.header["OBJECT"] = str(source_id)
        if unit:
            plane.header["BUNIT"] = (unit, "per pixel")
        plane.header["COMMENT"] = text
        planes.append(plane)
    return planes


def _detector_wcs(fine, oversample: int):
    """The WCS of the grid of ``observed``, from that of the fine grid."""
    wcs = fine.deepcopy()
    wcs.wcs.crpix = (np.asarray(fine.wcs.crpix) - 0.5) / oversample + 0.5
    wcs.wcs.cd = np.asarray(fine.wcs.cd) * oversample
    return wcs


def _file_name(source_id) -> str:
    """A source id as a file name: letters, digits and ``.-+_`` stay, the rest becomes an underscore."""
    return "".join(c if c.isalnum() or c in ".-+_" else "_" for c in str(source_id)).lstrip(".") or "_"
