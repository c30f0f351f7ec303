"""What the parts of the mathematics ask of each other: a prior (``Denoiser`` and its ``PriorSpec``), the
noise of an observation (``Noise``; of one grid, ``NoiseModel``), and the operators between image and data
(``Likelihood``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

FLUX_CONVENTIONS = ("smoothed_peak", "data", "none")  # the last two: x is in the unit of the data


@dataclass(frozen=True)
class PriorSpec:
    """What the sampler must know of a prior besides its denoiser.

    ``channels``: bands of one image, None for any number seen together. ``target_fwhm_pix``: FWHM of the
    Gaussian PSF of its images in fine pixels. ``flux_convention``: one of ``FLUX_CONVENTIONS``.
    ``sigma_min``, ``sigma_max``: the noise levels it is made for. ``margin_pix``: unknown sky to add around a
    stamp. ``multiple_of``: what height and width must be multiples of. ``max_sd``: the largest standard
    deviation of a Fourier mode. ``spectrum``, ``residual_spectrum``: tables of a model card; None: measured
    by the sampler. ``device``: where its tensors live. ``name``, ``sha256``: how a run knows it again.
    ``calibration``: by sampler mode, how far statistics of draws are from the truth. ``joint``: the most
    bands that it learned to see together (a ``JointDenoiser``), 0 when it sees each by itself; ``cross``:
    how they correlate (``galbatch.prior.card``). ``recordable``: nothing in ``denoise`` asks a CUDA card for
    a value, so that levels of the sampler may be recorded there.
    """

    channels: int | None = None
    target_fwhm_pix: float = 0.0
    flux_convention: str = "data"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    margin_pix: int = 0
    multiple_of: int = 1
    max_sd: float | None = None
    spectrum: Mapping[str, Any] | None = None
    residual_spectrum: Mapping[str, Any] | None = None
    device: Any = "cpu"
    name: str = ""
    sha256: str = ""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    joint: int = 0
    cross: Mapping[str, Any] | None = None
    recordable: bool = False

    def calibration_of(self, mode: str, bands: int = 1) -> dict[str, Any]:
        """The table of a sampler's mode for so many ``bands`` that are sampled together; {} without one, or
        where it was made with fewer."""
        table = self.calibration.get(f"{mode} joint" if bands > 1 else mode, {})
        return table if bands <= table.get("bands", 1) else {}


@runtime_checkable
class Denoiser(Protocol):
    """A prior: E[x0 | x0 + sigma e], e of unit variance, and its ``PriorSpec``."""

    spec: PriorSpec

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """x (b, c, H, W) float32, sigma (b,) -> the mean image, of the shape of x."""
        ...


@runtime_checkable
class JointDenoiser(Denoiser, Protocol):
    """A prior of galaxies in any bands, ``bands`` (c,) or (b, c) the logarithms of their wavelengths in
    micrometres: of one band what the ``Denoiser`` is."""

    def denoise(
        self, x: torch.Tensor, sigma: torch.Tensor, bands: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (b, c, H, W) float32, sigma (b,) -> the mean images of galaxies, of the shape of x."""
        ...

    def cross_correlation(self, log_wavelengths: np.ndarray, k: np.ndarray) -> np.ndarray:
        """(..., c, c): how modes of ``k`` cycles per pixel correlate between bands, one on the diagonal."""
        ...


