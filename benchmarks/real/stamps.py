"""How much light of real galaxies stamps lose, what of that is noticed, and what it does to the numbers.

    python benchmarks/real/stamps.py --data shared/data [--first 0]

HST galaxies, every fifth from FIRST, and TNG50 galaxies (SKIRT, band r), brought to half-light radii of 4
to 40 pixels on 512, in noise (correlation of neighbours 0.25) at a peak S/N of 5 to 300, cut at 64, 96 and
128 pixels.
Printed: how many are said to outgrow their stamp, by the share of their light that is outside; and, at 128
pixels, flux and half-light radius measured in the stamp (no noise, segment of the noisy data) over those
measured in all of the image, by the Petrosian radius over half of the stamp's side.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from galbatch.cutouts import outgrows
from galbatch.cutouts.neighbours import segment
from galbatch.morphology import measure
from galbatch.training.sources import read_images

SIZE, SIDES, RADII, PEAKS = 512, (64, 96, 128), (4, 8, 14, 20, 28, 40), (5, 10, 50, 300)
LOST = (0.0, 0.005, 0.02, 0.05, 0.1, 1.0)
PETRO = (0.0, 0.6, 0.65, 0.71, 0.8, 0.9, 1.0, 3.0)
FAR = (0.05, 0.1)  # relative errors of flux and radius that are too large


def truths(data: Path, first: int) -> Iterator[np.ndarray]:
    """Images without noise, of unit flux, for each galaxy and radius."""
    with np.load(data / "hst_galaxies/hst_candels_201x3_192px_0.06arcsec.npz") as file:
        images = list(file["images"][first::5, 1])
    images += [
        read_images(path)[0].flux[1] for path in sorted((data / "tng/tng50_skirt_sdss").glob("*.fits"))
    ]
    for image in images:
        light = np.nan_to_num(image).clip(min=0).astype(float)
        centre = np.array(ndimage.center_of_mass(light))
        y, x = np.indices(light.shape)
        r = np.hypot(y - centre[0], x - centre[1]).ravel()
        order = np.argsort(r)
        half = r[order][np.searchsorted(np.cumsum(light.ravel()[order]), light.sum() / 2)]
        for radius in RADII:
            step = max(half, 1.0) / radius
            grid = dict(offset=centre - step * SIZE / 2, output_shape=(SIZE, SIZE), order=1)
            out = ndimage.gaussian_filter(ndimage.affine_transform(light, np.eye(2) * step, **grid), 1.3)
            yield out / out.sum()


def cut(image: np.ndarray, side: int) -> np.ndarray:
    middle = np.s_[SIZE // 2 - side // 2 : SIZE // 2 + side // 2]
    return image[middle, middle]


def numbers(truth: np.ndarray, seg: np.ndarray) -> np.ndarray:
    found = measure((1e3 * truth[None]).astype("f4"), 1.0, segmap=(seg == 1).astype(int)[None], sky_sigma=0.0)
    return np.array([found[name][0] for name in ("flux_njy", "r_half", "r_petro")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    options, rng = parser.parse_args(), np.random.default_rng(11)
    noticed, measured = [], []
    for truth in truths(options.data, options.first):
        for peak in PEAKS:
            noise = ndimage.gaussian_filter(rng.normal(size=truth.shape), 0.6)
            image = (truth * (peak / truth.max()) + noise / noise.std()).astype("f4")
            for side in SIDES:
                stamp, lost = cut(image, side), 1 - cut(truth, side).sum()
                one, no = np.ones_like(stamp), np.zeros(stamp.shape, bool)
                seg, _ = segment(stamp, one, no)
                noticed.append((peak, lost, outgrows(stamp, one, seg < 2)))
                if side == SIDES[-1] and lost > LOST[1] and peak in (10, 50):
                    whole, _ = segment(image, np.ones_like(image), np.zeros(image.shape, bool))
                    inside = numbers(cut(truth, side), seg)
                    ratio = inside[:2] / numbers(truth, whole)[:2] - 1
                    measured.append((inside[2] / (side / 2), *ratio, noticed[-1][2]))
    peaks, lost, found = np.array(noticed).T
    print("peak S/N | lost: " + " | ".join(f"{a:g} to {b:g}" for a, b in pairwise(LOST)))
    for peak in PEAKS:
        of = [(peaks == peak) & (lost >= a) & (lost < b) for a, b in pairwise(LOST)]
        print(f"{peak} | " + " | ".join(f"{int(found[m].sum())} of {m.sum()}" for m in of))
    petro, flux, radius, told = np.array(measured).T
    far = (np.abs(flux) > FAR[0]) | (np.abs(radius) > FAR[1])
    print(f"r_petro / half side | outgrows | n | flux - 1 | r_half - 1 | off by {FAR[0]:.0%} or {FAR[1]:.0%}")
    for a, b in pairwise(PETRO):
        for yes in (1, 0):
            m = (petro >= a) & (petro < b) & (told == yes)
            if m.any():
                middle = f"{np.median(flux[m]):+.3f} | {np.median(radius[m]):+.3f}"
                print(f"{a:g} to {b:g} | {'yes' if yes else 'no'} | {m.sum()} | {middle} | {far[m].sum()}")


if __name__ == "__main__":
    main()
