"""Connected regions of a binary image (8 neighbours), without recursion, and what is made of them: the
segment of a source, and the mask of shape asymmetry (Pawlik et al. 2016) with its largest radius."""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.columns import F_SHAPE
from galbatch.morphology.kernels.filters import boxcar
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.ordering import sorted_part
from galbatch.morphology.kernels.sky import BOX, clipped_statistics


@kernel
def at_least(image: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) bool: which pixels reach ``threshold``."""
    out = np.empty(image.shape, np.bool_)
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            out[y, x] = image[y, x] >= threshold
    return out


@leaf
def _fill_run(above: np.ndarray, out: np.ndarray, y: int, x: int) -> tuple[int, int]:
    """Set the unbroken part of row ``y`` around ``x``; returns its (first, last) column."""
    first = last = x
    while first > 0 and above[y, first - 1]:
        first -= 1
    while last < above.shape[1] - 1 and above[y, last + 1]:
        last += 1
    for i in range(first, last + 1):
        out[y, i] = True
    return first, last


@kernel
def grow(above: np.ndarray, y0: int, x0: int) -> np.ndarray:
    """The region of ``above`` (H, W bool) that contains (y0, x0); empty if that pixel is not set."""
    ny, nx = above.shape
    out = np.zeros((ny, nx), np.bool_)
    if not above[y0, x0]:
        return out
    runs = np.empty((ny * (nx + 1) // 2 + 1, 3), np.int64)  # row, first and last column of each found
    runs[0, 0], (runs[0, 1], runs[0, 2]) = y0, _fill_run(above, out, y0, x0)
    n = 1
    while n > 0:
        n -= 1
        y, first, last = runs[n, 0], max(runs[n, 1] - 1, 0), min(runs[n, 2] + 1, nx - 1)
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            x = first
            while x <= last:
                if above[j, x] and not out[j, x]:
                    runs[n, 0], (runs[n, 1], runs[n, 2]) = j, _fill_run(above, out, j, x)
                    x = runs[n, 2]
                    n += 1
                x += 1
    return out


@leaf
def count_set(region: np.ndarray) -> int:
    """Number of True pixels."""
    total = 0
    for y in range(region.shape[0]):
        for x in range(region.shape[1]):
            if region[y, x]:
                total += 1
    return total


@leaf
def brightest(image: np.ndarray) -> tuple[int, int]:
    """(y, x) of the first maximum in row order."""
    ny, nx = image.shape
    by = bx = 0
    best = image[0, 0]
    for y in range(ny):
        for x in range(nx):
            if image[y, x] > best:
                best = image[y, x]
                by, bx = y, x
    return by, bx


@leaf
def box_of(region: np.ndarray, border: int) -> tuple[int, ...]:
    """(y, x, height, width) of the smallest box around ``region`` with a ``border``, cut at the image; sizes
    0 if it is empty."""
    ny, nx = region.shape
    y0, y1, x0, x1 = ny, 0, nx, 0
    for y in range(ny):
        for x in range(nx):
            if region[y, x]:
                y0, y1, x0, x1 = min(y0, y), max(y1, y + 1), min(x0, x), max(x1, x + 1)
    if y1 == 0:
        return 0, 0, 0, 0
    y0, x0 = max(y0 - border, 0), max(x0 - border, 0)
    return y0, x0, min(y1 + border, ny) - y0, min(x1 + border, nx) - x0


_N_SIGMA = 1.5


@kernel
def detect(raw: np.ndarray, bad: np.ndarray, seg: np.ndarray) -> None:
    """Set ``seg`` to 1 on the pixels of the 3 x 3 averaged image above mode + 1.5 sigma that connect to its
    brightest pixel in the central half of the stamp. Leaves it empty where no pixel is finite."""
    ny, nx = raw.shape
    image = np.zeros((ny, nx))
    values = np.empty(ny * nx)
    n = 0
    for y in range(ny):
        for x in range(nx):
            if math.isfinite(raw[y, x]) and not bad[y, x]:
                image[y, x] = raw[y, x]
                values[n] = raw[y, x]
                n += 1
    if n == 0:
        return
    mode, std = clipped_statistics(sorted_part(values, n))
    smooth = boxcar(image, 3)
    above = np.empty((ny, nx), np.bool_)
    best, y0, x0 = -np.inf, 0, 0
    for y in range(ny):
        for x in range(nx):
            above[y, x] = smooth[y, x] > mode + _N_SIGMA * std
            central = ny // 4 <= y < ny - ny // 4 and nx // 4 <= x < nx - nx // 4
            if central and smooth[y, x] > best:
                best, y0, x0 = smooth[y, x], y, x
    above[y0, x0] = True
    region = grow(above, y0, x0)
    for y in range(ny):
        for x in range(nx):
            seg[y, x] = 1 if region[y, x] and not bad[y, x] else 0


@kernel
def background_threshold(
    image: np.ndarray,
    good: np.ndarray,
    outline: tuple[float, ...],
    r_petro_ellip: float,
    box: tuple[int, ...],
) -> float:
    """Mode + one sigma of the sky in an annulus of 2 to 4 Petrosian radii, or in the sky ``box`` (y, x, size)
    where fewer than 32 x 32 pixels are left; NaN where there is neither."""
    ny, nx = image.shape
    xc, yc = outline[0], outline[1]
    r_in, r_out = 2.0 * r_petro_ellip, 4.0 * r_petro_ellip
    values = np.empty(ny * nx)
    n = 0
    for y in range(ny):
        for x in range(nx):
            d2 = (x - xc) ** 2 + (y - yc) ** 2
            if good[y, x] > 0.0 and d2 < r_out * r_out and d2 >= r_in * r_in:
                values[n] = image[y, x]
                n += 1
    if n < BOX * BOX:
        n = 0
        y0, x0, size = box
        for y in range(y0, y0 + size):
            for x in range(x0, x0 + size):
                values[n] = image[y, x]
                n += 1
        if n == 0:
            return np.nan
    mode, std = clipped_statistics(sorted_part(values, n))
    return mode + std


@kernel
def shape_segment(image: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """(region, flag bits): 3 x 3 averaged image above ``threshold``, connected to its brightest pixel."""
    smooth = boxcar(image, 3)
    above = at_least(smooth, threshold)
    y0, x0 = brightest(smooth)
    flags = 0 if above[y0, x0] else F_SHAPE
    above[y0, x0] = True
    return grow(above, y0, x0), flags


@leaf
def largest_radius(region: np.ndarray, outline: tuple[float, ...]) -> float:
    """Semi-major axis of the smallest ellipse with every pixel centre of ``region``; 0 if it is empty."""
    xc, yc, dxx, dxy, dyy, _reach = outline
    ny, nx = region.shape
    best = 0.0
    for y in range(ny):
        for x in range(nx):
            if region[y, x]:
                dx, dy = x - xc, y - yc
                best = max(best, dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy)
    return math.sqrt(best)


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
