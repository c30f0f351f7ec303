"""Rotational asymmetry, and the centre that minimises it.

For a centre c the image turned by 180 degrees is ``I180(p) = I(2c - p)``, interpolated linearly; pixels from
outside the image count as zero, pixels whose own or opposite place is masked do not count at all.
``A = (sum |I180 - I| - area * sky) / sum |I|`` inside an aperture (Conselice 2003; Lotz et al. 2004 eq. 10).
The offset 2c - p has one fractional part for the whole image, so that the turned image is a shifted,
reversed copy with four constant weights.

The centre is searched with the Nelder-Mead simplex from the centroid, steps and stops as in scipy's ``fmin``.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.kernels.geometry import disc_overlap, metric, overlap, reach, span
from galbatch.morphology.kernels.jit import kernel, sum_kernel

OUTSIDE = 100.0  # what the search sees where no asymmetry exists
LEFT_STAMP, NO_FLUX = 1, 2
_CENTRE_TOLERANCE = 1e-3
_VALUE_TOLERANCE = 1e-4
_MAX_EVALUATIONS = 400


@kernel
def reversed_padded(image, fill):
    """``image`` turned by 180 degrees about its middle, with a border one pixel wide of ``fill``."""
    ny, nx = image.shape
    out = np.empty((ny + 2, nx + 2))
    for y in range(ny + 2):
        for x in range(nx + 2):
            edge = y == 0 or y == ny + 1 or x == 0 or x == nx + 1
            out[y, x] = fill if edge else image[ny - y, nx - x]
    return out


@sum_kernel
def _plain_row(row, turned0, turned1, wy, wx):
    """Sums of |I| and |I180 - I| over a piece of a row; ``turned0/1`` one pixel longer, from the two source
    rows."""
    s_abs = 0.0
    s_diff = 0.0
    for x in range(row.size):
        a = turned0[x] + wx * (turned0[x + 1] - turned0[x])
        b = turned1[x] + wx * (turned1[x + 1] - turned1[x])
        s_abs += abs(row[x])
        s_diff += abs(a + wy * (b - a) - row[x])
    return s_abs, s_diff


@sum_kernel
def _masked_row(row, good, turned0, turned1, good_turned, wy, wx):
    """Number of pixels under the symmetric mask, and the sums of ``_plain_row`` over them."""
    area = 0.0
    s_abs = 0.0
    s_diff = 0.0
    for x in range(row.size):
        a = turned0[x] + wx * (turned0[x + 1] - turned0[x])
        b = turned1[x] + wx * (turned1[x + 1] - turned1[x])
        w = good[x] * good_turned[x]
        area += w
        s_abs += w * abs(row[x])
        s_diff += w * abs(a + wy * (b - a) - row[x])
    return area, s_abs, s_diff


@kernel
def _turned(turned, y, x, sy, sx, wy, wx):
    """I180 at one pixel, zero where it comes from outside the image."""
    ny, nx = turned.shape
    j, i = y + sy, x + sx
    if j < 0 or j + 1 >= ny or i < 0 or i + 1 >= nx:
        return 0.0
    a = turned[j, i] + wx * (turned[j, i + 1] - turned[j, i])
    b = turned[j + 1, i] + wx * (turned[j + 1, i + 1] - turned[j + 1, i])
    return a + wy * (b - a)


@kernel
def _shift(centre, n):
    """(whole, fractional) shift into the padded reversed image along one axis."""
    s = n - 2.0 * centre  # (n - 1) - 2 c, plus one for the border
    whole = math.floor(s)
    return int(whole), s - whole


@kernel
def _pixel_terms(image, turned, good, good_turned, y, x, shift, near):
    """(counts?, I, I180 - I) of one pixel under the symmetric mask."""
    sy, sx, wy, wx = shift
    ny, nx = turned.shape
    if good[y, x] == 0.0:
        return 0.0, 0.0, 0.0
    j, i = y + near[0], x + near[1]
    if 0 <= j < ny and 0 <= i < nx and good_turned[j, i] == 0.0:
        return 0.0, 0.0, 0.0
    value = image[y, x]
    return 1.0, value, _turned(turned, y, x, sy, sx, wy, wx) - value


@kernel
def asymmetry_sums(image, turned, good, good_turned, xc, yc, a_in, a_out, elongation, theta):
    """Sums inside an elliptical annulus (a disc where ``a_in`` is 0) about (xc, yc), as
    (area, |I|, |I180 - I|, I^2, (I180 - I)^2)."""
    ny, nx = image.shape
    dxx, dxy, dyy = metric(elongation, theta)
    sy, wy = _shift(yc, ny)
    sx, wx = _shift(xc, nx)
    near = (math.floor(ny - 2.0 * yc + 0.5), math.floor(nx - 2.0 * xc + 0.5))
    q, circle = reach(dxx, dxy, dyy), elongation == 1.0
    det = dxx * dyy - dxy * dxy
    y_first, y_last = span(yc, (a_out + q) * math.sqrt(dxx / det) + 1.0, ny)
    x_first, x_last = span(xc, (a_out + q) * math.sqrt(dyy / det) + 1.0, nx)
    area = s_abs = s_diff = square_abs = square_diff = 0.0
    for y in range(y_first, y_last):
        dy = y - yc
        for x in range(x_first, x_last):
            dx = x - xc
            square = dxx * dx * dx + 2.0 * dxy * dx * dy + dyy * dy * dy
            if square >= (a_out + q) ** 2 or square < max(a_in - q, 0.0) ** 2:
                continue
            w = 1.0
            if square > max(a_out - q, 0.0) ** 2:
                w = disc_overlap(dx, dy, a_out) if circle else overlap(dx, dy, a_out, dxx, dxy, dyy)
            if a_in > 0.0 and square < (a_in + q) ** 2:
                w -= overlap(dx, dy, a_in, dxx, dxy, dyy)
            if w <= 0.0:
                continue
            counts, value, diff = _pixel_terms(image, turned, good, good_turned, y, x, (sy, sx, wy, wx), near)
            area += w * counts
            s_abs += w * abs(value)
            s_diff += w * abs(diff)
            square_abs += w * value * value
            square_diff += w * diff * diff
    return area, s_abs, s_diff, square_abs, square_diff


@kernel
def _disc(image, turned, good, good_turned, masked, xc, yc, r):
    """(area, sum |I|, sum |I180 - I|) inside a circle: whole rows of inner pixels at once, then the edge."""
    ny, nx = image.shape
    sy, wy = _shift(yc, ny)
    sx, wx = _shift(xc, nx)
    shift = (sy, sx, wy, wx)
    near = (math.floor(ny - 2.0 * yc + 0.5), math.floor(nx - 2.0 * xc + 0.5))
    area = s_abs = s_diff = 0.0
    for y in range(max(0, math.ceil(yc - r - 0.5)), min(ny, math.floor(yc + r + 0.5) + 1)):
        dy = abs(y - yc)
        outer = r * r - max(dy - 0.5, 0.0) ** 2
        half = math.sqrt(max(outer, 0.0)) + 0.5
        first, last = max(0, math.ceil(xc - half)), min(nx, math.floor(xc + half) + 1)
        inner = r * r - (dy + 0.5) ** 2
        x0 = x1 = first
        if inner > 0.0 and math.sqrt(inner) > 0.5:
            half = math.sqrt(inner) - 0.5
            x0, x1 = max(0, math.ceil(xc - half)), min(nx, math.floor(xc + half) + 1)
            x1 = max(x0, x1)
        j = y + sy
        fast0, fast1 = x0, x0
        if 0 <= j and j + 1 < ny + 2:
            fast0, fast1 = max(x0, -sx), min(x1, nx + 1 - sx)
            if fast1 <= fast0:
                fast0 = fast1 = x0
            elif masked:
                n, p, q = _masked_row(image[y, fast0:fast1], good[y, fast0:fast1],
                                      turned[j, fast0 + sx:fast1 + sx + 1],
                                      turned[j + 1, fast0 + sx:fast1 + sx + 1],
                                      good_turned[y + near[0], fast0 + near[1]:fast1 + near[1]], wy, wx)
                area += n
                s_abs += p
                s_diff += q
            else:
                p, q = _plain_row(image[y, fast0:fast1], turned[j, fast0 + sx:fast1 + sx + 1],
                                  turned[j + 1, fast0 + sx:fast1 + sx + 1], wy, wx)
                area += fast1 - fast0
                s_abs += p
                s_diff += q
        for x in range(first, last):
            if fast0 <= x < fast1:
                continue
            w = 1.0
            if x < x0 or x >= x1:
                w = disc_overlap(x - xc, y - yc, r)
            counts, value, diff = _pixel_terms(image, turned, good, good_turned, y, x, shift, near)
            area += w * counts
            s_abs += w * abs(value)
            s_diff += w * abs(diff)
    return area, s_abs, s_diff


@kernel
def asymmetry_at(image, turned, good, good_turned, masked, xc, yc, r, sky):
    """(asymmetry, status bits) about (xc, yc) inside radius ``r``, ``sky`` the asymmetry of a pixel of
    sky."""
    ny, nx = image.shape
    if xc < 0.0 or xc >= nx or yc < 0.0 or yc >= ny:
        return OUTSIDE, LEFT_STAMP
    area, s_abs, s_diff = _disc(image, turned, good, good_turned, masked, xc, yc, r)
    if s_abs == 0.0:
        return OUTSIDE, NO_FLUX
    return (s_diff - area * sky) / s_abs, 0


@kernel
def _sort3(px, py, f):
    for i in range(1, 3):
        x, y, v = px[i], py[i], f[i]
        j = i - 1
        while j >= 0 and f[j] > v:
            px[j + 1], py[j + 1], f[j + 1] = px[j], py[j], f[j]
            j -= 1
        px[j + 1], py[j + 1], f[j + 1] = x, y, v


@kernel
def minimise_asymmetry(image, turned, good, good_turned, masked, x_start, y_start, r, sky):
    """(x, y, status bits): the local minimum of the asymmetry that Nelder-Mead finds from the start."""
    px, py, f = np.empty(3), np.empty(3), np.empty(3)
    px[0], px[1], px[2] = x_start, x_start * 1.05 if x_start != 0.0 else 0.00025, x_start
    py[0], py[1], py[2] = y_start, y_start, y_start * 1.05 if y_start != 0.0 else 0.00025
    status = 0
    for k in range(3):
        f[k], s = asymmetry_at(image, turned, good, good_turned, masked, px[k], py[k], r, sky)
        status |= s
    _sort3(px, py, f)
    calls = 3
    while calls < _MAX_EVALUATIONS:
        size = max(abs(px[1] - px[0]), abs(px[2] - px[0]), abs(py[1] - py[0]), abs(py[2] - py[0]))
        if size <= _CENTRE_TOLERANCE and max(abs(f[1] - f[0]), abs(f[2] - f[0])) <= _VALUE_TOLERANCE:
            break
        mx, my = 0.5 * (px[0] + px[1]), 0.5 * (py[0] + py[1])
        rx, ry = 2.0 * mx - px[2], 2.0 * my - py[2]
        fr, s = asymmetry_at(image, turned, good, good_turned, masked, rx, ry, r, sky)
        status |= s
        calls += 1
        if f[0] <= fr < f[1]:
            px[2], py[2], f[2] = rx, ry, fr
            _sort3(px, py, f)
            continue
        if fr < f[0]:
            t = 3.0  # expand
        elif fr < f[2]:
            t = 1.5  # contract outside
        else:
            t = 0.5  # contract inside
        tx, ty = px[2] + t * (mx - px[2]), py[2] + t * (my - py[2])
        ft, s = asymmetry_at(image, turned, good, good_turned, masked, tx, ty, r, sky)
        status |= s
        calls += 1
        if t == 3.0:
            if ft < fr:
                px[2], py[2], f[2] = tx, ty, ft
            else:
                px[2], py[2], f[2] = rx, ry, fr
        elif (t == 1.5 and ft <= fr) or (t == 0.5 and ft < f[2]):
            px[2], py[2], f[2] = tx, ty, ft
        else:
            for k in range(1, 3):
                px[k], py[k] = 0.5 * (px[0] + px[k]), 0.5 * (py[0] + py[k])
                f[k], s = asymmetry_at(image, turned, good, good_turned, masked, px[k], py[k], r, sky)
                status |= s
            calls += 2
        _sort3(px, py, f)
    return px[0], py[0], status
