"""How much of a pixel lies inside an ellipse.

An ellipse about (xc, yc) is given by its semi-major axis ``a`` and a metric (dxx, dxy, dyy):
``rho(x, y) = sqrt(dxx dx^2 + 2 dxy dx dy + dyy dy^2)`` is the semi-major axis of the concentric ellipse
through a point, so the inside is ``rho < a``. A pixel is a unit square about integer coordinates.

Overlaps are exact for a straight edge and corrected to second order for its curvature; where the minor
axis is below ``FINE`` pixels the pixel is divided. Areas agree with exact circles to about 1e-4 pixel.
"""

from __future__ import annotations

import math

from galbatch.morphology.kernels.jit import kernel

FINE = 4.0
_MAX_DIVISION = 8
_HALF_DIAGONAL = math.sqrt(0.5)


@kernel
def metric(elongation, theta):
    """(dxx, dxy, dyy) of ellipses with axis ratio ``elongation`` >= 1 and position angle ``theta`` (rad, from
    x)."""
    c, s, e2 = math.cos(theta), math.sin(theta), elongation * elongation
    return c * c + e2 * s * s, c * s * (1.0 - e2), s * s + e2 * c * c


@kernel
def reach(dxx, dxy, dyy):
    """The largest change of rho between the centre of a pixel and any point of it."""
    return 0.5 * math.sqrt(dxx + dyy + 2.0 * abs(dxy))


@kernel
def span(centre, half, n):
    """(first, last + 1) of the pixels 0..n-1 within ``half`` of ``centre``."""
    half = min(half, 2.0 * n + abs(centre))
    return max(0, math.ceil(centre - half)), min(n, math.floor(centre + half) + 1)


@kernel
def _half_plane(s, nx, ny):
    """Area of the unit square about the origin where (nx, ny) . x < s, with nx^2 + ny^2 = 1."""
    m1, m2 = abs(nx), abs(ny)
    if m1 > m2:
        m1, m2 = m2, m1
    d = s + 0.5 * (m1 + m2)
    if d <= 0.0:
        return 0.0
    if d >= m1 + m2:
        return 1.0
    if d < m1:
        return d * d / (2.0 * m1 * m2)
    if d <= m2:
        return (d - 0.5 * m1) / m2
    rest = m1 + m2 - d
    return 1.0 - rest * rest / (2.0 * m1 * m2)


@kernel
def _chord(s, nx, ny):
    """End points, along the line (nx, ny) . x = s, of its part inside the unit square; (0, 0) if there is
    none."""
    low, high = -2.0, 2.0
    if abs(ny) > 1e-12:
        p, q = (s * nx - 0.5) / ny, (s * nx + 0.5) / ny
        low, high = max(low, min(p, q)), min(high, max(p, q))
    if abs(nx) > 1e-12:
        p, q = (-0.5 - s * ny) / nx, (0.5 - s * ny) / nx
        low, high = max(low, min(p, q)), min(high, max(p, q))
    if high <= low:
        return 0.0, 0.0
    return low, high


@kernel
def _curved(dx, dy, rho, a, dxx, dxy, dyy):
    """Inside fraction of the unit pixel at (dx, dy), rho > 0, to second order."""
    gx, gy = (dxx * dx + dxy * dy) / rho, (dxy * dx + dyy * dy) / rho
    g = math.sqrt(gx * gx + gy * gy)
    nx, ny = gx / g, gy / g
    s = (a - rho) / g
    area = _half_plane(s, nx, ny)
    low, high = _chord(s, nx, ny)
    if high > low:
        tx, ty = -ny, nx
        htt = (dxx * tx * tx + 2.0 * dxy * tx * ty + dyy * ty * ty) / rho
        hnt = (dxx * nx * tx + dxy * (nx * ty + ny * tx) + dyy * ny * ty) / rho
        hnn = (dxx * nx * nx + 2.0 * dxy * nx * ny + dyy * ny * ny - g * g) / rho
        bend = (s * s * hnn * (high - low) + s * hnt * (high * high - low * low)
                + htt * (high**3 - low**3) / 3.0)
        area -= bend / (2.0 * g)
    return min(max(area, 0.0), 1.0)


