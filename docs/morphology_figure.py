"""The figure of docs/morphology.md: python docs/morphology_figure.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from scipy.ndimage import gaussian_filter

from galbatch.morphology import measure_posterior

matplotlib.use("Agg")
import matplotlib.pyplot as plt

N, OUT = 64, Path(__file__).parent / "images" / "morphology.png"
SEEING, TARGET = 1.8, 2.0 / 2.3548
PANELS = {
    "asymmetry": "asymmetry",
    "gini": "Gini",
    "concentration": "concentration",
    "r_half": "r_half [arcsec]",
}


def galaxy():
    """A disc with clumps and a companion, before any PSF, flux 1 at its peak."""
    y, x = np.mgrid[:N, :N].astype(float)
    image = np.exp(-np.hypot(x - 31.2, 1.5 * (y - 32.1)) / 4.5)
    for cx, cy, flux in ((26, 31, 0.5), (36, 34, 0.6), (33, 28, 0.4), (41, 37, 0.35), (24, 35, 0.3)):
        image += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 1.5)
    return image


def main():
    rng = np.random.default_rng(0)
    truth, seen = gaussian_filter(galaxy(), TARGET), gaussian_filter(galaxy(), SEEING)
    sn = np.geomspace(3, 300, 24)
    sigma = seen.max() / sn
    data = seen + sigma[:, None, None] * rng.normal(size=(len(sn), N, N))
    segment = (gaussian_filter(seen, 1) > 0.04).astype(np.int32)
    noise = np.broadcast_to(sigma[:, None, None], data.shape)
    draws, observed = measure_posterior(
        np.repeat(truth[None, None], len(sn), 0),
        data,
        noise,
        None,
        np.repeat(segment[None], len(sn), 0),
        None,
        0.03,
    )
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for row, (image, title) in enumerate(
        ((data[8], f"observed, peak S/N {sn[8]:.0f}"), (truth, "noise-free, target PSF"))
    ):
        axes[row, 0].imshow(np.arcsinh(8 * image), origin="lower", cmap="magma")
        axes[row, 0].contour(segment, [0.5], colors="white", linewidths=0.8)
        axes[row, 0].set(title=title, xticks=[], yticks=[])
    axes[0, 3].imshow(np.arcsinh(8 * data[-1]), origin="lower", cmap="magma")
    axes[0, 3].set(title=f"observed, peak S/N {sn[-1]:.0f}", xticks=[], yticks=[])
    places = (axes[0, 1], axes[0, 2], axes[1, 1], axes[1, 2])
    for place, (name, label) in zip(places, PANELS.items(), strict=True):
        place.semilogx(sn, observed[name], "o", color="0.5", label="classical")
        place.semilogx(sn, draws[name][:, 0], "-", color="tab:orange", lw=2, label="draw's definition")
        place.set(xlabel="peak S/N per pixel", ylabel=label)
    axes[0, 1].legend(frameon=False)
    axes[1, 3].loglog(sn, observed["sn_per_pixel"], "o", color="0.5")
    axes[1, 3].set(xlabel="peak S/N per pixel", ylabel="sn_per_pixel")
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
