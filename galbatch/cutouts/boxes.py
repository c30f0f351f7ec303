"""Stamps out of an image of a FITS file, read by position: neighbouring rows as one span, others row by
row."""

from __future__ import annotations

import sys

import numpy as np

from galbatch.cutouts.fitsfile import ImageHDU, scaled
from galbatch.cutouts.source import LocalBytes, RemoteBytes

_ROW_US, _STAMP_US, _BYTE_US = 0.4, 12.0, 1.2e-4  # a row gathered; a stamp, and a byte, of a span
_MAX_SPAN = 1 << 26


def read_boxes(source, image: ImageHDU, y0, x0, h: int, w: int, plane: int = 0, fill=np.nan):
    """Stamps (n, h, w) whose first pixels are (y0, x0) (n,) int, which may lie outside; there ``fill``.

    Returns (stamps, ok): float32 for floats and scaled integers, int64 for plain integers when ``fill`` is
    an integer; ``ok`` (n,) False where bytes could not be read.
    """
    y0, x0 = np.asarray(y0, np.int64), np.asarray(x0, np.int64)
    ny, nx = image.shape[-2:]
    dtype = np.dtype(image.dtype)
    integer = isinstance(fill, int)
    out = np.empty((len(y0), h, w), np.int64 if integer else np.float32)
    out[~_whole(y0, x0, h, w, ny, nx)] = fill
    ok = np.ones(len(y0), bool)
    if len(y0) == 0:
        return out, ok
    base = image.offset + plane * ny * nx * dtype.itemsize
    for members, span in _groups(y0, h, nx * dtype.itemsize, isinstance(source, RemoteBytes)):
        (_from_span if span else _from_rows)(source, image, base, members, y0, x0, out, ok)
    out[~ok] = fill
    return out, ok


def _whole(y, x, h, w, ny, nx) -> np.ndarray:
    """Which stamps lie on the image as a whole."""
    return (y >= 0) & (y + h <= ny) & (x >= 0) & (x + w <= nx)


def _groups(y0, h, stride, remote) -> list[tuple[np.ndarray, bool]]:
    """Sources sorted by row: runs to read as one span of whole rows (True), and all others row by row
    (False)."""
    order = np.argsort(y0, kind="stable")
    alone = h * _ROW_US
    groups, run, last, cost = [], [], 0, 0.0
    for i in order:
        top = int(y0[i])
        extra = min(h, top + h - last) if run else h
        price = _STAMP_US + extra * stride * _BYTE_US
        if run and (price > alone or remote or (last - int(y0[run[0]]) + extra) * stride > _MAX_SPAN):
            groups.append((run, cost))
            run, cost, price = [], 0.0, _STAMP_US + h * stride * _BYTE_US
        run.append(i)
        cost += price
        last = top + h
    groups.append((run, cost))
    out, single = [], []
    for run, cost in groups:
        if remote or cost > len(run) * alone:
            single.extend(run)
        else:
            out.append((np.array(run), True))
    return [*out, (np.array(single), False)] if single else out


def _from_span(source, image, base, members, y0, x0, out, ok):
    ny, nx = image.shape[-2:]
    dtype, h, w = np.dtype(image.dtype), out.shape[1], out.shape[2]
    top = max(int(y0[members].min()), 0)
    bottom = min(int(y0[members].max()) + h, ny)
    if bottom <= top:
        return
    raw = source.read_block(base + top * nx * dtype.itemsize, (bottom - top) * nx * dtype.itemsize)
    rows = len(raw) // (nx * dtype.itemsize)
    block = raw[: rows * nx * dtype.itemsize].view(dtype).reshape(rows, nx)
    for i in members:
        ya, yb = max(y0[i], 0), min(y0[i] + h, ny)
        xa, xb = max(x0[i], 0), min(x0[i] + w, nx)
        if ya >= yb or xa >= xb:
            continue
        if yb - top > rows:
            ok[i] = False
            continue
        out[i, ya - y0[i] : yb - y0[i], xa - x0[i] : xb - x0[i]] = scaled(
            block[ya - top : yb - top, xa:xb], image, out.dtype
        )


def _from_rows(source, image, base, members, y0, x0, out, ok):
    ny, nx = image.shape[-2:]
    h, w = out.shape[1:]
    y, x = y0[members], x0[members]
    whole = _whole(y, x, h, w, ny, nx)
    size = np.dtype(image.dtype).itemsize
    if isinstance(source, LocalBytes) and _plain_float32(image) and out.dtype == np.float32:
        starts = base + (y[whole] * nx + x[whole]) * size
        ok[members[whole]] &= source.read_stamps(starts, nx * size, out, members[whole])
    elif whole.any():
        starts = base + ((y[whole, None] + np.arange(h)) * nx + x[whole, None]) * size
        raw, good = source.read_rows(starts.ravel(), w * size)
        out[members[whole]] = scaled(raw.view(image.dtype).reshape(-1, h, w), image, out.dtype)
        ok[members[whole]] &= good.reshape(-1, h).all(axis=1)
    for i in members[~whole]:
        _crossing_edge(source, image, base, int(y0[i]), int(x0[i]), out[i], ok, i)


def _plain_float32(image) -> bool:
    """Whether numbers need their bytes swapped and no more."""
    swapped = sys.byteorder == "little" and np.dtype(image.dtype) == np.dtype(">f4")
    return swapped and image.bscale == 1.0 and image.bzero == 0.0


def _crossing_edge(source, image, base, y, x, stamp, ok, i) -> None:
    ny, nx = image.shape[-2:]
    h, w = stamp.shape
    ya, yb, xa, xb = max(y, 0), min(y + h, ny), max(x, 0), min(x + w, nx)
    if ya >= yb or xa >= xb:
        return
    size = np.dtype(image.dtype).itemsize
    raw, good = source.read_rows(base + (np.arange(ya, yb) * nx + xa) * size, (xb - xa) * size)
    stamp[ya - y : yb - y, xa - x : xb - x] = scaled(
        raw.view(image.dtype).reshape(yb - ya, xb - xa), image, stamp.dtype
    )
    ok[i] &= good.all()
