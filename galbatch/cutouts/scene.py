"""One scene for all bands: the segments of a source, its neighbours and the sky, found once in all bands
together and the same in each.

On the pixels of the finest band, with ``y_b`` the flux per pixel of band b, ``a_b`` the area of its pixel in
fine ones and ``sigma_b`` its noise, the scene is the mean of the bands that weighs them by their information,

    f = sum_b w_b y_b / a_b / sum_b w_b,    w_b = a_b / sigma_b^2,    sigma_f = 1 / sqrt(sum_b w_b),

the combination of highest S/N for a source whose flux density is the same in all bands (``WEIGHTED`` of
SWarp, Bertin et al. 2002; the detection image of 3D-HST, Skelton et al. 2014). Unlike the chi2 image of
Szalay, Connolly & Szokoly (1999), which assumes no colour, it keeps noise that is symmetric about zero. PSFs
are left as they are: each band shows light where its own has put it, and a segment holds what shows in their
mean.

A survey file may name the bands that lead (``segment_bands``): the scene is then theirs alone, and another
band changes nothing of it. A source of which none of them has a pixel has the scene of all.

A segmentation map of the survey stays what it is in the bands that have one; bands without take that of the
finest band that leads and has one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from galbatch.cutouts.neighbours import from_map, segment, touching

_SAME_PIX, _SAME_TURN = 0.01, 1e-4  # of two grids that are taken for one: offset in pixels, terms of the map


@dataclass(frozen=True)
class View:
    """What one band shows of (n,) sources. ``data``, ``sigma``, ``bad`` (n, h, w); ``segmap`` (n, h, w), of
    the survey, or None; ``centre`` (n, 2): x, y of the source in its stamp, NaN where no tile holds it;
    ``cd`` (n, 2, 2): deg per pixel, as in FITS, NaN where it has no WCS; ``ratio`` of its pixels to those of
    the scene; ``leads``: the scene is found in it."""

    data: np.ndarray
    sigma: np.ndarray
    bad: np.ndarray
    segmap: np.ndarray | None
    centre: np.ndarray
    cd: np.ndarray
    ratio: int
    leads: bool = True


@dataclass(frozen=True)
class Step:
    """Where pixels of a stamp lie in another: ``x' = offset + matrix x``, coordinates (x, y)."""

    matrix: np.ndarray
    offset: np.ndarray

    @property
    def none(self) -> bool:
        """Whether both stamps have the same pixels."""
        return bool(
            np.all(np.abs(self.matrix - np.eye(2)) < _SAME_TURN) and np.all(np.abs(self.offset) < _SAME_PIX)
        )

    def inverse(self) -> Step:
        back = np.linalg.inv(self.matrix)
        return Step(back, -back @ self.offset)

    def at(self, shape: tuple[int, ...], dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """(2, h, w) y and x, in the other stamp, of the pixels of a stamp of this shape, (dx, dy) off their
        centres."""
        y, x = np.indices(shape)
        x, y = np.tensordot(self.matrix, np.stack([x + dx, y + dy]), 1) + self.offset[:, None, None]
        return np.stack([y, x])


@dataclass(frozen=True)
class Scene:
    """Of (n,) sources: ``segs``, for each band (n, h, w) int32 (0 sky, 1 the source, more its neighbours);
    ``touching``, for each band and source, the labels of neighbours that touch it, the same in all bands but
    those with a map of their own; ``blended`` (n,): the source was separated from a blend; ``maps``, for each
    band (n, 2, 3): from x, y in its stamp to those in the scene, the last column the offset."""

    segs: list[np.ndarray]
    touching: list[list[np.ndarray]]
    blended: np.ndarray
    maps: list[np.ndarray]


def find_scene(views: list[View], segmap_id: np.ndarray | None = None) -> Scene:
    """The scene of what all bands show. ``segmap_id`` (n,): the sources' labels in the survey's maps."""
    n = len(views[0].data)
    size = views[0].data.shape[1] * views[0].ratio
    scene = Scene(
        [np.zeros(v.data.shape, np.int32) for v in views],
        [[] for _ in views],
        np.zeros(n, bool),
        [np.zeros((n, 2, 3)) for _ in views],
    )
    finest = np.argsort([v.ratio for v in views], kind="stable")
    given = next((b for b in finest if views[b].leads and views[b].segmap is not None), None)
    for i in range(n):
        label = 0 if segmap_id is None else int(segmap_id[i])
        steps = _steps(views, i, size)
        if given is None:
            labels, scene.blended[i] = segment(*combine(views, i, steps, size))
        else:
            labels = _labels(from_map(views[given].segmap[i], label), steps[given].inverse(), (size, size))
        for b, (view, step) in enumerate(zip(views, steps, strict=True)):
            own = None if view.segmap is None else from_map(view.segmap[i], label)
            scene.segs[b][i] = _labels(labels, step, view.data.shape[1:]) if own is None else own
            scene.touching[b].append(touching(labels if own is None else own))
            scene.maps[b][i] = np.column_stack([step.matrix, step.offset])
    return scene


def combine(
    views: list[View], i: int, steps: list[Step], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene of source ``i``, its noise and where it has no pixel: f, sigma_f, bad (size, size)."""
    seen = [b for b, view in enumerate(views) if not view.bad[i].all()]
    there = [b for b in seen if views[b].leads] or seen
    if len(there) == 1 and steps[there[0]].none:
        only = views[there[0]]
        return only.data[i], only.sigma[i], only.bad[i]
    weight, light = np.zeros((size, size)), np.zeros((size, size))
    for view, step in ((views[b], steps[b]) for b in there):
        good = ~view.bad[i]
        area = abs(np.linalg.det(step.matrix))
        w = np.where(good, area / np.where(good, view.sigma[i], 1.0).astype(float) ** 2, 0.0)
        y = w * np.where(good, view.data[i], 0.0) / area
        if not step.none:
            places = step.inverse().at((size, size))
            w, y = (ndimage.map_coordinates(a, places, order=1, mode="constant") for a in (w, y))
        weight, light = weight + w, light + y
    bad = weight <= 0
    safe = np.where(bad, 1.0, weight)
    return (light / safe).astype(np.float32), np.where(bad, np.inf, safe**-0.5).astype(np.float32), bad


def _steps(views: list[View], i: int, size: int) -> list[Step]:
    """From the stamp of each band to the scene, which is the stamp of the finest band that holds the source,
    of those that lead if one does (in pixels of the finest of all). A band that does not hold it is taken to
    be centred on it, one without a WCS to be aligned."""
    order = sorted(range(len(views)), key=lambda b: (not views[b].leads, views[b].ratio))
    first = views[next((b for b in order if np.isfinite(views[b].centre[i]).all()), order[0])]
    middle = _centre(first, i) if first.ratio == 1 else np.full(2, float(size // 2))
    steps = []
    for view in views:
        matrix = np.linalg.solve(first.cd[i], view.cd[i]) * first.ratio
        if not np.isfinite(matrix).all():
            matrix = np.eye(2) * view.ratio
        steps.append(Step(matrix, middle - matrix @ _centre(view, i)))
    return steps


def _centre(view: View, i: int) -> np.ndarray:
    """x, y of the source in its stamp, or the middle of a stamp that does not hold it."""
    centre = view.centre[i]
    return centre if np.isfinite(centre).all() else np.full(2, float(view.data.shape[1] // 2))


def _labels(labels: np.ndarray, step: Step, shape: tuple[int, ...]) -> np.ndarray:
    """``labels`` at the pixels of a stamp of ``shape``: what most of each pixel holds, the source before its
    neighbours before the sky where two share it. 0 outside, but for a border of two pixels."""
    if step.none and labels.shape == shape:
        return labels
    parts = max(1, round(abs(np.linalg.det(step.matrix)) ** 0.5))
    centres = (np.arange(parts) + 0.5) / parts - 0.5
    h, w = labels.shape
    votes = []
    for dx, dy in itertools.product(centres, centres):
        y, x = np.rint(step.at(shape, dx, dy)).astype(int)
        on = (y >= -2) & (y < h + 2) & (x >= -2) & (x < w + 2)
        votes.append(np.where(on, labels[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)], 0))
    names = np.unique(votes)
    names = np.concatenate([names[names > 0], [0]])
    counts = [np.sum([vote == name for vote in votes], axis=0) for name in names]
    return names[np.argmax(counts, axis=0)].astype(np.int32)
