"""Hashes by which one knows again what was cut for a source and what was drawn: 64 bits each of BLAKE2b."""

from __future__ import annotations

import hashlib

import numpy as np

from galbatch.types import BandStamps, StampBatch

_OF_BAND = ("noise_acf", "psf_error", "pixel_scale_arcsec", "psf_scale_arcsec", "ratio")
_OF_SOURCE = ("data", "sigma", "mask", "seg", "psf", "psf_id", "wcs", "sigma_white", "flags", "to_scene")


def pixel_hashes(stamps: StampBatch) -> np.ndarray:
    """(n, c) uint64 of all that was cut for each source in each band: whatever of it changes, changes it."""
    return np.array(
        [[_of_stamp(band, i) for band in stamps.bands] for i in range(len(stamps.source_id))], np.uint64
    ).reshape(len(stamps.source_id), len(stamps.bands))


def _of_stamp(band: BandStamps, i: int) -> int:
    digest = hashlib.blake2b(digest_size=8)
    shared = [getattr(band, name) for name in _OF_BAND]
    own = [v[i] if (v := getattr(band, name)) is not None else None for name in _OF_SOURCE]
    for value in (*shared, *own, *(v[i] for _, v in sorted(band.columns.items()))):
        array = np.ascontiguousarray(np.nan if value is None else value)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(str(array).encode() if array.dtype.kind in "OU" else array.tobytes())
    return int.from_bytes(digest.digest(), "little")


def draw_hashes(samples: np.ndarray) -> np.ndarray:
    """(n, c) uint64 of draws (n, k, c, H, W) float32 by source and band; 0 where none is finite."""
    found = np.zeros((len(samples), samples.shape[2]), np.uint64)
    for i, c in np.ndindex(found.shape):
        draws = np.ascontiguousarray(samples[i, :, c], dtype="<f4")
        if np.isfinite(draws).any():
            digest = hashlib.blake2b(draws.data, digest_size=8).digest()
            found[i, c] = max(int.from_bytes(digest, "little"), 1)
    return found
