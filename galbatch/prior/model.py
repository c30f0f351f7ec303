"""A trained prior: ``load_prior`` and ``Prior``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galbatch.display import html_table
from galbatch.errors import ModelError
from galbatch.prior.card import Card, cross_correlation
from galbatch.prior.compile import choose_precision, compile_denoiser, full_float32
from galbatch.prior.folder import CARD, choose_device, load_calibration, load_weights, model_folder
from galbatch.prior.network import Denoiser


class Prior:
    """A denoiser D(x; sigma) = E[x0 | x0 + sigma eps = x] and the card that describes it.

    ``spec``: what a sampler asks of both. ``calibration``: by sampler mode, how far statistics of draws are
    from the truth. ``micro_batch`` images go through the network at a time, the last group filled up with
    empty ones, so that the result for an image does not depend on which and how many others come with it.
    """

    def __init__(
        self,
        model: Denoiser,
        card: Card,
        device: str | torch.device = "cpu",
        backend: str = "auto",
        micro_batch: int | None = None,
        calibration: dict | None = None,
        precision: str = "auto",
    ) -> None:
        self.card, self.device = card, torch.device(device)
        self.calibration = calibration or {}
        self.micro_batch = micro_batch or images_per_pass(self.device)
        model = model.eval().requires_grad_(False)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spec = replace(card.spec(self.device, self.calibration), recordable=self.device.type == "cuda")
        self._joints: dict[tuple[int, int], Callable[..., Tensor]] = {}
        self.precision = choose_precision(self.device, precision)
        self.backend, self._forward = compile_denoiser(self.model, self.device, backend, self.precision)

    def _repr_html_(self) -> str:
        return html_table(
            f"Prior {self.card.name}",
            {
                "target PSF": f"{self.spec.target_fwhm_pix:g} pixels FWHM",
                "device, precision, backend": f"{self.device}, {self.precision}, {self.backend}",
                "calibrated for modes": ", ".join(self.calibration) or "none",
                "sha256": self.spec.sha256,
            },
        )

    @torch.inference_mode()
    @full_float32()
    def denoise(self, x: Tensor, sigma: Tensor, bands: Tensor | None = None) -> Tensor:
        """x (b, c, H, W) float32 in units of the flux scale -> E[x0 | x] of the same shape.

        ``sigma``: a number, (b,) or (b, c). ``bands`` (c,) or (b, c): log of the pivot wavelength in
        micrometres; the bands of an image are then seen together, which a joint model can. Without, or
        with one band, each is denoised by itself. Raises ``ModelError`` when H or W is not a multiple of
        ``multiple_of``, the shapes do not fit, or the model is not joint.
        """
        b, c, h, w = x.shape if x.ndim == 4 else (0, 0, 0, 0)
        levels, bands = self._checked(x, sigma, bands)
        levels = self._mapped(levels.to(self.device, torch.float32))
        if bands is None:
            images = x.to(self.device, torch.float32).reshape(b * c, 1, h, w)
            out = self._in_groups(self._forward, self._group(b * c), images, levels.reshape(-1))
        else:
            n = max(1, self._group(b * c) // c)
            inputs = (x.to(self.device, torch.float32), levels, bands.to(self.device, torch.float32))
            out = self._in_groups(self._joint(n, c), n, *inputs)
        return out.reshape(b, c, h, w).to(x.device)

    def _in_groups(self, forward: Callable[..., Tensor], n: int, *inputs: Tensor) -> Tensor:
        """``forward`` of the inputs (m, ...), ``n`` rows at a time, the last ones filled up with ones."""
        m = len(inputs[0])
        out = torch.empty_like(inputs[0])
        for i in range(0, m, n):
            parts = [t[i : i + n] for t in inputs]
            if len(parts[0]) < n:
                parts = [torch.cat([t, t.new_ones(n - len(t), *t.shape[1:])]) for t in parts]
            out[i : i + n] = forward(*parts)[: m - i]
        return out

    def _joint(self, n: int, c: int) -> Callable[..., Tensor]:
        """The network for ``n`` images of ``c`` bands, compiled when it is first asked for."""
        if (n, c) not in self._joints:
            _, self._joints[n, c] = compile_denoiser(
                self.model, self.device, self.backend, self.precision, (n, c)
            )
        return self._joints[n, c]

    def cross_correlation(self, log_wavelengths: Sequence[float], k: Any = None) -> np.ndarray:
        """(bands, bands) prior correlation of the bands, or (..., bands, bands) at ``k``; see ``bands``."""
        return cross_correlation(self.card.cross, log_wavelengths, k)

    def _group(self, n: int) -> int:
        """Images per pass: fixed on a CPU; on a GPU one of four numbers, each of which is compiled once
        (another number may move last bits)."""
        if self.device.type == "cpu" or n >= self.micro_batch:
            return self.micro_batch
        step = max(1, self.micro_batch // 4)
        return min(self.micro_batch, -(-n // step) * step)

    def _checked(self, x: Tensor, sigma: Tensor, bands: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """sigma and bands as (b, c); bands None where each is denoised by itself."""
        sigma = torch.as_tensor(sigma)
        if x.ndim != 4 or sigma.shape not in ((), (len(x),), x.shape[:2]):
            raise ModelError(
                f"denoise: x has shape {tuple(x.shape)}, sigma {tuple(sigma.shape)}: "
                "x must be (b, c, H, W), sigma (b,), (b, c) or one number."
            )
        m = self.card.multiple_of
        if x.shape[2] % m or x.shape[3] % m:
            raise ModelError(
                f"denoise: images of {x.shape[2]} x {x.shape[3]} pixels: height and width must be "
                f"multiples of {m} for model '{self.card.name}'; pad them."
            )
        levels = (sigma[:, None] if sigma.ndim == 1 else sigma).expand(*x.shape[:2])
        if bands is None or x.shape[1] == 1:
            return levels, None
        bands = torch.as_tensor(bands)
        if not self.card.joint:
            raise ModelError(
                f"denoise: model '{self.card.name}' sees bands one by one: leave out the "
                "wavelengths, or use a joint model."
            )
        if bands.shape not in ((x.shape[1],), x.shape[:2]):
            raise ModelError(
                f"denoise: wavelengths of shape {tuple(bands.shape)} for x of shape {tuple(x.shape)}: give "
                "one per band, (c,) or (b, c)."
            )
        return levels, bands.expand(*x.shape[:2])

    def _mapped(self, sigma: Tensor) -> Tensor:
        a, b = self.card.sigma_map
        sigma = sigma.clamp(self.card.sigma_min, self.card.sigma_max)
        return sigma if a == b == 0 else sigma * torch.exp(a + b * sigma.log())


def images_per_pass(device: torch.device) -> int:
    """How many images go through the network at a time: few on a CPU, whose caches hold them; on a GPU as
    many as fill it, less on one with little memory."""
    if device.type == "cpu":
        return 8
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return next((n for n, least in ((1024, 30e9), (512, 14e9)) if memory > least), 256)


def load_prior(
    path: Path | str | None = None, device: str = "auto", backend: str = "auto", precision: str = "auto"
) -> Prior:
    """A prior: one of the shipped ones, or that in a model folder.

    Nothing is downloaded and no code in the folder is run.

    Parameters
    ----------
    path : str or Path, optional
        "small", "base", a model folder, or "auto" (as None): base on a CUDA card, else small.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    backend : str
        "auto" (the measured winner of the device), "eager", "torchscript" or "compile".
    precision : str
        What the network computes in, "float32" or "bfloat16" (in between, sums and everything outside of it
        stay in float32); "auto": bfloat16 on GPUs and on CPUs that multiply in it.

    Returns
    -------
    Prior
        With ``denoise(x, sigma)``, ``spec`` (a ``PriorSpec``) and ``card`` (what it was trained on).

    Raises
    ------
    ModelError
        In one line: the folder is incomplete, damaged or does not fit.

    Examples
    --------
    >>> import galbatch
    >>> prior = galbatch.load_prior("small", device="cpu")
    >>> prior.spec.name
    'small'
    """
    folder = model_folder(path, device)
    card = Card.load(folder / CARD)
    return Prior(
        load_weights(folder, card),
        card,
        choose_device(device),
        backend,
        calibration=load_calibration(folder, card),
        precision=precision,
    )
