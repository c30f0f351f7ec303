"""Training of the denoiser: EDM loss in units of what is usual for an image, power-function EMA.

What is usual: the running mean at a noise level, times that of images with as much light in what the
network makes of them. A weight that the noisy image says moves no minimum: the network still learns the
mean of what may be there. Without it small galaxies, whose errors are a tenth of large ones', hardly count
(docs/decisions/0049).

Every random number is a function of (seed, step, rank), and a checkpoint is one file, renamed into place: a
run killed at any moment and resumed follows the curve of an uninterrupted one. Several processes
(``torchrun``) draw different stamps and average their gradients. Where the device multiplies in bfloat16
the network does, under float32 weights.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from galbatch.errors import ModelError
from galbatch.prior.card import load_state, save_state
from galbatch.prior.compile import has_bfloat16
from galbatch.prior.network import Denoiser, NetworkConfig, is_joint
from galbatch.training.optimiser import MuonAdam
from galbatch.training.plan import N_BINS, SIGMA_RANGE, TrainConfig, bins_of, draw_sigma

if TYPE_CHECKING:
    from galbatch.training.cubes import CubeSource
    from galbatch.training.stamps import StampSource


LOOK_EVERY = 20  # steps between which a card is not waited for


def ema_exponent(relative_width: float) -> float:
    """Exponent gamma of the power-function EMA of a relative width (Karras et al. 2024, arXiv:2312.02696,
    eq. 126)."""
    t = relative_width**-2
    roots = np.roots([1, 7, 16 - t, 12 - t])
    return float(roots.real[np.abs(roots.imag) < 1e-9].max())


class Trainer:
    """State of one training: network, optimiser, averages, running losses, step and time worked."""

    def __init__(
        self,
        network: NetworkConfig,
        config: TrainConfig,
        source: StampSource | CubeSource,
        folder: Path,
        device: str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.config, self.network_config = config, network
        self.source: Any = source  # of bands together where the configuration has any
        self.folder, self.device, self.rank, self.world = Path(folder), torch.device(device), rank, world
        torch.manual_seed(config.seed)
        joint = bool(config.bands)
        self.model = Denoiser(network, joint).to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        for name, p in self.model.named_parameters():
            p.requires_grad_(is_joint(name) or not joint)
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.names, self.params = [name for name, _ in trained], [p for _, p in trained]
        named = list(enumerate(zip(self.names, self.params, strict=True)))
        inner = {i for i, (n, p) in named if p.ndim == 4 and "last" not in n and "first" not in n}
        matrices = inner if config.muon else set()
        self.optimiser = MuonAdam(self.params, matrices, config.betas)
        self.ema = {str(w): [p.detach().clone() for p in self.params] for w in config.ema}
        self.bin_loss = torch.ones(N_BINS, device=self.device)
        self.worst = torch.zeros((), device=self.device)
        self.step, self.elapsed_s, self._last_s = 0, 0.0, 0.0
        self.mixed = has_bfloat16(self.device)
        source.to(self.device)
        on_card = self.device.type == "cuda"
        self.look_every = LOOK_EVERY if on_card else 1
        self.fast_loss = (
            self.compiled() if (on_card if config.compile is None else config.compile) else self.loss
        )

    def compiled(self) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        """The loss, compiled for each size of stamps and number of bands."""
        import torch._dynamo

        torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)
        return torch.compile(self.loss, dynamic=False)

    # ---- one step ----

    def progress(self) -> float:
        """Share of the training done, by steps or by time, whichever is further."""
        c = self.config
        by_time = self.elapsed_s / (c.hours * 3600) if c.hours else 0.0
        return min(1.0, max(self.step / c.steps, by_time))

    def learning_rate(self) -> float:
        c = self.config
        fall = min(1.0, (1 - self.progress()) / max(c.decay, 1e-9))
        return c.learning_rate * min(1.0, (self.step + 1) / c.warmup) * fall

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Clean stamps, noise levels and unit noise of a step and this process, and bands where joint."""
        c, seed = self.config, (self.config.seed, step, self.rank)
        rng = np.random.default_rng((c.seed, step, 7))
        size = int(rng.choice(c.sizes, p=np.array(c.size_shares) / sum(c.size_shares)))
        number = int(rng.choice(c.bands, p=np.array(c.band_shares) / sum(c.band_shares))) if c.bands else 1
        n = max(1, round(c.batch / number / self.world * (72 / size) ** 2))
        generator = torch.Generator(self.device).manual_seed(hash_seed(*seed, 3))

        def noise_of(images: Tensor) -> Tensor:
            return torch.randn(images.shape, generator=generator, device=self.device)

        if not c.bands:
            clean = self.source.draw(n, size, (*seed, 1))
            return clean, draw_sigma(n, c, (*seed, 2)).to(self.device), noise_of(clean)
        clean, bands = self.source.draw_bands(n, number, size, (*seed, 1))
        clean = clean.reshape(-1, 1, size, size)
        noise = noise_of(clean)
        few = torch.Generator().manual_seed(hash_seed(*seed, 4))
        apart = torch.randn(n, number, generator=few) * c.sigma_spread
        apart *= torch.rand(n, 1, generator=few) > c.one_sigma
        sigma = (draw_sigma(n, c, (*seed, 2))[:, None] * apart.exp()).clamp(*SIGMA_RANGE)
        return clean, sigma.reshape(-1).to(self.device), noise, bands.to(self.device)

    def loss(
        self, clean: Tensor, sigma: Tensor, noise: Tensor, bands: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted loss; the EDM loss, mean square error over c_out^2, and that in units of what is usual at
        the noise level (2, n); the bins of both (2, n)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            noisy = clean + sigma.reshape(-1, 1, 1, 1) * noise
            f, c_skip, c_out = self.model.raw(noisy, sigma, bands)
        error = (f - (clean - c_skip * noisy) / c_out).square().mean(dim=(1, 2, 3))
        bins = bins_of(sigma, c_skip * noisy + c_out * f.detach())
        usual = self.bin_loss[bins]
        return (error / usual.prod(0)).mean(), torch.stack([error, error / usual[0]]).detach(), bins

    def train_step(self) -> dict:
        """Draw, differentiate, average over processes, update. Returns what is logged: of most steps on a
        card, which is not waited for, without the loss."""
        start = time.perf_counter()
        clean, sigma, *others = self.batch(self.step)
        drawn = time.perf_counter()
        clean = clean.contiguous(memory_format=torch.channels_last)
        loss, errors, bins = self.fast_loss(clean, sigma, *others)
        for p in self.params:
            p.grad = None
        loss.backward()
        sums = self._bin_sums(bins, errors)
        self.elapsed_s += self._reduce(sums, self._last_s)
        norm = torch.nn.utils.clip_grad_norm_(self.params, self.config.clip)
        self.worst = torch.maximum(self.worst, norm.detach())
        rate, look = self.learning_rate(), (self.step + 1) % self.look_every == 0
        if look:
            self.check_finite()
        self.optimiser.step(rate)
        self.step += 1
        self._update_averages(sums)
        told = {"loss": loss.detach(), "edm": errors[0].mean(), "norm": norm} if look else {}
        self._last_s = time.perf_counter() - start
        return {
            "step": self.step,
            **{name: float(value) for name, value in told.items()},
            "lr": rate,
            "elapsed_s": round(self.elapsed_s, 2),
            "n": len(clean),
            "draw_share": round((drawn - start) / self._last_s, 4),
        }

    def check_finite(self) -> None:
        """Raises ``ModelError`` when a gradient was not finite."""
        if not torch.isfinite(self.worst):
            raise ModelError(
                f"training diverged by step {self.step}: the gradient is not finite; lower learning_rate "
                f"({self.config.learning_rate}) and resume from the last checkpoint."
            )

    def _bin_sums(self, bins: Tensor, errors: Tensor) -> Tensor:
        sums = torch.zeros(2, len(self.bin_loss), device=errors.device)
        for row, values in zip(sums, (errors, torch.ones_like(errors)), strict=True):
            row.index_add_(0, bins.flatten(), values.flatten())
        return sums

    def _reduce(self, sums: Tensor, spent: float) -> float:
        """Average gradients, sum the bins, average the time: one message."""
        if self.world == 1:
            return spent
        flat = torch.cat(
            [
                *(p.grad.reshape(-1) for p in self.params),
                sums.reshape(-1) * self.world,
                torch.tensor([spent], device=self.device),
            ]
        )
        dist.all_reduce(flat)
        flat /= self.world
        at = 0
        for p in self.params:
            p.grad.copy_(flat[at : at + p.numel()].view_as(p))
            at += p.numel()
        sums.copy_(flat[at:-1].view_as(sums))
        return float(flat[-1])

    def _update_averages(self, sums: Tensor) -> None:
        total, count = sums
        keep = 0.98 ** count.clamp_max(8)
        mean = (keep * self.bin_loss + (1 - keep) * total / count.clamp_min(1)).clamp_min(1e-4)
        self.bin_loss.copy_(torch.where(count > 0, mean, self.bin_loss))
        for width, average in self.ema.items():
            beta = (1 - 1 / self.step) ** (ema_exponent(float(width)) + 1)
            torch._foreach_lerp_(average, [p.detach() for p in self.params], 1 - beta)

    # ---- state on disk ----

    def save(self, path: Path | None = None) -> None:
        """One safetensors file with everything that the next step depends on."""
        self.check_finite()
        tensors = {f"model.{n}": p.detach() for n, p in zip(self.names, self.params, strict=True)}
        for width, average in self.ema.items():
            tensors |= {f"ema{width}.{n}": p for n, p in zip(self.names, average, strict=True)}
        for name, state in zip(self.names, self.optimiser.state, strict=True):
            tensors |= {f"optimiser.{key}.{name}": value for key, value in state.items()}
        tensors["bin_loss"] = self.bin_loss
        save_state(
            path or self.folder / "checkpoint.safetensors",
            tensors,
            {
                "step": self.step,
                "elapsed_s": self.elapsed_s,
                "network": self.network_config.to_dict(),
                "bands": self.config.bands,
            },
        )

    @torch.no_grad()
    def start_from(self, model: Denoiser) -> None:
        """Begin with the weights of ``model``, a network of the same configuration."""
        self.model.load_state_dict(model.state_dict(), strict=False)
        for average in self.ema.values():
            for mine, p in zip(average, self.params, strict=True):
                mine.copy_(p)

    def load(self, path: Path | None = None) -> None:
        """Continue from a checkpoint. Raises ``ModelError`` when it belongs to another network."""
        path = path or self.folder / "checkpoint.safetensors"
        tensors, meta = load_state(path)
        if bool(meta.get("bands")) != bool(self.config.bands):
            made = "several bands" if meta.get("bands") else "single bands"
            raise ModelError(
                f"{path}: made for {made}, the configuration asks for the other: use another output folder "
                "or restore the configuration."
            )
        if meta["network"] != json.loads(json.dumps(self.network_config.to_dict())):
            raise ModelError(
                f"{path}: made by network {meta['network']}, the configuration asks for "
                f"{self.network_config.to_dict()}: use another output folder or restore the configuration."
            )
        with torch.no_grad():
            for i, (name, p) in enumerate(zip(self.names, self.params, strict=True)):
                p.copy_(tensors[f"model.{name}"])
                for width in self.ema:
                    self.ema[width][i].copy_(tensors[f"ema{width}.{name}"])
                for key, value in self.optimiser.state[i].items():
                    value.copy_(tensors[f"optimiser.{key}.{name}"])
        kept = tensors["bin_loss"]
        self.bin_loss[: len(kept)] = kept  # earlier ones had the bins of noise alone
        self.optimiser.count = meta["step"]
        self.step, self.elapsed_s = meta["step"], meta["elapsed_s"]


def hash_seed(*parts: int) -> int:
    """A 62-bit seed for torch from integers."""
    return int(np.random.default_rng(parts).integers(2**62))


def process_group() -> tuple[int, int, str]:
    """(rank, world size, device) as ``torchrun`` set them; joins the group when there is more than one
    process."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return rank, world, f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu"
