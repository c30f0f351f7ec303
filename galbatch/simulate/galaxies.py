"""Mock galaxies of every kind: noise-free, PSF-free images in a blue and a red band, or at any wavelengths.

``simulate_galaxies(n, seed)`` gives the same galaxy for the same (seed, index) whatever the batch. Seeds
below 10,000 are for training; validation and the demo use seeds of 1,000,000 and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from galbatch.simulate.discs import disc_geometry, irregular_disc, spiral_disc
from galbatch.simulate.mergers import merger_images
from galbatch.simulate.parts import Spheroid, paint_point, paint_shells, paint_spheroid, softened
from galbatch.simulate.projection import DiscGeometry, front_fraction, project_disc
from galbatch.simulate.spectra import BLUE_UM, RED_UM, Light

KINDS = {
    "spiral": 0.14,
    "barred": 0.12,
    "flocculent": 0.10,
    "clumpy": 0.08,
    "ring": 0.04,
    "disc": 0.13,
    "lenticular": 0.08,
    "irregular": 0.09,
    "merger": 0.09,
    "elliptical": 0.10,
    "shell": 0.03,
}
"""Kinds of galaxy and their share: roughly what JWST sees at redshifts 0.5 to 4."""

PROPERTIES = np.dtype(
    [
        ("index", "i8"),
        ("seed", "i8"),
        ("kind", "U12"),
        ("inclination_deg", "f4"),
        ("r_half_pix", "f4"),
        ("bulge_share", "f4"),
        ("young_share", "f4"),
        ("agn_share", "f4"),
        ("companions", "i4"),
        ("blue_over_red", "f4"),
    ]
)


def galaxy_generator(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one galaxy: they depend on (seed, index) alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, index, 0x6A1]))


def draw_kind(rng: np.random.Generator) -> str:
    """A kind of galaxy, with the shares of ``KINDS``."""
    return str(rng.choice(list(KINDS), p=np.array(list(KINDS.values())) / sum(KINDS.values())))


def simulate_galaxies(
    n: int,
    seed: int,
    npix: int = 128,
    start: int = 0,
    kinds: list[str] | None = None,
    wavelengths_um: Sequence[float] | None = None,
    law: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate galaxies ``start`` to ``start + n`` of the series ``seed``.

    Returns images (n, bands, npix, npix) float32, flux per pixel, and a structured array (n,) of
    ``PROPERTIES``. The bands are blue and red, or those of ``wavelengths_um`` (micron, as emitted); the red
    band sums to 1, seen or not. ``kinds`` restricts to those kinds, cycled by index.
    ``law`` 1 is what the shipped priors were trained on, 2 is closer to TNG and HST galaxies (``softened``).
    Sizes scale with ``npix``: half-light radii are about 6 to 22 pixels of 128.
    """
    bands = 2 if wavelengths_um is None else len(wavelengths_um)
    images = np.zeros((n, bands, npix, npix), dtype=np.float32)
    table = np.zeros(n, dtype=PROPERTIES)
    for row in range(n):
        index = start + row
        kind = None if kinds is None else kinds[index % len(kinds)]
        images[row], table[row] = simulate_galaxy(seed, index, npix, kind, wavelengths_um, law)
    return images, table


def simulate_galaxy(
    seed: int,
    index: int,
    npix: int = 128,
    kind: str | None = None,
    wavelengths_um: Sequence[float] | None = None,
    law: int = 1,
) -> tuple[np.ndarray, np.void]:
    """One galaxy: (bands, npix, npix) float32 and its row of properties. See ``simulate_galaxies``."""
    own = None if wavelengths_um is None else galaxy_generator(seed, index + 2**33)
    light = Light((BLUE_UM, RED_UM) if wavelengths_um is None else wavelengths_um, own)
    rng = galaxy_generator(seed, index)
    drawn = draw_kind(rng)
    kind = kind or drawn
    row: Any = np.zeros((), dtype=PROPERTIES)
    row["index"], row["seed"], row["kind"] = index, seed, kind
    row["inclination_deg"] = np.nan
    x, y = 0.5 * (npix - 1) + rng.normal(0.0, 0.8, 2)
    at = _Place(kind, npix, x, y, row, light)
    if kind == "merger":
        images = merger_images(rng, npix, row, light)
    elif kind in ("elliptical", "shell"):
        images = _spheroidal(rng, at)
        row["bulge_share"] = 1.0
    else:
        images = _disc_galaxy(rng, at)
    images = _companions(rng, images, at)
    if law == 2:
        images = images.clip(0, None)
        own = galaxy_generator(seed, index + 2**35)
        images = softened(own, images, half_light_radius(images[light.reference]))
    images = _active_nucleus(rng, images, at)
    images = np.clip(images, 0.0, None)
    images /= images[light.reference].sum(dtype=np.float64)
    row["r_half_pix"] = half_light_radius(images[light.reference])
    row["blue_over_red"] = images[0].sum()
    return images[: light.n].astype(np.float32), row


