"""The denoising network: a U-Net that works at half, quarter and eighth resolution, with EDM preconditioning.

``x``: noisy image (b, c, H, W) in units of the flux scale; ``sigma`` (b,): standard deviation of its noise;
``D(x; sigma)``: estimate of E[x0 | x0 + sigma eps = x]. Each of c bands goes through the same network;
in a joint one their features mix on the way (``Mix``). Karras et al. 2022 (arXiv:2206.00364), table 1:

    D = c_skip x + c_out F(inputs, ln(sigma)/4),   c_skip = sd^2 / (sigma^2 + sd^2),   c_out = sigma sd /
    sqrt(...)

The network sees the image three times: scaled by c_in; as asinh(x / sigma), so that faint light above the
noise is of order one at every sigma; and high-passed in the same way, so that noise on a bright core is
too. Normalisation acts on the channels of one pixel: nothing depends on the size of the image.

Under autocast the inputs, the first and the last convolution stay in float32: noise on a bright core is a
small difference of large numbers there, and they are two per cent of the work.

Bands see each other by attention, pixel by pixel. They go through the network as images of their own; before
the blocks of every resolution their features mix. ``c``: bands of a galaxy; images come as (b c, channels, y,
x). Wavelengths count only by their differences: ``bands`` (b, c) is the natural log of the pivot wavelength
in micrometres. Every output begins at zero, so that an untrained mixture changes nothing; one band by itself
is never mixed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galbatch.errors import ModelError

PAIR = 16
HEAD = 16


def zeroed(layer: nn.Module) -> nn.Module:
    """A layer whose output begins at zero."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class Pairs(nn.Module):
    """What a band should know of the others before it looks at them: features (b, c, c, PAIR) of each pair
    of noise levels and wavelengths, and shifts (b c, n) of the embedded noise level, since bands that help
    each other are less noisy together."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first = nn.Linear(5, 32)
        self.second = nn.Linear(32, PAIR)
        self.shift = zeroed(nn.Linear(PAIR, n))

    def forward(self, c_noise: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
        c = bands.shape[1]
        mine, other = c_noise[:, :, None].expand(-1, c, c), c_noise[:, None].expand(-1, c, c)
        apart = bands[:, None] - bands[:, :, None]
        number = torch.full_like(apart, math.log(c))
        pair = torch.stack([mine, other, apart, apart.abs(), number], dim=-1)
        pair = F.silu(self.second(F.silu(self.first(pair))))
        others = (1 - torch.eye(c, device=pair.device, dtype=pair.dtype))[None, :, :, None]
        return pair, self.shift((pair * others).sum(dim=2) / max(c - 1, 1)).flatten(0, 1)


class Mix(nn.Module):
    """h + MLP(h, what the bands attend to): all products are 1x1, all but the attention in one band."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.heads = max(2, channels // 48)
        d = HEAD * self.heads
        self.film = zeroed(nn.Linear(embedding, 2 * channels))
        self.qkv = nn.Conv2d(channels, 3 * d, 1)
        self.pair = zeroed(nn.Linear(PAIR, self.heads))
        self.hidden = nn.Conv2d(channels + d, max(32, channels // 2), 1)
        self.out = zeroed(nn.Conv2d(max(32, channels // 2), channels, 1))

    def forward(self, h: Tensor, level: Tensor, pair: Tensor) -> Tensor:
        scale, shift = self.film(level)[:, :, None, None].chunk(2, dim=1)
        normed = F.layer_norm(h.permute(0, 2, 3, 1), [h.shape[1]]).permute(0, 3, 1, 2)
        u = torch.addcmul(shift, normed, 1 + scale)
        seen = self.attend(self.qkv(u), self.pair(pair))
        return h + self.out(F.silu(self.hidden(torch.cat([u, seen], dim=1))))

    def attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """(b c, 3 d, y, x), (b, c, c, heads) -> (b c, d, y, x): softmax over the bands of a galaxy."""
        c, (rows, columns) = bias.shape[1], qkv.shape[2:]
        x = qkv.permute(0, 2, 3, 1).unflatten(0, (-1, c)).flatten(2, 3)
        x = x.unflatten(3, (3, self.heads, HEAD)).permute(3, 0, 2, 4, 1, 5)  # 3, b, pixel, head, c, HEAD
        weight = x[0] @ x[1].transpose(-1, -2) / math.sqrt(HEAD) + bias.permute(0, 3, 1, 2)[:, None]
        seen = weight.softmax(dim=-1).to(x.dtype) @ x[2]
        seen = seen.permute(0, 3, 1, 2, 4).flatten(3, 4).unflatten(2, (rows, columns))
        return seen.flatten(0, 1).permute(0, 3, 1, 2)


FOLD = 2


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the U-Net: ``widths`` channels and ``blocks`` residual blocks at 1/2, 1/4, 1/8 resolution.

    ``blocks`` counts the blocks on the way down and again on the way up; the coarsest level has them once.
    ``sigma_data``: pixel rms of the training images, in units of the flux scale.
    """

    widths: tuple[int, ...] = (40, 96, 144)
    blocks: tuple[int, ...] = (1, 1, 2)
    embedding: int = 128
    sigma_data: float = 0.15

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        object.__setattr__(self, "blocks", tuple(int(n) for n in self.blocks))
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise ModelError(
                f"network widths {self.widths} and blocks {self.blocks} must have the same length, "
                "one entry a resolution."
            )

    @property
    def multiple_of(self) -> int:
        """Height and width of an image must be multiples of this."""
        return FOLD * 2 ** (len(self.widths) - 1)

    def to_dict(self) -> dict:
        return asdict(self)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, (b, c, h, w), channels-last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, the second scaled and shifted by the noise level."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.conv_a = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_b = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.film = zeroed(nn.Linear(embedding, 4 * channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale_a, shift_a, scale_b, shift_b = self.film(level)[:, :, None, None].chunk(4, dim=1)
        h = self.conv_a(F.silu(torch.addcmul(shift_a, self.norm(x), 1 + scale_a)))
        h = self.conv_b(F.silu(torch.addcmul(shift_b, self.norm(h), 1 + scale_b)))
        return x + h


class NoiseLevel(nn.Module):
    """Embedding (b, n) of ln(sigma) / 4: smooth Fourier features and a two-layer perceptron."""

    frequency: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.linspace(0.25, 4.0, 16))
        self.first = nn.Linear(32, n)
        self.second = nn.Linear(n, n)

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequency * math.pi / 2
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        return F.silu(self.second(F.silu(self.first(features))))


def full_precision(x: Tensor) -> Any:
    """A context that autocast does not reach."""
    return torch.autocast(x.device.type, enabled=False)


def asinh(x: Tensor) -> Tensor:
    """torch.asinh to 1e-7, from operations that are vectorised on a CPU, which its own is not."""
    a = x.abs()
    return torch.copysign(torch.log(a + torch.sqrt(a * a + 1)), x)


class UNet(nn.Module):
    """F(inputs, c_noise): (b c, 3, H, W), (b c,) -> (b c, 1, H, W). Fully convolutional. With ``bands``
    (b, c) and c > 1 the images of a galaxy mix, which a ``joint`` network can."""

    down_blocks: Any  # lists of lists of blocks
    up_blocks: Any

    def __init__(self, config: NetworkConfig, joint: bool = False) -> None:
        super().__init__()
        widths, blocks, n = config.widths, config.blocks, config.embedding
        self.level = NoiseLevel(n)
        self.first = nn.Conv2d(3 * FOLD**2, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [nn.ModuleList([Block(w, n) for _ in range(m)]) for w, m in zip(widths, blocks, strict=True)]
        )
        self.up_blocks = nn.ModuleList(
            [
                nn.ModuleList([Block(w, n) for _ in range(m)])
                for w, m in zip(widths[:-1], blocks[:-1], strict=True)
            ]
        )
        self.downs = nn.ModuleList([nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths)])
        self.ups = nn.ModuleList([nn.Conv2d(b, 4 * a, 1) for a, b in itertools.pairwise(widths)])
        self.last = zeroed(nn.Conv2d(widths[0], FOLD**2, 3, padding=1))
        if joint:
            self.pairs = Pairs(n)
            self.down_mixes = nn.ModuleList([Mix(w, n) for w in widths])
            self.up_mixes = nn.ModuleList([Mix(w, n) for w in widths[:-1]])

    def forward(self, inputs: Tensor, c_noise: Tensor, bands: Tensor | None = None) -> Tensor:
        level, pair = self.level(c_noise), None
        if bands is not None and bands.shape[1] > 1:
            pair, shift = self.pairs(c_noise.unflatten(0, (-1, bands.shape[1])), bands)
            level = level + shift
        with full_precision(inputs):
            h = self.first(F.pixel_unshuffle(inputs, FOLD).contiguous(memory_format=torch.channels_last))
        skips = []
        for i, blocks in enumerate(self.down_blocks):
            h = h if pair is None else self.down_mixes[i](h, level, pair)
            for block in blocks:
                h = block(h, level)
            if i < len(self.downs):
                skips.append(h)
                h = self.downs[i](h)
        for i in range(len(self.ups) - 1, -1, -1):
            h = skips[i] + F.pixel_shuffle(self.ups[i](h), 2).contiguous(memory_format=torch.channels_last)
            h = h if pair is None else self.up_mixes[i](h, level, pair)
            for block in self.up_blocks[i]:
                h = block(h, level)
        with full_precision(inputs):
            return F.pixel_shuffle(self.last(F.silu(h.float())), FOLD)


def is_joint(name: str) -> bool:
    """Whether a tensor of a ``Denoiser`` belongs to what makes it joint."""
    return "_mixes." in name or ".pairs." in name


class Denoiser(nn.Module):
    """D(x; sigma) with EDM preconditioning: x (b, 1, H, W), sigma (b,) -> (b, 1, H, W), float32 in and
    out. A ``joint`` one also takes x (b, c, H, W), sigma (b, c) and ``bands`` (b, c), log wavelengths."""

    smooth_y: Tensor
    smooth_x: Tensor

    def __init__(self, config: NetworkConfig, joint: bool = False) -> None:
        super().__init__()
        self.sigma_data, self.joint = float(config.sigma_data), joint
        self.net = UNet(config, joint)
        kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("smooth_y", kernel.reshape(1, 1, 5, 1))
        self.register_buffer("smooth_x", kernel.reshape(1, 1, 1, 5))

    def forward(self, x: Tensor, sigma: Tensor, bands: Tensor | None = None) -> Tensor:
        if bands is not None:
            flat = x.reshape(-1, 1, *x.shape[2:])
            f, c_skip, c_out = self.raw(flat, sigma.reshape(-1), bands)
            return (c_skip * flat + c_out * f).reshape(x.shape)
        f, c_skip, c_out = self.raw(x, sigma)
        return c_skip * x + c_out * f

    def raw(self, x: Tensor, sigma: Tensor, bands: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """F and the coefficients c_skip, c_out (n, 1, 1, 1) of images x (n, 1, H, W), n = b c."""
        s = sigma.reshape(-1, 1, 1, 1)
        total = torch.sqrt(s * s + self.sigma_data**2)
        with full_precision(x):
            smooth = F.conv2d(F.conv2d(x, self.smooth_y, padding=(2, 0)), self.smooth_x, padding=(0, 2))
        inputs = torch.cat([x / total, asinh(x / s), asinh((x - smooth) / s)], dim=1)
        f = self.net(inputs, torch.log(sigma) / 4, bands)
        return f, (self.sigma_data / total) ** 2, s * self.sigma_data / total
