"""The card of a model, and its files: what the sampler must know of the prior, and what a reader should.

Spectra are per Fourier mode and pixel: ``power`` is the mean of |FFT|^2 / n_pix in radial bins ``k``
(cycles per pixel), in units of the squared flux scale.

The prior's correlation between the bands of one galaxy: a Fourier mode of an image in band i and the same
mode in band j, each in units of its band's flux scale, correlate with

    rho_ij(k) = ceiling(k) exp(-(|ln lambda_i - ln lambda_j| / length(k))^power)   for i != j,   rho_ii = 1,

which is positive definite for 0 < power <= 2 and ceiling <= 1. The numbers are measured on held-out
galaxies and stand on the model's card, at a few k in cycles per pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from galbatch.errors import ModelError
from galbatch.files import replacing
from galbatch.interfaces import PriorSpec

KEYS = ("k", "ceiling", "length", "power")


def cross_correlation(
    table: Mapping[str, Any] | None, log_wavelengths: Sequence[float] | np.ndarray, k: Any = None
) -> np.ndarray:
    """(..., bands, bands) correlation at ``k`` (any shape, cycles per pixel), the mean over the table's k
    when None. ``log_wavelengths`` (bands,): natural log of micrometres.

    Raises ``ModelError`` when the model has no table (a model of single bands).
    """
    check_cross(table, "cross_correlation")
    assert table is not None
    at = np.asarray(table["k"] if k is None else k, dtype=np.float64)
    ceiling, length = (np.interp(at, table["k"], table[name])[..., None, None] for name in KEYS[1:3])
    log = np.asarray(log_wavelengths, dtype=np.float64)
    apart = np.abs(log[:, None] - log[None, :])
    rho = ceiling * np.exp(-((apart / length) ** table["power"]))
    rho[..., np.arange(len(log)), np.arange(len(log))] = 1.0
    return rho.mean(axis=0) if k is None else rho


def check_cross(table: Mapping[str, Any] | None, who: str) -> None:
    """Raises ``ModelError`` when ``table`` is not one that a covariance can be made of."""
    if not table or set(table) != set(KEYS):
        raise ModelError(
            f"{who}: no table of correlations between bands (found {sorted(table or {})}, wanted "
            f"{list(KEYS)}): the model is one of single bands; sample the bands separately."
        )
    k, ceiling, length = (np.asarray(table[name], dtype=np.float64) for name in KEYS[:3])
    good = k.ndim == 1 and len(k) and ceiling.shape == length.shape == k.shape and (np.diff(k) > 0).all()
    good = good and (ceiling >= 0).all() and (ceiling <= 1).all() and (length > 0).all()
    if not (good and 0 < table["power"] <= 2):
        raise ModelError(
            f"{who}: correlations between bands need rising k, ceilings from 0 to 1, positive lengths and "
            f"a power within 0 to 2, found {dict(table)}: measure the model again."
        )


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name to write ``path`` under; it is renamed when all went well. Raises ``ModelError`` when the disk
    refuses."""
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, alone=True) as partial:
            yield partial
            partial.chmod(0o644)
    except (OSError, SafetensorError) as err:
        raise ModelError(
            f"{path}: cannot be written ({getattr(err, 'strerror', None) or err}): free space or choose "
            "another folder; what was there before is untouched."
        ) from err


def save_state(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write ``tensors`` and ``meta`` to ``path`` by atomic rename. Raises ``ModelError`` when the disk
    refuses."""
    from safetensors.torch import save_file

    with writing(path) as partial:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            partial,
            metadata={"meta": json.dumps(meta)},
        )


def load_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, meta) of ``save_state``. Raises ``ModelError`` when the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file: check the model folder.")
    try:
        with safe_open(path, framework="pt") as f:
            tensors = {name: f.get_tensor(name) for name in f.keys()}
            return tensors, json.loads((f.metadata() or {}).get("meta", "{}"))
    except (SafetensorError, OSError, ValueError) as err:
        raise ModelError(
            f"{path}: damaged ({path.stat().st_size} bytes: {err}): fetch or make it again."
        ) from err


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
    measured correction of its response. ``sha256``: of ``model.safetensors``. ``joint``: the most bands that
    it was trained to see together (0: none), ``joint_sha256``: of ``joint.safetensors``, the weights that
    let it, ``cross``: the correlation between bands (``bands.cross_correlation``). The rest documents:
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
    joint: int = 0
    joint_sha256: str = ""
    cross: dict[str, Any] | None = None
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
        if self.joint:
            check_cross(self.cross, f"card of '{self.name}'")

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