@dataclass(frozen=True)
class _Place:
    """Where a galaxy of some kind lies on an image of ``npix`` a side, the row of its properties, and the
    light that it is seen in."""

    kind: str
    npix: int
    x: float
    y: float
    row: np.void
    light: Light

    @property
    def unit(self) -> float:
        """Pixels to one of 128."""
        return self.npix / 128.0


def half_light_radius(image: np.ndarray, centre: tuple[float, float] | None = None) -> float:
    """Radius (pixels) about ``centre`` (y, x), the flux centroid if None, with half of the light (H, W)."""
    y, x = np.indices(image.shape)
    total = image.sum(dtype=np.float64)
    cy, cx = centre or ((image * y).sum() / total, (image * x).sum() / total)
    radius = np.hypot(y - cy, x - cx).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(image.ravel()[order], dtype=np.float64)
    return float(radius[order][np.searchsorted(growth, 0.5 * total).clip(max=radius.size - 1)])


def _scale(rng: np.random.Generator, unit: float, low: float, high: float) -> float:
    """A half-light radius: log-normal about 11 pixels of 128, within [low, high]."""
    return float(np.clip(math.exp(rng.normal(math.log(11.0), 0.36)), low, high) * unit)


def _disc_galaxy(rng: np.random.Generator, at: _Place) -> np.ndarray:
    kind, npix, light = at.kind, at.npix, at.light
    scale = 1.3 * _scale(rng, at.unit, 6.0, 18.5) / 1.68
    disc = irregular_disc(rng, scale) if kind == "irregular" else spiral_disc(rng, scale, kind)
    geometry = disc_geometry(rng, disc, at.x, at.y)
    ratios = light.optical_depth()
    planes = project_disc(disc.maps, disc.step_pix, geometry, npix, ratios)
    share = disc.young_share
    old, young = light.old(rng.uniform(0.25, 0.55)), light.young(rng.uniform(0.9, 1.5))
    images = [
        (1.0 - share) * a * planes[2 * j] + share * b * planes[2 * j + 1]
        for j, (a, b) in enumerate(zip(old, young, strict=True))
    ]
    top = {"lenticular": 0.7, "irregular": 0.08, "clumpy": 0.25}.get(kind, 0.45)
    bulge_share = top * rng.beta(0.9, 2.4)
    if bulge_share > 0.02:
        bulge = _bulge(rng, geometry, scale, npix) * np.float32(bulge_share / (1.0 - bulge_share))
        front = front_fraction(geometry, npix)
        for j, (a, ratio) in enumerate(zip(old, ratios, strict=True)):
            images[j] = images[j] + a * bulge * (front + (1.0 - front) * np.exp(-ratio * planes[-1]))
    if rng.random() < 0.5:
        halo = _halo(rng, geometry, scale, npix)
        halo = halo * np.float32(images[light.reference].sum() * rng.uniform(0.05, 0.6))
        images = [image + a * halo for image, a in zip(images, old, strict=True)]
    at.row["inclination_deg"] = math.degrees(geometry.inclination)
    at.row["bulge_share"], at.row["young_share"] = bulge_share, share
    return np.stack(images)


def _flattening(q0: float, geometry: DiscGeometry) -> float:
    """Apparent axis ratio of an oblate spheroid of axis ratio ``q0``."""
    return math.sqrt((q0 * math.sin(geometry.inclination)) ** 2 + math.cos(geometry.inclination) ** 2)


def _bulge(rng: np.random.Generator, geometry: DiscGeometry, scale: float, npix: int) -> np.ndarray:
    """A bulge of flux 1: Sersic index about 1.6, a third of the disc's scale length."""
    q = _flattening(rng.uniform(0.5, 0.95), geometry)
    n = float(np.clip(rng.lognormal(math.log(1.6), 0.5), 0.6, 5.0))
    r_eff = max(float(np.clip(rng.lognormal(math.log(0.35), 0.45), 0.08, 1.0)) * scale, 0.5)
    return paint_spheroid(
        Spheroid(geometry.x_pix, geometry.y_pix, r_eff, n, q, geometry.position_angle), npix
    )


