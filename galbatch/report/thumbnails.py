"""Thumbnail strips for the page: all panels of a source side by side in one small WebP, within a size budget.

The page must stay under 20 MB whatever the size of the run, so the pixels, the draws shown and the
compression of a strip follow from the number of strips.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np

from galbatch.report.figure import BRIGHTNESS_MAP, RESIDUAL_LIMIT, RESIDUAL_MAP
from galbatch.report.view import SourceView

MAX_STRIPS = 10_000  # pictures that the page holds
MAX_NUMBERS = 120_000  # sources times bands whose numbers the page holds
MASKED_RGB = (157, 180, 192)


@dataclass(frozen=True)
class StripPlan:
    """Pixels along a panel's side, draws shown, WebP quality, and whether the last panel is in colour;
    ``titles`` of the panels, left to right."""

    panel_pix: int
    draws: int
    quality: int
    coloured: bool = False

    @property
    def titles(self) -> tuple[str, ...]:
        draws = ("draw",) if self.draws == 1 else tuple(f"draw {k + 1}" for k in range(self.draws))
        colour = ("all bands",) if self.coloured else ()
        return ("observed", "mean", "spread", "residual", *draws, *colour)


def plan_strips(count: int) -> StripPlan:
    """The richest strips that keep ``count`` of them, up to ``MAX_STRIPS``, within 15 MB of base64."""
    if count <= 150:
        return StripPlan(128, 3, 80)
    if count <= 400:
        return StripPlan(64, 3, 80)
    if count <= 1500:
        return StripPlan(64, 3, 65)
    if count <= 4000:
        return StripPlan(48, 2, 60)
    return StripPlan(32, 1, 40)


def encode_strip(view: SourceView, plan: StripPlan, colour: np.ndarray | None = None) -> str:
    """The strip of one source as base64 WebP; ``colour`` (H, W, 3) uint8, its last panel where ``plan`` has
    one."""
    from PIL import Image

    stretch = view.stretch()
    residual = view.residual()
    panels = [
        (stretch(view.observed_sb()), BRIGHTNESS_MAP),
        (stretch(view.sb(view.mean)), BRIGHTNESS_MAP),
        (stretch(view.sb(view.std)), BRIGHTNESS_MAP),
        (
            np.full(view.observed.shape, np.nan)
            if residual is None
            else np.clip(residual / RESIDUAL_LIMIT / 2 + 0.5, 0, 1),
            RESIDUAL_MAP,
        ),
    ]
    panels += [(stretch(view.sb(draw)), BRIGHTNESS_MAP) for draw in view.samples[: plan.draws]]
    while len(panels) < len(plan.titles) - (colour is not None):
        panels.append((np.full(view.mean.shape, np.nan), BRIGHTNESS_MAP))
    pictures = [_coloured(image, colours) for image, colours in panels]
    pictures += [] if colour is None else [colour]
    strip = np.concatenate([_square(picture, plan.panel_pix) for picture in pictures], axis=1)
    out = io.BytesIO()
    Image.fromarray(strip).save(out, "WEBP", quality=plan.quality, method=4)
    return base64.b64encode(out.getvalue()).decode()


def _coloured(image: np.ndarray, colours: str) -> np.ndarray:
    """(H, W, 3) uint8 of an image of 0 to 1; masked pixels in their own colour."""
    bad = ~np.isfinite(image)
    rgb = _table(colours)[(np.where(bad, 0, image) * 255 + 0.5).astype(np.uint8)]
    rgb[bad] = MASKED_RGB
    return rgb


def _square(rgb: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8, north of the array up."""
    from PIL import Image

    picture = Image.fromarray(rgb[::-1])
    if picture.size == (side, side):
        return np.asarray(picture)
    smaller = min(picture.size) > side
    return np.asarray(
        picture.resize((side, side), Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)
    )


@cache
def _table(colours: str) -> np.ndarray:
    """(256, 3) uint8 of a colour map."""
    import matplotlib

    return (matplotlib.colormaps[colours](np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)
