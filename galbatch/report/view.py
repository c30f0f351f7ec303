"""One source in one band, with its truth where that is known, as plain arrays and numbers: what the figure,
the terminal and the page draw; and how numbers are named and written, in the digits that an error allows.

Images are in flux per pixel of their own grid (nJy); ``sb`` turns them into surface brightness, so that
grids of different pixel size share one stretch: asinh (Lupton et al. 2004, PASP 116, 133).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from galbatch.store import Run
from galbatch.types import BandStamps

TRUTH_DRAWS = 16  # divisions of a truth that are averaged


@dataclass(frozen=True)
class Stretch:
    """Maps surface brightness to 0..1 through asinh; one for all panels, so that greys can be compared."""

    vmin: float
    vmax: float
    softening: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(...) surface brightness to (...) between 0 and 1, clipped; NaN stays NaN."""
        low, high = np.arcsinh(self.vmin / self.softening), np.arcsinh(self.vmax / self.softening)
        return np.clip((np.arcsinh(np.asarray(values) / self.softening) - low) / (high - low), 0.0, 1.0)

    def ticks(self) -> np.ndarray:
        """Round values to label on a colour bar: 0 and 1, 3, 10, 30, ... within the range."""
        exponents = np.arange(np.floor(np.log10(self.softening)), np.ceil(np.log10(self.vmax)) + 1)
        decades = np.sort(np.concatenate([10.0**exponents, 3 * 10.0**exponents]))
        decades = decades[decades <= self.vmax]
        above = decades[decades > self.softening]
        return np.concatenate([[0.0], above if len(above) else decades[-1:]])


def shared_stretch(observed: np.ndarray, sigma: np.ndarray, mean: np.ndarray) -> Stretch:
    """The stretch of one source: black at -1.5 sigma of the sky, white at its brightest, soft at 2 sigma.

    ``observed``, ``sigma`` (h, w) and ``mean`` (H, W): surface brightness in one unit; masked pixels are NaN.
    """
    noise = sigma[np.isfinite(sigma) & (sigma > 0)]
    sky = float(np.median(noise)) if noise.size else 0.0
    values = np.concatenate([observed[np.isfinite(observed)], mean[np.isfinite(mean)]])
    peak = float(np.quantile(values, 0.9995)) if values.size else 1.0
    if sky <= 0:
        sky = max(abs(peak), 1e-30) / 100
    return Stretch(vmin=-1.5 * sky, vmax=max(peak, 5 * sky), softening=2 * sky)


LABELS: dict[str, tuple[str, str]] = {
    "mag_ab": ("magnitude", "AB"),
    "flux_njy": ("flux", "nJy"),
    "r_half": ("r half light", "arcsec"),
    "r_petro": ("r Petrosian", "arcsec"),
    "ellipticity": ("ellipticity", ""),
    "concentration": ("concentration C", ""),
    "asymmetry": ("asymmetry A", ""),
    "gini": ("Gini", ""),
    "m20": ("M20", ""),
    "sersic_n": ("Sersic n", ""),
}


def with_error(p16: float, p50: float, p84: float) -> tuple[str, str, str]:
    """(value, plus, minus) as text, rounded to two digits of the larger error; '-' where not finite."""
    if not all(map(math.isfinite, (p16, p50, p84))):
        return (plain(p50), "", "")
    plus, minus = p84 - p50, p50 - p16
    errors = [e for e in (plus, minus) if e > 0]
    digits = _digits(max(errors)) if errors else 3
    value, up, down = (f"{round(v, digits):.{max(digits, 0)}f}" for v in (p50, plus, minus))
    return value, up, down


def plain(value: float, like: float = math.nan) -> str:
    """A number alone, with the digits of an error of size ``like``, else four significant ones."""
    if not math.isfinite(value):
        return "-"
    if math.isfinite(like) and like > 0:
        digits = _digits(like)
        return f"{round(value, digits):.{max(digits, 0)}f}"
    return f"{value:.4g}"


def _digits(error: float) -> int:
    return min(4, 1 - math.floor(math.log10(error)))


@dataclass(frozen=True)
class Number:
    """A measured quantity: posterior percentiles, classical value on the observed pixels, truth."""

    name: str
    p16: float
    p50: float
    p84: float
    obs: float = np.nan
    truth: float = np.nan
    unit: str = ""


