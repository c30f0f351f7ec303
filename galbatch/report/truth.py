"""The truth of a mock field that a run was made from: cut to a source's stamp, measured like its draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galbatch.store import Run
from galbatch.types import BandStamps


@dataclass(frozen=True)
class Truth:
    """Noise-free stamps at the target PSF: ``images`` (n, band, h, w) nJy per pixel, whose first pixel is
    pixel ``x0``, ``y0`` (n,) of the mosaic; ``row_of``: position by source id as text."""

    row_of: dict[str, int]
    bands: tuple[str, ...]
    images: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    pixel_scale_arcsec: float
    target_fwhm_pix: float

    def image(self, run: Run, source_id: int | str, band: str, origin: tuple[int, int]) -> np.ndarray | None:
        """(H, W) truth on the run's grid, for a stamp whose first pixel is ``origin`` (x, y) of the mosaic.

        None when the source, the band, the pixel scale or the target PSF of the run is not the truth's, or
        the truth does not cover the stamp.
        """
        layout = run.layout
        row = self.row_of.get(str(source_id))
        if row is None or band not in self.bands or layout.oversample != 1:
            return None
        if not np.isclose(layout.target_fwhm_pix, self.target_fwhm_pix):
            return None
        if not np.isclose(min(layout.pixel_scale_arcsec), self.pixel_scale_arcsec):
            return None
        image, side = self.images[row, self.bands.index(band)], run.stamp_pix(source_id)
        x, y = origin[0] - int(self.x0[row]), origin[1] - int(self.y0[row])
        if min(x, y) < 0 or y + side > image.shape[0] or x + side > image.shape[1]:
            return None
        return image[y : y + side, x : x + side]


def find_truth(manifest: dict) -> Truth | None:
    """``<catalogue stem>/truth.npz`` beside the catalogue of a run, as ``simulate field`` writes it."""
    from galbatch.simulate.field_files import read_truth

    catalogue = Path(manifest.get("config", {}).get("catalog", ""))
    path = catalogue.parent / catalogue.stem / "truth.npz"
    if not path.is_file():
        return None
    found = read_truth(path)
    return Truth(
        {str(i): n for n, i in enumerate(found["source_id"].tolist())},
        tuple(str(b) for b in found["bands"]),
        found["images"],
        found["truth_x0"],
        found["truth_y0"],
        float(found["pixel_scale_arcsec"]),
        float(found["target_fwhm_pix"]),
    )


def stamp_origin(run: Run, source_id: int | str, row: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """(x, y) in the mosaic of the finest band of the stamp's first pixel, from a plan row with one source.

    The plan has the source's position in the mosaic, the store's WCS gives the one in the stamp: they differ
    by the origin. None when that is not a whole pixel.
    """
    wcs = run.wcs(source_id, run.bands[int(np.argmin(run.layout.pixel_scale_arcsec))])
    inside = np.array(wcs.all_world2pix(float(row["ra"][0]), float(row["dec"][0]), 0))
    inside = (inside + 0.5) / run.layout.oversample - 0.5
    origin = np.array([row["x"][0], row["y"][0]]) - inside
    if not np.isfinite(origin).all() or np.abs(origin - np.rint(origin)).max() > 0.05:
        return None
    return int(np.rint(origin[0])), int(np.rint(origin[1]))


def measure_truth(
    image: np.ndarray, stamp: BandStamps, oversample: int, target_fwhm_pix: float
) -> dict[str, float]:
    """The statistics of the truth (H, W), by name, with the segment and sky that the source's draws had."""
    from galbatch.morphology import measure_posterior

    found, _ = measure_posterior(
        image[None, None].astype(np.float32),
        stamp.data,
        stamp.sigma,
        stamp.mask,
        stamp.seg,
        stamp.psf,
        stamp.pixel_scale_arcsec,
        oversample,
        target_fwhm_pix,
        psf_scale_arcsec=stamp.psf_scale_arcsec,
    )
    return {name: float(found[name][0, 0]) for name in found.dtype.names if found[name].dtype.kind == "f"}
