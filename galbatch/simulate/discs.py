"""Face-on recipes of discs: bars, spiral arms, rings, clumps, lopsidedness, dust.

A recipe draws its parameters from a generator and fills three maps: old stars, young stars (each sums to
1) and the red optical depth. Lengths are image pixels; angles are radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from galbatch.simulate.parts import clump_map, random_field, sheared_field
from galbatch.simulate.projection import DiscGeometry

MAP_SIZE = 192


@dataclass(frozen=True)
class Disc:
    """A face-on disc ready to be projected."""

    maps: np.ndarray  # (MAP_SIZE, MAP_SIZE, 3): old, young, optical depth
    step_pix: float
    scale_pix: float
    young_share: float
    thickness: float  # height of old stars over scale length


class _Plane:
    """Coordinates of the face-on grid, with the disc's scale length as unit."""

    def __init__(self, scale_pix: float, extent: float) -> None:
        self.step_pix = 2.0 * extent * scale_pix / MAP_SIZE
        axis = (np.arange(MAP_SIZE, dtype=np.float32) - 0.5 * (MAP_SIZE - 1)) * (self.step_pix / scale_pix)
        self.x, self.y = np.meshgrid(axis, axis)
        self.r = np.hypot(self.x, self.y)
        self.log_r = np.log(self.r + 0.02)
        self.phi = np.arctan2(self.y, self.x)
        self.unit_pix = scale_pix / self.step_pix  # map pixels per scale length


def _arms(rng: np.random.Generator, p: _Plane, pitch: float, inner: float) -> tuple[np.ndarray, np.ndarray]:
    """Stellar arms and the dust lanes along their inner edges, both 0..1, fading inside ``inner``."""
    number = int(rng.choice([1, 2, 2, 2, 2, 3, 3, 4, 4, 5]))
    phase0 = rng.uniform(0, 2 * math.pi)
    wiggle = sheared_field(rng, p.log_r, p.phi, 1.2, 3.5) * rng.uniform(0.1, 0.45)
    bend = rng.normal(0.0, 0.12)
    wound = np.log(np.maximum(p.r, 0.05) / inner) / math.tan(pitch) * (1.0 + bend * p.r)
    phase = number * (p.phi - wound - phase0) + wiggle * number
    sharp = math.exp(rng.uniform(math.log(0.7), math.log(5.0)))
    arms = np.exp(sharp * (np.cos(phase) - 1.0))
    lanes = np.exp(2.0 * sharp * (np.cos(phase - rng.uniform(0.4, 0.9)) - 1.0))
    if number % 2 == 0 and rng.random() < 0.3:  # every second arm weaker
        weak = 1.0 - rng.uniform(0.3, 0.8) * (0.5 + 0.5 * np.cos(0.5 * phase))
        arms = arms * weak
    elif rng.random() < 0.2:  # one side stronger
        arms = arms * (1.0 - rng.uniform(0.1, 0.5) * (0.5 + 0.5 * np.cos(p.phi - rng.uniform(0, 6.28))))
    onset = 1.0 / (1.0 + np.exp(-(p.r - inner) / 0.12))
    end = 1.0 / (1.0 + np.exp((p.r - rng.uniform(2.6, 5.0)) / 0.4))
    return arms * onset * end, lanes * onset * end


