"""How the bands of one galaxy see each other inside the U-Net: attention over bands, pixel by pixel.

Bands go through the network as images of their own; before the blocks of every resolution their features
mix. ``c``: bands of a galaxy; images come as (b c, channels, y, x). Wavelengths count only by their
differences: ``bands`` (b, c) is the natural log of the pivot wavelength in micrometres. Every output begins
at zero, so that an untrained mixture changes nothing; one band by itself is never mixed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAIR = 16
HEAD = 16


class Pairs(nn.Module):
    """What a band should know of the others before it looks at them: features (b, c, c, PAIR) of each pair
    of noise levels and wavelengths, and shifts (b c, n) of the embedded noise level, since bands that help
    each other are less noisy together."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first = nn.Linear(5, 32)
        self.second = nn.Linear(32, PAIR)
        self.shift = nn.Linear(PAIR, n)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

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
        self.film = nn.Linear(embedding, 2 * channels)
        self.qkv = nn.Conv2d(channels, 3 * d, 1)
        self.pair = nn.Linear(PAIR, self.heads)
        self.hidden = nn.Conv2d(channels + d, max(32, channels // 2), 1)
        self.out = nn.Conv2d(max(32, channels // 2), channels, 1)
        for layer in (self.film, self.pair, self.out):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

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