@kernel
def overlap(dx, dy, a, dxx, dxy, dyy):
    """Fraction of the pixel at (dx, dy) from the centre that lies inside the ellipse ``rho < a``."""
    rho = math.sqrt(dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy)
    q = reach(dxx, dxy, dyy)
    if rho + q <= a:
        return 1.0
    if a <= 0.0 or rho - q >= a:
        return 0.0
    return edge_overlap(dx, dy, rho, q, a, dxx, dxy, dyy)


@kernel
def disc_overlap(dx, dy, a):
    """``overlap`` with a circle of radius ``a``."""
    rho = math.sqrt(dx * dx + dy * dy)
    if rho + _HALF_DIAGONAL <= a:
        return 1.0
    if a <= 0.0 or rho - _HALF_DIAGONAL >= a:
        return 0.0
    if a < FINE:
        return edge_overlap(dx, dy, rho, _HALF_DIAGONAL, a, 1.0, 0.0, 1.0)
    return disc_edge(dx, dy, rho, a)


@kernel
def disc_edge(dx, dy, rho, a):
    """``_curved`` for a circle of radius ``a`` of at least ``FINE``, without branches."""
    inverse = 1.0 / rho
    one, two = abs(dx) * inverse, abs(dy) * inverse
    m1, m2 = min(one, two), max(one, two)  # an octant stands for all
    inverse1, inverse2 = 1.0 / max(m1, 1e-12), 1.0 / m2
    s = a - rho
    beyond = abs(s)
    rest = max(0.5 * (m1 + m2) - beyond, 0.0)
    corner, strip = 0.5 * rest * rest * inverse1 * inverse2, 0.5 - beyond * inverse2
    area = corner if beyond > 0.5 * (m2 - m1) else strip
    area = 1.0 - area if s > 0.0 else area
    low = max((s * m1 - 0.5) * inverse2, (-0.5 - s * m2) * inverse1)
    high = min((s * m1 + 0.5) * inverse2, (0.5 - s * m2) * inverse1)
    bend = (high * high * high - low * low * low) * inverse / 6.0
    area -= bend if high > low else 0.0
    return min(max(area, 0.0), 1.0)


@kernel
def edge_overlap(dx, dy, rho, q, a, dxx, dxy, dyy):
    """``overlap`` of a pixel that the ellipse may cut: |rho - a| < q, the ``reach`` of a pixel, and a > 0."""
    minor = a / math.sqrt(dxx + dyy - 1.0)  # the elongation squared is the trace of the metric less one
    if minor >= FINE:
        return _curved(dx, dy, rho, a, dxx, dxy, dyy)
    m = min(math.ceil(FINE / minor), _MAX_DIVISION)
    total = 0.0
    for i in range(m):
        for j in range(m):  # in units of a sub-pixel the same problem has a larger ellipse
            x = m * dx + j + 0.5 - 0.5 * m
            y = m * dy + i + 0.5 - 0.5 * m
            r = math.sqrt(dxx * x * x + 2.0 * dxy * x * y + dyy * y * y)
            if r + q <= m * a:
                total += 1.0
            elif r - q < m * a:
                if r == 0.0:
                    total += min(1.0, math.pi * minor * a * m * m)
                else:
                    total += _curved(x, y, r, m * a, dxx, dxy, dyy)
    return total / (m * m)


@kernel
def ellipse_sum(image, xc, yc, a, dxx, dxy, dyy):
    """Sum of ``image`` inside the ellipse, pixels outside the image counting as zero."""
    ny, nx = image.shape
    q = reach(dxx, dxy, dyy)
    # half widths of the bounding box, plus the pixel
    det = dxx * dyy - dxy * dxy
    hx, hy = a * math.sqrt(dyy / det) + 0.5, a * math.sqrt(dxx / det) + 0.5
    total = 0.0
    y_first, y_last = span(yc, hy, ny)
    x_first, x_last = span(xc, hx, nx)
    for y in range(y_first, y_last):
        dy = y - yc
        for x in range(x_first, x_last):
            dx = x - xc
            rho2 = dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy
            if a > q and rho2 <= (a - q) * (a - q):
                total += image[y, x]
            elif rho2 < (a + q) * (a + q):
                total += image[y, x] * overlap(dx, dy, a, dxx, dxy, dyy)
    return total
