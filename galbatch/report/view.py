"""One source in one band, as plain arrays and numbers: what the figure, the terminal and the page draw.

Images are in flux per pixel of their own grid (nJy); ``sb`` turns them into surface brightness, so that
grids of different pixel size share one stretch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from galbatch.errors import InputError
from galbatch.report.stretch import Stretch, shared_stretch


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
    ``std``, ``prior_driven``, ``truth`` (H, W) and ``samples`` (k, H, W) on the fine grid, ``H =
    oversample * h``; ``psf`` (p, p) on the detector grid of ``psf_scale_arcsec``; ``north_deg``: angle of
    north from +y, counter-clockwise, None if unknown.

    Raises ``InputError`` when shapes disagree.
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

    def __post_init__(self) -> None:
        fine = self.mean.shape
        for name, shape in (
            ("sigma", self.observed.shape),
            ("mask", self.observed.shape),
            ("model", self.observed.shape),
            ("std", fine),
            ("prior_driven", fine),
            ("truth", fine),
        ):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(
                    f"SourceView.{name} has shape {value.shape}: it must be {shape}, "
                    f"like {'mean' if shape == fine else 'observed'}."
                )
        if self.samples.shape[1:] != fine or len(self.samples) == 0:
            raise InputError(
                f"SourceView.samples has shape {self.samples.shape}: it must be (k, {fine[0]}, {fine[1]})."
            )
        if fine[0] % self.observed.shape[0]:
            raise InputError(
                f"SourceView.mean has {fine[0]} rows, observed {self.observed.shape[0]}: "
                "the fine grid must be a multiple of the detector's."
            )

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

    def observed_sb(self, masked: bool = True) -> np.ndarray:
        """(h, w) observed surface brightness, NaN where masked (only where bad, with ``masked=False``)."""
        return np.where(self.good, self.sb(self.observed), np.nan) if masked else self.sb(self.observed)

    def stretch(self) -> Stretch:
        """The stretch that all panels share."""
        sigma = np.where(self.good, self.sb(self.sigma), np.nan)
        return shared_stretch(self.observed_sb(), sigma, self.sb(self.mean))

    def residual(self) -> np.ndarray | None:
        """(h, w) (data - model) / sigma, NaN where masked; None without a model."""
        if self.model is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.good, (self.observed - self.model) / self.sigma, np.nan)
