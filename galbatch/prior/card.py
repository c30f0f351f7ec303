"""The card of a model: what the sampler must know of the prior, and what a reader should.

Spectra are per Fourier mode and pixel: ``power`` is the mean of |FFT|^2 / n_pix in radial bins ``k``
(cycles per pixel), in units of the squared flux scale.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from galbatch.errors import ModelError
from galbatch.interfaces import PriorSpec
from galbatch.prior.checkpoint import writing

FORMAT = 1
FLUX_CONVENTIONS = ("smoothed_peak",)


@dataclass(frozen=True)
class Card:
    """Contents of ``card.json``.

    ``network``: keywords of ``NetworkConfig``. ``target_fwhm_pix``: FWHM of the Gaussian PSF of the images.
    ``margin_pix``: unknown sky to add around a stamp. ``multiple_of``: what H and W must be multiples of.
    ``spectrum`` {"k", "power"}: of held-out stamps about their mean. ``residual_spectrum`` {"k", "sigma",
    "power"} with power[i][j] at sigma[i], k[j]: of what the denoiser leaves. ``max_sd``: largest standard
    deviation of a mode. ``sigma_map`` (a, b): the network is asked for ln(sigma) + a + b ln(sigma), a
    measured correction of its response. ``sha256``: of ``model.safetensors``. The rest documents:
    ``training``, ``data``, ``metrics``, ``limits``.
    """

    name: str
    network: dict[str, Any]
    target_fwhm_pix: float
    sigma_data: float
    spectrum: dict[str, list]
    residual_spectrum: dict[str, list]
    max_sd: float
    sha256: str
    channels: int = 1
    flux_convention: str = "smoothed_peak"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    margin_pix: int = 4
    multiple_of: int = 8
    sigma_map: tuple[float, float] = (0.0, 0.0)
    format: int = FORMAT
    training: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_map", tuple(self.sigma_map))
        if self.format != FORMAT:
            raise ModelError(
                f"card of '{self.name}': format {self.format}, this version reads {FORMAT}: "
                "install a matching galbatch or export the model again."
            )
        if self.flux_convention not in FLUX_CONVENTIONS:
            raise ModelError(
                f"card of '{self.name}': flux convention '{self.flux_convention}', known are "
                f"{FLUX_CONVENTIONS}: install a matching galbatch or train again."
            )
        self._check_spectra()

    def _check_spectra(self) -> None:
        for name in ("target_fwhm_pix", "sigma_data", "max_sd"):
            if not getattr(self, name) > 0:
                raise ModelError(
                    f"card of '{self.name}': {name} is {getattr(self, name)}: it must be positive."
                )
        for name, keys in (("spectrum", ("k", "power")), ("residual_spectrum", ("k", "sigma", "power"))):
            table = getattr(self, name)
            if set(table) != set(keys):
                raise ModelError(
                    f"card of '{self.name}': {name} has {sorted(table)}, not {list(keys)}: "
                    "measure the model again (galbatch model evaluate)."
                )
        k, sigma = self.residual_spectrum["k"], self.residual_spectrum["sigma"]
        shape = np.shape(self.residual_spectrum["power"])
        if shape != (len(sigma), len(k)) or np.shape(self.spectrum["power"]) != (len(self.spectrum["k"]),):
            raise ModelError(
                f"card of '{self.name}': spectra do not match their grids (residual power {shape}, "
                f"{len(sigma)} sigma, {len(k)} k): measure the model again."
            )

    def spec(self, device: Any = "cpu", calibration: dict[str, Any] | None = None) -> PriorSpec:
        """What the sampler must know of the prior, on a device."""
        shared = {f.name for f in fields(PriorSpec)} & {f.name for f in fields(self)}
        return PriorSpec(
            device=device, calibration=calibration or {}, **{name: getattr(self, name) for name in shared}
        )

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        with writing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Card:
        """Read and check. Raises ``ModelError`` in one line."""
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"{path}: no such file: a model folder has card.json and model.safetensors.")
        try:
            values = json.loads(path.read_text())
            unknown = set(values) - {f.name for f in fields(cls)}
            if unknown:
                raise ModelError(
                    f"{path}: unknown entries {sorted(unknown)}: made by another version of galbatch."
                )
            return cls(**values)
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as err:
            raise ModelError(f"{path}: not a model card: {err}.") from err
