"""Mergers: two discs, flung apart by a restricted N-body encounter or seen before it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter

from galbatch.simulate.parts import Spheroid, paint_spheroid, random_field
from galbatch.simulate.spectra import Light


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


def merger_images(rng: np.random.Generator, npix: int, row: np.void, light: Light) -> np.ndarray:
    """A merger by band: (bands, npix, npix) float32, unnormalised. Sets ``young_share`` of ``row``."""
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
    return _colour(rng, planes, bulges, light, row)


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
    rng: np.random.Generator, planes: np.ndarray, bulges: np.ndarray, light: Light, row: np.void
) -> np.ndarray:
    """Stars and a patchy dust mixed with them, by band: a slab attenuates by (1 - exp(-tau)) / tau."""
    npix = bulges.shape[0]
    share = rng.uniform(0.1, 0.7)
    old, young, dust = planes
    patches = np.exp(0.6 * random_field(rng, npix, 4.0, k_low=5.0) - 0.2)
    tau = rng.lognormal(math.log(1.2), 0.8) * dust / max(float(np.percentile(dust, 99.7)), 1e-12) * patches
    tau = np.clip(tau, 1e-4, 8.0)
    burst = 1.0 + rng.uniform(0.0, 1.5) * np.clip(young / max(float(np.percentile(young, 99)), 1e-12), 0, 2)
    stars = (1.0 - share) * old + bulges
    fresh = share * young * burst
    row["young_share"] = share
    spectra = light.old(rng.uniform(0.25, 0.5)), light.young(rng.uniform(0.9, 1.4)), light.optical_depth()
    parts = zip(*spectra, strict=True)
    images = [(a * stars + b * fresh) * (-np.expm1(-r * tau) / (r * tau)) for a, b, r in parts]
    return np.stack(images).astype(np.float32)


N_RADIUS, N_AZIMUTH = 56, 120
DT = 0.25
SOFTENING = 0.9
EXTENT = 5.0  # scale lengths


@dataclass(frozen=True)
class Orbit:
    """The encounter: mass ratio, pericentre, time since pericentre, friction that makes the pair merge."""

    mass_ratio: float
    pericentre: float
    time_since: float
    friction: float
    time_before: float = 24.0


@njit(cache=True, fastmath=True)
def _pull(dx: float, dy: float, dz: float, mass: float, soft: float) -> tuple[float, float, float]:
    r2 = dx * dx + dy * dy + dz * dz + soft * soft
    f = -mass / (r2 * math.sqrt(r2))
    return f * dx, f * dy, f * dz


@njit(cache=True)
def _centres(
    pos: np.ndarray,
    vel: np.ndarray,
    m1: float,
    m2: float,
    a1: float,
    a2: float,
    friction: float,
    dt: float,
    steps: int,
) -> np.ndarray:
    """Track (steps + 1, 2, 3) of the two masses by leapfrog; the state advances in place."""
    track = np.zeros((steps + 1, 2, 3))
    soft = math.sqrt(a1 * a1 + a2 * a2)
    for step in range(steps + 1):
        for body in range(2):
            for axis in range(3):
                track[step, body, axis] = pos[body, axis]
        if step == steps:
            break
        for half in range(2):
            d = pos[0] - pos[1]
            f = _pull(d[0], d[1], d[2], 1.0, soft)
            separation = math.sqrt((d * d).sum())
            drag = friction * math.exp(-((separation / 5.0) ** 2))
            for axis in range(3):
                relative = vel[0, axis] - vel[1, axis]
                vel[0, axis] += 0.5 * dt * m2 * (f[axis] - drag * relative)
                vel[1, axis] -= 0.5 * dt * m1 * (f[axis] - drag * relative)
            if half == 0:
                pos += dt * vel
    return track


@njit(cache=True, fastmath=True)
def _advance(
    x: np.ndarray, v: np.ndarray, track: np.ndarray, m1: float, m2: float, a1: float, a2: float, dt: float
) -> None:
    """Leapfrog of test particles x, v (n, 3) in the field of the two tracked masses, in place."""
    steps = track.shape[0] - 1
    for i in range(x.shape[0]):
        px, py, pz = x[i, 0], x[i, 1], x[i, 2]
        vx, vy, vz = v[i, 0], v[i, 1], v[i, 2]
        for s in range(steps + 1):
            a = _pull(px - track[s, 0, 0], py - track[s, 0, 1], pz - track[s, 0, 2], m1, a1)
            b = _pull(px - track[s, 1, 0], py - track[s, 1, 1], pz - track[s, 1, 2], m2, a2)
            kick = dt if 0 < s < steps else 0.5 * dt
            vx += kick * (a[0] + b[0])
            vy += kick * (a[1] + b[1])
            vz += kick * (a[2] + b[2])
            if s < steps:
                px += dt * vx
                py += dt * vy
                pz += dt * vz
        x[i, 0], x[i, 1], x[i, 2] = px, py, pz
        v[i, 0], v[i, 1], v[i, 2] = vx, vy, vz


@njit(cache=True, fastmath=True)
def deposit_sheet(image: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> None:
    """Paint a deformed sheet into ``image`` (c, ny, nx).

    Nodes x, y (nr, nphi) are in pixels; ``weights`` (c, nr - 1, nphi) is each cell's light. Every cell is
    filled by bilinear interpolation with twice as many points per side as it is pixels long.
    """
    ny, nx = image.shape[1], image.shape[2]
    nr, nphi = x.shape
    for i in range(nr - 1):
        for j in range(nphi):
            k = (j + 1) % nphi
            x00, x01, x10, x11 = x[i, j], x[i, k], x[i + 1, j], x[i + 1, k]
            y00, y01, y10, y11 = y[i, j], y[i, k], y[i + 1, j], y[i + 1, k]
            along = max(abs(x01 - x00) + abs(y01 - y00), abs(x11 - x10) + abs(y11 - y10))
            across = max(abs(x10 - x00) + abs(y10 - y00), abs(x11 - x01) + abs(y11 - y01))
            na = min(max(int(2.0 * along) + 1, 2), 60)
            nc = min(max(int(2.0 * across) + 1, 2), 60)
            share = 1.0 / (na * nc)
            for p in range(nc):
                fr = (p + 0.5) / nc
                for q in range(na):
                    fp = (q + 0.5) / na
                    px = (1 - fr) * ((1 - fp) * x00 + fp * x01) + fr * ((1 - fp) * x10 + fp * x11)
                    py = (1 - fr) * ((1 - fp) * y00 + fp * y01) + fr * ((1 - fp) * y10 + fp * y11)
                    ix, iy = math.floor(px), math.floor(py)
                    if ix < 0 or iy < 0 or ix >= nx - 1 or iy >= ny - 1:
                        continue
                    gx, gy = px - ix, py - iy
                    for c in range(image.shape[0]):
                        w = weights[c, i, j] * share
                        image[c, iy, ix] += w * (1 - gx) * (1 - gy)
                        image[c, iy, ix + 1] += w * gx * (1 - gy)
                        image[c, iy + 1, ix] += w * (1 - gx) * gy
                        image[c, iy + 1, ix + 1] += w * gx * gy


def _rotation(inclination: float, node: float) -> np.ndarray:
    ci, si, cn, sn = math.cos(inclination), math.sin(inclination), math.cos(node), math.sin(node)
    tilt = np.array([[1, 0, 0], [0, ci, -si], [0, si, ci]])
    turn = np.array([[cn, -sn, 0], [sn, cn, 0], [0, 0, 1]])
    return np.asarray(turn @ tilt)


def _sheet(mass: float, scale: float, tilt: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (n, 3) of a cold disc, its labels pre-wound so that they end unsheared."""
    soft = SOFTENING * scale
    radius = np.linspace(0.02, 1.0, N_RADIUS) ** 1.3 * EXTENT * scale
    omega = np.sqrt(mass / (radius**2 + soft**2) ** 1.5)
    label = np.arange(N_AZIMUTH) * (2 * math.pi / N_AZIMUTH)
    angle = label[None, :] - (omega * duration)[:, None]
    r = radius[:, None] * np.ones_like(angle)
    x = np.stack([r * np.cos(angle), r * np.sin(angle), 0 * r], -1).reshape(-1, 3)
    speed = (radius * omega)[:, None]
    v = np.stack([-speed * np.sin(angle), speed * np.cos(angle), 0 * r], -1).reshape(-1, 3)
    return x @ tilt.T, v @ tilt.T