@dataclass(frozen=True)
class SourceView:
    """One source in one band.

    ``observed``, ``sigma`` (h, w) nJy per detector pixel; ``mask`` (h, w) True where not used; ``model``
    (h, w) the posterior mean seen by the telescope (PSF and pixels), None when unknown; ``mean``,
    ``std``, ``prior_driven``, ``truth`` (H, W) and ``samples`` (k, H, W), k at least 0, on the fine grid,
    ``H = oversample * h``; ``psf`` (p, p) on the detector grid of ``psf_scale_arcsec``; ``north_deg``: angle
    of north from +y, counter-clockwise, None if unknown.
    """

    source_id: str
    band: str
    observed: np.ndarray
    sigma: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    samples: np.ndarray
    pixel_scale_arcsec: float
    prior_driven: np.ndarray | None = None
    mask: np.ndarray | None = None
    model: np.ndarray | None = None
    psf: np.ndarray | None = None
    psf_scale_arcsec: float | None = None
    truth: np.ndarray | None = None
    north_deg: float | None = None
    numbers: tuple[Number, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def oversample(self) -> int:
        """Fine pixels per detector pixel, along a side."""
        return self.mean.shape[0] // self.observed.shape[0]

    @property
    def good(self) -> np.ndarray:
        """(h, w) True where a pixel was used."""
        good = np.isfinite(self.observed) & np.isfinite(self.sigma) & (self.sigma > 0)
        return good if self.mask is None else good & ~self.mask

    def sb(self, image: np.ndarray) -> np.ndarray:
        """Flux per pixel to nJy per square arcsecond; the grid is told from the image's size."""
        fine = image.shape[-1] == self.mean.shape[-1]
        scale = self.pixel_scale_arcsec / (self.oversample if fine else 1)
        return image / scale**2

    def observed_sb(self) -> np.ndarray:
        """(h, w) observed surface brightness, NaN where masked."""
        return np.where(self.good, self.sb(self.observed), np.nan)

    def stretch(self) -> Stretch:
        """The stretch that all panels share."""
        sigma = np.where(self.good, self.sb(self.sigma), np.nan)
        return shared_stretch(self.observed_sb(), sigma, self.sb(self.mean))

    def rows(self) -> Iterator[tuple[str, str, tuple[str, str, str], str, str]]:
        """(label, unit, (value, plus, minus), value on the pixels, truth) of every number, as text; the truth
        is '' where none is known."""
        known = any(np.isfinite(n.truth) for n in self.numbers)
        for n in self.numbers:
            label, unit = LABELS.get(n.name, (n.name, n.unit))
            error = max(n.p84 - n.p50, n.p50 - n.p16)
            truth = plain(n.truth, error) if known else ""
            yield label, unit, with_error(n.p16, n.p50, n.p84), plain(n.obs, error), truth

    def residual(self) -> np.ndarray | None:
        """(h, w) (data - model) / sigma, NaN where masked; None without a model."""
        if self.model is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.good, (self.observed - self.model) / self.sigma, np.nan)


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

    catalog = Path(manifest.get("config", {}).get("catalog", ""))
    path = catalog.parent / catalog.stem / "truth.npz"
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


def own_truth(image: np.ndarray, stamp: BandStamps, oversample: int) -> tuple[np.ndarray, np.ndarray]:
    """The truth (H, W) of a source, and its segments (h, w) without neighbours that were fitted.

    A truth knows the source alone. What has half of a neighbour's light in it is a companion of its own, and
    is taken out as it is from the draws, in the mean.
    """
    from galbatch.morphology.separate import fitted_neighbours, own_share

    seg, near = stamp.seg[0].copy(), fitted_neighbours(stamp.seg[0], stamp.mask[0])
    fine = np.where(near | (seg == 1), seg, 0).repeat(oversample, 0).repeat(oversample, 1)
    for label in np.unique(seg[near]):
        if image[fine == label].sum() < 0.5 * np.nansum(stamp.data[0][seg == label]):
            fine[fine == label] = 0
    share = own_share(np.repeat(image[None], TRUTH_DRAWS, 0), fine).mean(0)
    return image * share, np.where(near, 0, seg)


def measure_truth(
    image: np.ndarray, stamp: BandStamps, oversample: int, target_fwhm_pix: float
) -> dict[str, float]:
    """The statistics of the truth (H, W), by name, with the segment and sky that the source's draws had."""
    from galbatch.morphology import measure_posterior

    own, seg = own_truth(image, stamp, oversample)
    found, _ = measure_posterior(
        own[None, None].astype(np.float32),
        stamp.data,
        stamp.sigma,
        stamp.mask,
        seg[None],
        stamp.psf,
        stamp.pixel_scale_arcsec,
        oversample,
        target_fwhm_pix,
        psf_scale_arcsec=stamp.psf_scale_arcsec,
    )
    return {name: float(found[name][0, 0]) for name in found.dtype.names if found[name].dtype.kind == "f"}