def _halo(rng: np.random.Generator, geometry: DiscGeometry, scale: float, npix: int) -> np.ndarray:
    """A thick disc or stellar halo of flux 1."""
    q = _flattening(rng.uniform(0.35, 0.9), geometry)
    r_eff = scale * 1.68 * rng.uniform(0.9, 1.7)
    n = rng.uniform(0.8, 2.2)
    return paint_spheroid(
        Spheroid(geometry.x_pix, geometry.y_pix, r_eff, n, q, geometry.position_angle), npix
    )


def _spheroidal(rng: np.random.Generator, at: _Place) -> np.ndarray:
    npix, x, y, light = at.npix, at.x, at.y, at.light
    r_eff = _scale(rng, at.unit, 4.5, 14.0)
    n = float(np.clip(rng.lognormal(math.log(2.3), 0.45), 0.8, 6.5))
    q, angle = rng.uniform(0.45, 1.0), rng.uniform(0.0, 2.0 * math.pi)
    boxy = float(np.clip(rng.normal(2.0, 0.12), 1.7, 2.5)) if rng.random() < 0.5 else 2.0
    body = Spheroid(x, y, r_eff * (3.0 / (n + 2.0)) ** 0.5, n, q, angle, boxy, rng.normal(0.0, 0.15))
    stars = paint_spheroid(body, npix)
    images = np.stack([a * stars for a in light.old(rng.uniform(0.2, 0.5))])
    if rng.random() < 0.4:  # a second, bluer or redder component of another shape
        share = rng.uniform(0.05, 0.4)
        size, own_n, own_q = r_eff * rng.uniform(0.3, 2.0), rng.uniform(0.7, 2.0), rng.uniform(0.3, 1.0)
        extra = Spheroid(x, y, size, own_n, own_q, angle + rng.normal(0, 0.4))
        component = paint_spheroid(extra, npix)
        images = images + np.stack([share * a * component for a in light.old(rng.uniform(0.2, 1.2))])
    if at.kind == "shell":
        shells = paint_shells(rng, body, npix)
        share = rng.uniform(0.03, 0.16)
        images = images + np.stack([share * a * shells for a in light.old(rng.uniform(0.3, 0.6))])
    if rng.random() < 0.12:  # a dust lane
        yy, xx = np.indices((npix, npix))
        lane = rng.uniform(0.0, 2.0 * math.pi)
        v = -(xx - x) * math.sin(lane) + (yy - y) * math.cos(lane) - rng.normal(0.0, 0.05) * r_eff
        u = (xx - x) * math.cos(lane) + (yy - y) * math.sin(lane)
        depth = rng.uniform(0.3, 1.5) * np.exp(-((v / (0.18 * r_eff)) ** 2) - (u / (1.5 * r_eff)) ** 2)
        images = images * np.stack([np.exp(-ratio * depth) for ratio in light.optical_depth()])
    return images


def _companions(rng: np.random.Generator, images: np.ndarray, at: _Place) -> np.ndarray:
    """Small neighbours, from faint satellites to near equals."""
    if at.kind == "merger" or rng.random() > 0.16:
        return images
    total = float(images[at.light.reference].sum())
    for _ in range(1 + int(rng.random() < 0.25)):
        distance, angle = rng.uniform(12.0, 50.0) * at.unit, rng.uniform(0.0, 2.0 * math.pi)
        shape = Spheroid(
            at.x + distance * math.cos(angle),
            at.y + distance * math.sin(angle),
            rng.lognormal(math.log(2.5), 0.5) * at.unit,
            rng.uniform(0.7, 3.5),
            rng.uniform(0.35, 1.0),
            rng.uniform(0.0, math.pi),
        )
        flux = total * math.exp(rng.uniform(math.log(0.01), math.log(0.5)))
        image = paint_spheroid(shape, at.npix) * np.float32(flux)
        colours = np.array(at.light.old(rng.uniform(0.2, 1.3)), dtype=np.float32)
        images = images + image * colours[:, None, None]
        at.row["companions"] += 1
    return images


def _active_nucleus(rng: np.random.Generator, images: np.ndarray, at: _Place) -> np.ndarray:
    """A point source at the nucleus in one galaxy of fifteen."""
    if at.kind == "merger" or rng.random() > 0.065:
        return images
    share = math.exp(rng.uniform(math.log(0.02), math.log(0.6)))
    flux = share / (1.0 - share) * float(images[at.light.reference].sum())
    point = paint_point(at.x, at.y, at.npix) * np.float32(flux)
    at.row["agn_share"] = share
    colours = np.array(at.light.power_law(rng.uniform(0.3, 1.4)), dtype=np.float32)
    return images + point * colours[:, None, None]
