"""Connected regions (8 neighbours) that grow pixel by pixel and join where they touch.

``regions``: of each pixel of a stamp with a border of one (flat) the pixel it is linked to, -size where it is
the root of its region, 0 while it is in none; the flux of the region under a root; the number of regions by
size.
"""

from __future__ import annotations

import numpy as np

from galbatch.morphology.kernels.jit import kernel, leaf


@leaf(forceinline=True)
def find_root(link: np.ndarray, p: int) -> int:
    """The root of the region of pixel ``p``; shortens the way there."""
    while link[p] > 0:
        above = link[p]
        if link[above] > 0:
            link[p] = link[above]
        p = above
    return p


@leaf
def _join(regions: tuple[np.ndarray, np.ndarray, np.ndarray], root: int, p: int) -> int:
    """Join the region of pixel ``p``, if it is in one, to that under ``root``; returns the root of both."""
    link, flux, count = regions
    if link[p] == 0:
        return root
    other = find_root(link, p)
    if other == root:
        return root
    if link[other] < link[root]:
        root, other = other, root
    count[-link[other]] -= 1
    count[-link[root]] -= 1
    link[root] += link[other]
    link[other] = root
    flux[root] += flux[other]
    count[-link[root]] += 1
    return root


@leaf
def join_pixel(regions: tuple[np.ndarray, np.ndarray, np.ndarray], p: int, value: float, width: int) -> int:
    """Add pixel p as a region of one and join it to its neighbours; the size of the region it ends in.
    ``width`` of the stamp with its border."""
    link, flux, count = regions
    link[p], flux[p] = -1, value
    count[1] += 1
    up, down, left, right = link[p - width], link[p + width], link[p - 1], link[p + 1]
    root = _join(regions, _join(regions, p, p - width), p + width)
    root = _join(regions, _join(regions, root, p - 1), p + 1)
    if up == 0 and left == 0:  # else the corner is connected by them
        root = _join(regions, root, p - width - 1)
    if up == 0 and right == 0:
        root = _join(regions, root, p - width + 1)
    if down == 0 and left == 0:
        root = _join(regions, root, p + width - 1)
    if down == 0 and right == 0:
        root = _join(regions, root, p + width + 1)
    return -link[root]


@kernel
def no_regions(ny: int, nx: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions of a stamp before its first pixel."""
    n = (ny + 2) * (nx + 2)
    return np.zeros(n, np.int64), np.empty(n), np.zeros(n, np.int64)
