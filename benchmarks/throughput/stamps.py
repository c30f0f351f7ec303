"""Stamps to compare morphologies on: simulated galaxies over shape, size and S/N, and real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage


def simulated(n: int, npix: int, seed: int = 0):
    """(images (n, npix, npix), segments, sigma (n,)): PSF-smoothed Sersic profiles with clumps, white
    noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:npix, :npix].astype(float)
    images, sigma = np.empty((n, npix, npix)), np.empty(n)
    for i in range(n):
        x0, y0 = npix / 2 - 0.5 + rng.uniform(-2, 2, 2)
        r_e, index, ellip, theta = (
            rng.uniform(0.04, 0.13) * npix,
            rng.uniform(0.5, 4),
            rng.uniform(0, 0.7),
            rng.uniform(0, 3.1),
        )
        image = sersic(x, y, r_e, index, x0, y0, ellip, theta)
        for _ in range(rng.integers(0, 7)):
            cx, cy = x0 + rng.normal(0, r_e), y0 + rng.normal(0, r_e)
            width = rng.uniform(0.8, 2.0)
            image += rng.uniform(0.3, 3) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
        image = ndimage.gaussian_filter(image, 1.2)
        sigma[i] = 1 / 10 ** rng.uniform(0.5, 2.0)  # surface brightness at r_e over the noise: 3 to 100
        images[i] = image + rng.normal(0, sigma[i], image.shape)
    return images.astype(np.float32), segments(images, sigma), sigma


def sersic(x, y, r_e, n, x0, y0, ellip, theta):
    """Sersic profile with surface brightness 1 at r_e, b(n) of Ciotti & Bertin (1999)."""
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2)
    u = (x - x0) * np.cos(theta) + (y - y0) * np.sin(theta)
    v = -(x - x0) * np.sin(theta) + (y - y0) * np.cos(theta)
    z = np.sqrt(u**2 + (v / (1 - ellip)) ** 2) / r_e
    return np.exp(-b * (np.maximum(z, 0.3 / r_e) ** (1 / n) - 1))


def segments(images, sigma):
    """1 where the 3 x 3 mean is above 1.5 sigma, connected to its maximum near the middle; 2 the other
    regions."""
    out = np.zeros(images.shape, dtype=np.int32)
    for i, image in enumerate(images):
        smooth = ndimage.uniform_filter(np.nan_to_num(np.asarray(image, float)), 3)
        q = len(image) // 4
        middle = smooth[q:-q, q:-q]
        y, x = np.unravel_index(np.argmax(middle), middle.shape)
        labels, _ = ndimage.label(smooth > 1.5 * sigma[i], structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        own = labels[y + q, x + q]
        out[i][(labels > 0) & (labels != own) & (sizes[labels] >= 9)] = 2
        out[i][labels == own] = 1 if own else 0
    return out


def real(folder: Path, npix: int = 100):
    """[(name, image, segment, sigma)] of real JWST and HST galaxies in ``folder``; empty if it is not
    there."""
    stamps = []
    for name, image, sigma in [*_ceers(folder), *_cosmos(folder), *_hst(folder)]:
        image = np.asarray(image, dtype=np.float32)
        cut = [max(0, (size - npix) // 2) for size in image.shape]
        image = image[cut[0] : cut[0] + npix, cut[1] : cut[1] + npix]
        edge = np.concatenate([image[:8].ravel(), image[-8:].ravel()])
        edge = edge[np.isfinite(edge)]
        if not edge.size:
            continue
        image = image - np.median(edge)
        sigma = sigma or 1.4826 * np.median(np.abs(edge - np.median(edge)))
        stamps.append((name, image, segments(image[None], [sigma])[0], float(sigma)))
    return stamps


def _ceers(folder):
    from astropy.io import fits

    for path in sorted((folder / "jwst_ceers").glob("*/f???w.fits")):
        yield f"ceers {path.parent.name} {path.stem}", fits.getdata(path), None


def _cosmos(folder):
    from astropy.io import fits
    from astropy.table import Table
    from astropy.wcs import WCS

    for band in ("f444w", "f115w"):
        path = folder / "jwst_cosmosweb" / f"{band}_sci.fits"
        if not path.exists():
            continue
        mosaic, header = fits.getdata(path, header=True)
        table = Table.read(path.with_name(f"{band}_catalog.parquet"))
        xs, ys = WCS(header).all_world2pix(table["ra"], table["dec"], 0)
        for row, x, y in zip(table, np.rint(xs).astype(int), np.rint(ys).astype(int), strict=True):
            stamp = mosaic[max(0, y - 32) : y + 32, max(0, x - 32) : x + 32]
            if stamp.shape == (64, 64):
                yield f"cosmos-web {band} {row['source_id']}", stamp, float(row["mad_sigma"])


def _hst(folder):
    """Their sky was set to exactly 0, where a detection limit means nothing: white noise is put back."""
    path = folder / "hst_galaxies" / "hst_candels_201x3_192px_0.06arcsec.npz"
    if path.exists():
        rng = np.random.default_rng(0)
        for i, image in enumerate(np.load(path, allow_pickle=False)["images"][::8, 1]):
            sigma = float(np.percentile(image[image > 0], 20))
            yield f"hst {8 * i}", image + rng.normal(0, sigma, image.shape), sigma
