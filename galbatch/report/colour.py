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
    return make_lupton_rgb(planes[-1], green, planes[0], minimum=-sky, stretch=max(peak / 10, 5 * sky), Q=_Q)


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
    fig = Picture(figsize=(9, 4.8), facecolor="white", dpi=150)
    above, below = fig.subplots(2, 4)
    shown = [*images.items(), *((f"Draw {k + 1}", draw) for k, draw in enumerate(draws))]
    for axis, (title, image) in zip([*above[:2], *below], shown, strict=False):
        axis.imshow(rgb(image, sky_of(run, source_id)), origin="lower")
        axis.set_title(title, fontsize=9)
    middle, error = run.color_map(source_id, names[0], names[-1])
    for axis, image, title, colours in (
        (above[2], middle, f"{names[0]} - {names[-1]} [mag]", "RdYlBu_r"),
        (above[3], error, "its error [mag]", "cividis"),
    ):
        ends = np.nanpercentile(image, [2, 98]) if np.isfinite(image).any() else (0, 1)
        drawn = axis.imshow(image, origin="lower", cmap=colours, vmin=ends[0], vmax=ends[1])
        axis.set_title(title, fontsize=9)
        axis.set_facecolor("#dddddd")
        fig.colorbar(drawn, cax=axis.inset_axes([1.03, 0, 0.05, 1])).ax.tick_params(labelsize=7)
    for axis in (*above, *below):
        axis.set(xticks=[], yticks=[])
    fig.subplots_adjust(left=0.01, right=0.94, bottom=0.02, top=0.87, wspace=0.34, hspace=0.12)
    fig.suptitle(f"Source {source_id}: {', '.join(names)}", fontsize=10)
    return fig