@runtime_checkable
class Noise(Protocol):
    """The Gaussian noise N of detector pixels, and products by its inverse, as the sampler uses them.

    ``weight`` (b, 1, c, h, w): 1 / sigma^2, zero where masked. ``inflation``, a number or one for each band:
    how many times fewer independent pixels there are than pixels (1 for white noise); ``sum_inflation``: how
    many times larger than without correlation the variance of a sum over many pixels is. ``modes`` (b, m, c,
    h, w): what each error of the PSF does to the data at one standard deviation, part of N; None where the
    PSF is exact. ``owed``: the share of the variance that is there though the PSF be exact, like ``weight``.
    """

    @property
    def weight(self) -> torch.Tensor: ...

    @property
    def modes(self) -> torch.Tensor | None: ...

    @property
    def owed(self) -> torch.Tensor | float: ...

    @property
    def inflation(self) -> float | np.ndarray: ...

    @property
    def sum_inflation(self) -> torch.Tensor | float: ...

    def precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u for detector images u (b, k, c, h, w)."""
        ...

    def quick_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u roughly and at once: for preconditioners."""
        ...

    def exact_precision(self, u: torch.Tensor) -> torch.Tensor:
        """N^-1 u of the noise as it would be though the PSF be exact."""
        ...

    def corrected(self, u: torch.Tensor) -> torch.Tensor:
        """Residuals u (b, k, c, h, w) less the expected error of the PSF in them."""
        ...

    def sample(self, normal: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Noise (b, k, c, h, w), zero where masked; ``normal(c, h, w)`` draws standard normals."""
        ...


@runtime_checkable
class NoiseModel(Noise, Protocol):
    """The noise of one detector grid: what a forward model of that grid asks besides. ``precisions``: the
    part of ``weight`` that is correlated from pixel to pixel and the part that is not."""

    @property
    def precisions(self) -> tuple[torch.Tensor, torch.Tensor]: ...

    @property
    def inflation(self) -> float: ...

    def take(self, rows: np.ndarray) -> NoiseModel:
        """The noise of these sources."""
        ...

    def coloured(self, correlated: torch.Tensor, fy: np.ndarray, fx: np.ndarray) -> torch.Tensor:
        """``correlated`` (b, 1, c, 1, 1), a precision of correlated noise, over the noise power at the
        frequencies fy (m,) and fx (n,) in cycles per detector pixel: (b, 1, c, m, n), or as it is where no
        noise is correlated."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """Data y = A x + n as the sampler uses them: A, its adjoint, A^T N^-1 A, and N; of one detector grid, or
    of several side by side. ``fine`` = (H, W), ``otf_fine`` (b, 1, c, H, W // 2 + 1) the transfer functions
    there; ``margin`` fine pixels around the stamp; ``oversample``, ``stamp``, ``grid``: of each detector
    grid."""

    @property
    def noise(self) -> Noise: ...

    @property
    def fine(self) -> tuple[int, int]: ...

    @property
    def otf_fine(self) -> torch.Tensor: ...

    @property
    def margin(self) -> int: ...

    @property
    def oversample(self) -> int | tuple[int, ...]: ...

    @property
    def stamp(self) -> tuple[int, int]: ...

    @property
    def grid(self) -> tuple[int, int] | tuple[tuple[int, int], ...]: ...

    def mean_weight(self) -> torch.Tensor:
        """(b, 1, c, 1, 1): mean of 1 / sigma^2 over the stamp, masked pixels zero."""
        ...

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """A x: fine images (b, k, c, H, W) to detector images (b, k, c, h, w)."""
        ...

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """A^T u."""
        ...

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """A^T N^-1 A x."""
        ...

    def quick_normal(self, x: torch.Tensor) -> torch.Tensor:
        """A^T N^-1 A x with the quick inverse of correlated noise: a preconditioner, never the likelihood."""
        ...

    def circulant_precision(self) -> torch.Tensor:
        """(b, 1, c, H, W // 2 + 1): A^T N^-1 A on the fine grid as if every pixel had the mean precision."""
        ...

    def from_detector(self, u: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Each detector pixel's value (..., h, w) in its fine pixels."""
        ...

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """The part of a fine image (..., H, W) that the stamp covers."""
        ...

    def with_psfs(self, found: torch.Tensor) -> Likelihood:
        """For draws that have a PSF each, ``found`` (b, k, c, m) in standard deviations of its errors."""
        ...
