"""Images of merging galaxies: two encountering discs with tails and bridges, their bulges and their dust."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from .encounter import EXTENT, N_AZIMUTH, N_RADIUS, Orbit, deposit_sheet, run_encounter
from .spheroids import Spheroid, paint_spheroid
from .texture import random_field


def _draw_orbit(rng: np.random.Generator) -> Orbit:
    late = rng.random() < 0.45  # coalescing: double nuclei, plumes
    return Orbit(
        mass_ratio=math.exp(rng.uniform(math.log(0.12), 0.0)),
        pericentre=rng.uniform(0.8, 3.0) if late else rng.uniform(1.5, 6.0),
        time_since=rng.uniform(22.0, 55.0) if late else rng.uniform(1.0, 24.0),
        friction=rng.uniform(0.02, 0.1) if late else rng.uniform(0.0, 0.05),
    )


def _draw_tilt(rng: np.random.Generator) -> tuple[float, float]:
    """Inclination to the orbit and node (radians): half of the discs turn with the orbit, as tails need."""
    if rng.random() < 0.55:
        return abs(rng.normal(0.0, 0.5)), rng.uniform(0.0, 2.0 * math.pi)
    return math.acos(rng.uniform(-1.0, 1.0)), rng.uniform(0.0, 2.0 * math.pi)


def _sheet_weights(rng: np.random.Generator) -> np.ndarray:
    """Old light, young light, dust of a disc's cells: (3, N_RADIUS - 1, N_AZIMUTH), each summing to 1."""
    radius = np.linspace(0.02, 1.0, N_RADIUS) ** 1.3 * EXTENT
    middle, width = 0.5 * (radius[1:] + radius[:-1]), np.diff(radius)
    mass = middle * width
    texture = random_field(rng, N_AZIMUTH, 3.4, k_low=4.0)[: N_RADIUS - 1]
    old = (mass * np.exp(-middle))[:, None] * np.ones(N_AZIMUTH)
    young = (mass * np.exp(-middle / rng.uniform(1.0, 1.6)))[:, None] * np.exp(
        rng.uniform(0.2, 0.9) * texture
    )
    dust = (mass * np.exp(-middle / 1.2))[:, None] * np.exp(0.6 * texture)
    return np.stack([old / old.sum(), young / young.sum(), dust / dust.sum()])


def _view(rng: np.random.Generator) -> np.ndarray:
    """A random rotation, somewhat in favour of views from above the orbit, where tails show."""
    cos_i = rng.uniform(0.0, 1.0) ** 0.7
    a, b = rng.uniform(0.0, 2.0 * math.pi, 2)
    sin_i = math.sqrt(1.0 - cos_i * cos_i)
    turn = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, cos_i, -sin_i], [0, sin_i, cos_i]])
    spin = np.array([[math.cos(b), -math.sin(b), 0], [math.sin(b), math.cos(b), 0], [0, 0, 1]])
    return np.asarray(spin @ tilt @ turn)


def merger_images(rng: np.random.Generator, npix: int, row: np.void) -> np.ndarray:
    """A merger in (blue, red): (2, npix, npix) float32, unnormalised. Sets ``young_share`` of ``row``."""
    orbit = _draw_orbit(rng)
    sheets, centres, scales = run_encounter(orbit, (_draw_tilt(rng), _draw_tilt(rng)))
    view = _view(rng)
    masses = np.array([1.0, orbit.mass_ratio])
    lights = masses * rng.lognormal(0.0, 0.3, 2)
    sky = [sheet @ view.T for sheet in sheets]
    cores = centres @ view.T
    pixels, origin = _frame(rng, sky, cores, lights, npix)
    middle = 0.5 * (npix - 1)
    planes = np.zeros((3, npix, npix), dtype=np.float32)
    bulges = np.zeros((npix, npix), dtype=np.float32)
    for body in range(2):
        x = (sky[body][..., 0] - origin[0]) * pixels + middle
        y = (sky[body][..., 1] - origin[1]) * pixels + middle
        weights = _sheet_weights(rng) * lights[body]
        layer = np.zeros((3, npix, npix), dtype=np.float32)
        deposit_sheet(layer, np.ascontiguousarray(x), np.ascontiguousarray(y), weights)
        blur = float(np.clip(rng.uniform(0.12, 0.35) * scales[body] * pixels, 0.9, 3.2))
        for c, factor in enumerate((1.0, 0.8, 0.9)):
            planes[c] += gaussian_filter(layer[c], blur * factor)
        share = rng.uniform(0.0, 0.45)
        if share > 0.03:
            spot = (cores[body, :2] - origin) * pixels + middle
            size = max(rng.uniform(0.15, 0.5) * scales[body] * pixels, 0.6)
            shape = Spheroid(
                spot[0], spot[1], size, rng.uniform(1.0, 3.5), rng.uniform(0.6, 1.0), rng.uniform(0, 3.1)
            )
            bulges += np.float32(share / (1 - share) * lights[body]) * paint_spheroid(shape, npix)
    return _colour(rng, planes, bulges, pixels, row)


def _frame(
    rng: np.random.Generator, sky: list[np.ndarray], cores: np.ndarray, lights: np.ndarray, npix: int
) -> tuple[float, np.ndarray]:
    """Pixels per unit of length and the point at the image's centre, so that the pair fits the frame."""
    separation = float(np.hypot(*(cores[0, :2] - cores[1, :2])))
    both = rng.random() < 0.7
    origin = (lights[:, None] * cores[:, :2]).sum(0) / lights.sum() if both else cores[0, :2]
    inner = sky[0][: N_RADIUS // 2, :, :2] - origin
    radius = float(np.median(np.hypot(inner[..., 0], inner[..., 1])))
    wanted = math.exp(rng.normal(math.log(9.0), 0.35)) * npix / 128.0
    pixels = wanted / max(radius, 0.6)
    limit = 0.38 * npix / max(separation, 0.5) if both else 3.0 * npix / 128.0 * 6.0
    return float(
        np.clip(pixels, 1.5 * npix / 128.0, max(min(limit, 9.0 * npix / 128.0), 1.6 * npix / 128.0))
    ), origin


def _colour(
    rng: np.random.Generator, planes: np.ndarray, bulges: np.ndarray, pixels: float, row: np.void
) -> np.ndarray:
    """Stars and a patchy dust mixed with them, in two bands: a slab attenuates by (1 - exp(-tau)) / tau."""
    npix = bulges.shape[0]
    share = rng.uniform(0.1, 0.7)
    old, young, dust = planes
    patches = np.exp(0.6 * random_field(rng, npix, 4.0, k_low=5.0) - 0.2)
    tau = rng.lognormal(math.log(1.2), 0.8) * dust / max(float(np.percentile(dust, 99.7)), 1e-12) * patches
    tau = np.clip(tau, 1e-4, 8.0)
    red_dim, blue_dim = -np.expm1(-tau) / tau, -np.expm1(-1.8 * tau) / (1.8 * tau)
    burst = 1.0 + rng.uniform(0.0, 1.5) * np.clip(young / max(float(np.percentile(young, 99)), 1e-12), 0, 2)
    stars = (1.0 - share) * old + bulges
    fresh = share * young * burst
    row["young_share"] = share
    blue = (rng.uniform(0.25, 0.5) * stars + rng.uniform(0.9, 1.4) * fresh) * blue_dim
    return np.stack([blue, (stars + fresh) * red_dim]).astype(np.float32)