def _bar(rng: np.random.Generator, p: _Plane, length: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A bar (peak 1) and its dust lanes on the leading edges."""
    c, s = math.cos(angle), math.sin(angle)
    u, v = p.x * c + p.y * s, -p.x * s + p.y * c
    ratio = rng.uniform(0.2, 0.45)
    shape = rng.uniform(2.0, 3.5)
    m = ((np.abs(u) / length) ** shape + (np.abs(v) / (ratio * length)) ** shape) ** (1.0 / shape)
    flat = rng.uniform(0.0, 1.0)
    bar = flat * np.clip(1.0 - m * m, 0.0, None) ** 0.8 + (1.0 - flat) * np.exp(-2.2 * m)
    if rng.random() < 0.4:  # bright ends
        ends = np.exp(-(((np.abs(u) - length) / (0.18 * length)) ** 2) - (v / (0.2 * length)) ** 2)
        bar = bar + rng.uniform(0.1, 0.5) * ends
    offset = np.where(u > 0, 1.0, -1.0) * 0.45 * ratio * length
    lane = np.exp(-(((v - offset) / (0.10 * length)) ** 2)) * (np.abs(u) < 1.05 * length) * (np.abs(u) > 0.1)
    return bar, lane


def _ring(rng: np.random.Generator, p: _Plane, radius: float) -> np.ndarray:
    """An elliptical ring of peak 1, clumpy along its length."""
    a = rng.uniform(0, math.pi)
    q = rng.uniform(0.75, 1.0)
    u = p.x * math.cos(a) + p.y * math.sin(a)
    v = (-p.x * math.sin(a) + p.y * math.cos(a)) / q
    width = radius * rng.uniform(0.07, 0.2)
    return np.asarray(np.exp(-0.5 * ((np.hypot(u, v) - radius) / width) ** 2))


def _unit_sum(image: np.ndarray) -> np.ndarray:
    image = np.clip(image, 0.0, None)
    return np.asarray(image / max(float(image.sum(dtype=np.float64)), 1e-20), dtype=np.float32)


def _assemble(p: _Plane, old: np.ndarray, young: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """The maps of a ``Disc``."""
    area = p.step_pix**2
    maps = np.stack([_unit_sum(old) / area, _unit_sum(young) / area, np.clip(tau, 0.0, 12.0)], -1)
    return maps.astype(np.float32)


def _optical_depth(rng: np.random.Generator) -> float:
    return float(min(math.exp(rng.normal(math.log(0.45), 0.9)), 5.0))


@dataclass
class _Layers:
    """Face-on old stars, young stars and dust while a recipe works on them."""

    old: np.ndarray
    young: np.ndarray
    dust: np.ndarray


def spiral_disc(rng: np.random.Generator, scale_pix: float, kind: str) -> Disc:
    """A disc with spiral structure; ``kind`` is one of ``KINDS`` that is a disc, irregulars excepted."""
    p = _Plane(scale_pix, min(5.5, 88.0 / scale_pix))
    pitch = math.radians(rng.uniform(9.0, 38.0)) * (1 if rng.random() < 0.5 else -1)
    bar_length = rng.uniform(0.5, 1.5)
    inner = bar_length if kind == "barred" else rng.uniform(0.15, 0.8)
    layers = _smooth_layers(rng, p, inner)
    if kind not in ("disc", "lenticular"):
        _add_arms(rng, p, layers, kind, pitch, inner)
    if kind == "barred" or (kind in ("lenticular", "ring", "clumpy") and rng.random() < 0.35):
        bar, lane = _bar(rng, p, bar_length, rng.uniform(0, math.pi))
        layers.old = layers.old + bar * rng.uniform(0.5, 2.2)
        layers.young = layers.young + 0.4 * bar * rng.uniform(0.0, 0.6)
        layers.dust = layers.dust + lane * rng.uniform(0.0, 0.9)
    if kind == "ring" or (kind == "barred" and rng.random() < 0.3):
        ring = _ring(rng, p, bar_length * 1.05 if kind == "barred" else rng.uniform(0.6, 2.6))
        level = rng.uniform(0.1, 0.6)
        layers.old = layers.old + 0.6 * level * ring
        layers.young, layers.dust = layers.young + 2.0 * level * ring, layers.dust + level * ring
    _roughen(rng, p, layers, kind, pitch)
    young_share = _young_share(rng, kind)
    tau = _optical_depth(rng) * (0.25 if kind == "lenticular" else 1.0) * layers.dust
    if rng.random() < 0.35:  # a break in the outer disc
        edge = 1.0 / (1.0 + np.exp((p.r - rng.uniform(2.2, 4.0)) / 0.25))
        layers.old, layers.young, tau = layers.old * edge, layers.young * edge, tau * edge
    thick = rng.uniform(0.12, 0.36) if kind == "clumpy" else rng.uniform(0.07, 0.28)
    return Disc(_assemble(p, layers.old, layers.young, tau), p.step_pix, scale_pix, young_share, thick)


def _smooth_layers(rng: np.random.Generator, p: _Plane, inner: float) -> _Layers:
    """Nearly exponential layers, cored; young stars and dust are depleted inside ``inner``."""
    core = rng.uniform(0.0, 0.7)
    steep = rng.uniform(0.9, 1.35)
    old = np.exp(-(np.hypot(p.r, core) ** steep))
    young = np.exp(-p.r / rng.uniform(0.9, 1.5))
    hole = 1.0 - rng.uniform(0.0, 0.8) * np.exp(-((p.r / inner) ** 2))
    return _Layers(old, young * hole, np.exp(-p.r / rng.uniform(0.9, 1.6)) * hole)


def _add_arms(
    rng: np.random.Generator, p: _Plane, layers: _Layers, kind: str, pitch: float, inner: float
) -> None:
    """Spiral arms: strong in young stars, weaker in old ones, dust along their inner edges."""
    strength = rng.uniform(0.1, 0.3) if kind == "clumpy" else rng.uniform(0.25, 0.95)
    if kind == "flocculent":
        strength *= 0.35
    arms, lanes = _arms(rng, p, pitch, inner)
    layers.old = layers.old * (1.0 + 1.4 * strength * strength * rng.uniform(0.5, 1.6) * (arms - 0.3))
    layers.young = layers.young * ((1.0 - strength) + 3.5 * strength * arms)
    layers.dust = layers.dust * (1.0 - 0.8 * strength + 3.0 * strength * lanes)


def _roughen(rng: np.random.Generator, p: _Plane, layers: _Layers, kind: str, pitch: float) -> None:
    """Sheared patches, dust filaments, lopsidedness and clumps; young stars then sum to 1."""
    rough = {"flocculent": rng.uniform(0.4, 1.1), "clumpy": rng.uniform(0.3, 0.9)}.get(
        kind, 0.05 + 0.75 * rng.beta(1.2, 2.2)
    )
    if kind == "lenticular":
        rough = 0.1
    young = layers.young * np.exp(rough * sheared_field(rng, p.log_r, p.phi, pitch, 2.6))
    filaments = sheared_field(rng, p.log_r, p.phi, pitch, 2.4)
    layers.dust = layers.dust * np.exp(rng.uniform(0.2, 0.9) * filaments - 0.3)
    tilt = abs(rng.normal(0.0, 0.2 if rng.random() < 0.2 else 0.06))
    lopsided = 1.0 + np.tanh(tilt * p.r * np.cos(p.phi - rng.uniform(0, 6.28)))
    layers.old = np.clip(layers.old, 0, None) * lopsided
    layers.young = _add_clumps(rng, p, _unit_sum(np.clip(young, 0, None) * lopsided), kind)


def _young_share(rng: np.random.Generator, kind: str) -> float:
    """Share of the red light that young stars give."""
    by_kind = {"lenticular": rng.uniform(0.0, 0.06), "disc": rng.uniform(0.02, 0.35)}
    share = by_kind.get(kind, rng.uniform(0.08, 0.6))
    return rng.uniform(0.3, 0.8) if kind == "clumpy" else share


def _add_clumps(rng: np.random.Generator, p: _Plane, young: np.ndarray, kind: str) -> np.ndarray:
    if kind == "lenticular":
        return young
    if kind in ("clumpy", "irregular"):
        count, share = int(rng.integers(6, 60)), 0.08 + 0.6 * rng.beta(1.3, 2.0)
        size = rng.uniform(0.06, 0.18)
    else:
        count, share = int(rng.integers(30, 300)), 0.45 * rng.beta(1.0, 3.0)
        size = rng.uniform(0.03, 0.09)
    clumps = clump_map(rng, young, count, rng.uniform(1.6, 2.2), size * p.unit_pix)
    return np.asarray((1.0 - share) * young + share * clumps)


def irregular_disc(rng: np.random.Generator, scale_pix: float) -> Disc:
    """A thick, off-centre, patchy disc without ordered structure."""
    p = _Plane(scale_pix, min(5.0, 88.0 / scale_pix))
    patch = random_field(rng, MAP_SIZE, rng.uniform(2.8, 3.8), k_low=rng.uniform(3.0, 7.0))
    other = random_field(rng, MAP_SIZE, 3.0, k_low=4.0)
    dx, dy = rng.normal(0.0, 0.3 if rng.random() < 0.3 else 0.12, 2)
    q = rng.uniform(0.4, 1.0)
    steep = rng.uniform(1.0, 1.8)
    r_old = np.hypot(p.x, p.y / max(q, 0.55))
    r_young = np.hypot(p.x - dx, (p.y - dy) / q)
    old = np.exp(-(r_old**steep) / 1.2 + rng.uniform(0.0, 0.35) * other)
    young = np.exp(-(r_young**steep) / 1.2 + rng.uniform(0.2, 0.9) * patch)
    if rng.random() < 0.25:  # a single bent arm, tadpole or comma
        arm, _ = _arms(rng, p, math.radians(rng.uniform(15, 45)), 0.3)
        young = young * (0.3 + 2.5 * arm)
        old = old * (0.7 + 0.8 * arm)
    young = _add_clumps(rng, p, _unit_sum(young), "irregular")
    tau = _optical_depth(rng) * np.exp(-p.r / 1.3 + 0.6 * random_field(rng, MAP_SIZE, 3.0, k_low=6.0) - 0.3)
    young_share, thick = rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.5)
    return Disc(_assemble(p, old, young, tau), p.step_pix, scale_pix, young_share, thick)


def disc_geometry(rng: np.random.Generator, disc: Disc, x_pix: float, y_pix: float) -> DiscGeometry:
    """A random view: isotropic inclination, a mild warp, layers of old stars, young stars and dust."""
    inclination = math.acos(rng.uniform(0.0, 1.0))
    height = max(disc.thickness * disc.scale_pix, 0.8)
    warp = rng.normal(0.0, 0.04) if rng.random() < 0.6 else rng.normal(0.0, 0.13)
    return DiscGeometry(
        inclination=inclination,
        position_angle=rng.uniform(0.0, 2.0 * math.pi),
        x_pix=x_pix,
        y_pix=y_pix,
        height_old_pix=height,
        height_young_pix=max(height * rng.uniform(0.4, 0.8), 0.6),
        height_dust_pix=max(height * rng.uniform(0.15, 0.4), 0.45),
        warp=warp if disc.thickness < 0.25 else 0.0,
        warp_phase=rng.uniform(0.0, 2.0 * math.pi),
    )
