"""Pictures of a source in colour: RGB images of its draws (Lupton et al. 2004, PASP 116, 133).

The longest wavelength is red, the shortest blue; green is the one in the middle, or the mean of two. The
three share one stretch in nJy per pixel, so that a grey pixel is as bright in each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from galbatch.errors import InputError
from galbatch.forward import wavelength_um
from galbatch.report.figure import Picture
from galbatch.store import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_DRAWS = 4
_Q = 8.0  # of asinh: how far the bright end is compressed


def blue_to_red(run: Run) -> list[int]:
    """Places of the bands by wavelength; in the order of the run where a name does not say."""
    waves = run.layout.wavelength_um or tuple(wavelength_um(band) or np.nan for band in run.bands)
    return list(range(len(waves))) if np.isnan(waves).any() else np.argsort(waves, kind="stable").tolist()


def rgb(images: np.ndarray, sky: float) -> np.ndarray:
    """(H, W, 3) uint8 of images (c, H, W) from blue to red, at least two, ``sky`` the noise per pixel."""
    from astropy.visualization import make_lupton_rgb

    planes = np.nan_to_num(images)
    green = planes[len(planes) // 2] if len(planes) > 2 else planes.mean(axis=0)
    peak = max(float(np.quantile(planes, 0.999)), 10 * sky) or 1.0
    return make_lupton_rgb(planes[-1], green, planes[0], minimum=-sky, stretch=peak / 2, Q=_Q)


def sky_of(run: Run, source_id: int | str) -> float:
    """The noise per fine pixel of the noisiest band, nJy."""
    return max(run.sky_noise(source_id, band) for band in run.bands)


def picture_of_mean(run: Run, source_id: int | str) -> np.ndarray:
    """(H, W, 3) uint8 of the posterior mean in all bands."""
    return rgb(run.mean(source_id)[blue_to_red(run)], sky_of(run, source_id))


def figure_colours(run: Run, source_id: int | str) -> Figure:
    """Observed pixels, posterior mean and draws in colour, and the colour of the bluest and reddest band with
    its error. Raises ``InputError`` for a run of one band."""
    if len(run.bands) < 2:
        raise InputError(f"{run.paths.root} has one band, {run.bands[0]}: a picture in colour needs two.")
    order = blue_to_red(run)
    names = [run.bands[i] for i in order]
    draws = run.samples(source_id)[:SHOWN_DRAWS, order]
    fine = run.layout.oversample**2
    images = {"Observed": run.observed(source_id)[order] / fine, "Posterior mean": run.mean(source_id)[order]}
    images |= {f"Draw {k + 1}": draw for k, draw in enumerate(draws)}
    fig = Picture(figsize=(1.9 * (len(images) + 2), 2.5), facecolor="white", dpi=150)
    axes = fig.subplots(1, len(images) + 2)
    for axis, (title, image) in zip(axes, images.items(), strict=False):
        axis.imshow(rgb(image, sky_of(run, source_id)), origin="lower")
        axis.set_title(title, fontsize=8)
    middle, error = run.color_map(source_id, names[0], names[-1])
    for axis, image, title, colours in (
        (axes[-2], middle, f"{names[0]} - {names[-1]}", "RdYlBu_r"),
        (axes[-1], error, "its error (mag)", "cividis"),
    ):
        shown = axis.imshow(image, origin="lower", cmap=colours)
        axis.set_title(title, fontsize=8)
        fig.colorbar(shown, ax=axis, fraction=0.046).ax.tick_params(labelsize=6)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    fig.suptitle(f"Source {source_id}: {', '.join(names)}", fontsize=9)
    return fig