def run_encounter(
    orbit: Orbit, tilts: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[list[np.ndarray], np.ndarray, tuple[float, float]]:
    """Integrate the encounter; the orbit lies in the x-y plane and passes pericentre on the x axis.

    Returns the two sheets' final node positions (N_RADIUS, N_AZIMUTH, 3), the final centres (2, 3) and the
    discs' scale lengths. ``tilts`` are (inclination, node) in radians of each disc to the orbital plane.
    """
    m1, m2 = 1.0, orbit.mass_ratio
    scales = (1.0, max(orbit.mass_ratio, 1e-3) ** 0.4)
    a1, a2 = SOFTENING * scales[0], SOFTENING * scales[1]
    total = m1 + m2
    soft2 = a1 * a1 + a2 * a2
    speed = math.sqrt(2.0 * total / math.sqrt(orbit.pericentre**2 + soft2))
    pos = np.array([[m2 / total, 0, 0], [-m1 / total, 0, 0]]) * orbit.pericentre
    vel = np.array([[0, m2 / total, 0], [0, -m1 / total, 0]]) * speed
    back = int(orbit.time_before / DT)
    vel *= -1.0
    _centres(pos, vel, m1, m2, a1, a2, 0.0, DT, back)
    vel *= -1.0
    steps = back + max(int(orbit.time_since / DT), 1)
    first, start_vel = pos.copy(), vel.copy()
    track = _centres(pos, vel, m1, m2, a1, a2, orbit.friction, DT, steps)
    sheets = []
    for body, (mass, scale) in enumerate(zip((m1, m2), scales, strict=True)):
        x, v = _sheet(mass, scale, _rotation(*tilts[body]), steps * DT)
        x, v = np.ascontiguousarray(x + first[body]), np.ascontiguousarray(v + start_vel[body])
        _advance(x, v, track, m1, m2, a1, a2, DT)
        sheets.append(x.reshape(N_RADIUS, N_AZIMUTH, 3))
    return sheets, track[-1], scales
