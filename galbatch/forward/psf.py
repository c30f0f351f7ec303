"""From a PSF image to its transfer function on a Fourier grid, divided by the target PSF.

``f``: spatial frequency in cycles per fine pixel. The PSF image is taken as integrated over its own pixels
(box of ``psf_scale``), the fine grid as integrated over fine pixels, so

    otf(f) = DFT[psf](f) * sinc(f) / sinc(f psf_scale / fine_scale),   |f| <= 0.5 min(1, fine_scale /
    psf_scale)

with which a PSF sampled at detector pixels is reproduced exactly after the sum of fine into detector pixels.
The Fourier sum is taken at the wanted frequencies directly: no interpolation, any size (odd or even), any
scale. Its value at f = 0 is the sum of the PSF: kept, not forced to one.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict

import numpy as np
import torch

from galbatch.errors import InputError

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
DIVISION_FLOOR = 0.01  # of the target's transfer function: below it the division is damped (Wiener form)


def psf_offset(psf: np.ndarray) -> np.ndarray:
    """Offset (n, 2) in pixels (y, x) of each PSF (n, p, p) from the centre of its image, (p - 1) / 2.

    A centroid in a Gaussian window (sigma 2 px, five iterations), so that wings and noise do not matter.
    """
    n, p, _ = psf.shape
    grid = np.arange(p) - (p - 1) / 2
    centre = np.zeros((n, 2))
    peak = psf.reshape(n, -1).argmax(1)
    centre[:, 0], centre[:, 1] = grid[peak // p], grid[peak % p]
    for _ in range(10):
        wy = np.exp(-0.5 * ((grid - centre[:, :1]) / 2.0) ** 2)
        wx = np.exp(-0.5 * ((grid - centre[:, 1:]) / 2.0) ** 2)
        weighted = psf * wy[:, :, None] * wx[:, None, :]
        total = weighted.sum((1, 2))
        total = np.where(total > 0, total, np.nan)
        step = (
            np.stack([(weighted.sum(2) * grid).sum(1), (weighted.sum(1) * grid).sum(1)], 1) / total[:, None]
            - centre
        )
        centre = centre + 2 * step  # a Gaussian window halves the shift of a Gaussian of its own width
    return centre


def psf_centre(psf: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2) taken as the centre: (p-1)/2, or p/2 for an even image made with that convention."""
    p = psf.shape[-1]
    middle = np.full((len(psf), 2), (p - 1) / 2)
    if p % 2 == 0:
        offset = psf_offset(psf)
        upper = np.abs(offset - 0.5) < np.abs(offset)  # nearer to pixel p/2 than to the geometric middle
        middle = middle + 0.5 * np.all(upper, axis=1, keepdims=True)
    return middle


def transfer(psf: np.ndarray, psf_scale: float, fine_scale: float, shape: tuple[int, int]) -> np.ndarray:
    """Transfer functions (n, M, L // 2 + 1) complex64 of PSF images (n, p, p) on a Fourier grid of M x L fine
    pixels.

    PSF pixels farther than the grid reaches are cropped before, so that nothing wraps around. Raises
    ``InputError`` for a PSF that is not finite or does not sum to a positive number.
    """
    if not np.isfinite(psf).all() or not (psf.sum((1, 2)) > 0).all():
        raise InputError(
            "a PSF has non-finite values or a sum that is not positive: give a finite PSF image."
        )
    step = psf_scale / fine_scale
    centre = psf_centre(psf)
    position = (np.arange(psf.shape[-1])[None, :] - centre[:, :, None]) * step  # (n, 2, p) in fine pixels
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    reach = np.array([shape[0] // 2, shape[1] // 2])
    keep = np.abs(position) <= reach[None, :, None]
    cropped = psf * keep[:, 0, :, None] * keep[:, 1, None, :]
    ey = np.exp(-2j * np.pi * fy[None, :, None] * position[:, 0, None, :])
    ex = np.exp(-2j * np.pi * fx[None, None, :] * position[:, 1, :, None])
    out = ey @ cropped @ ex
    for axis, f in ((1, fy), (2, fx)):
        correction = np.sinc(f) / np.where(np.abs(f * step) <= 0.5, np.sinc(f * step), np.inf)
        if step <= 1:
            correction = np.sinc(f) / np.sinc(f * step)
        out = out * np.expand_dims(correction, (0, 3 - axis))
    return out.astype(np.complex64)


def target_transfer(fwhm_pix: float, shape: tuple[int, int]) -> np.ndarray:
    """Transfer function (M, L // 2 + 1) of the Gaussian target PSF, FWHM in fine pixels; one where the FWHM
    is zero."""
    s = fwhm_pix * FWHM_TO_SIGMA
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    return np.exp(-2 * np.pi**2 * s**2 * (fy[:, None] ** 2 + fx[None, :] ** 2)).astype(np.float32)


def over_target(fwhm_pix: float, shape: tuple[int, int]) -> np.ndarray:
    """One over the transfer function of the target PSF on the grid ``shape``, damped where that is below
    ``DIVISION_FLOOR``; exact at 0, and one everywhere where the FWHM is zero."""
    t = target_transfer(fwhm_pix, shape)
    return t / (t**2 + DIVISION_FLOOR**2) * (1 + DIVISION_FLOOR**2) if fwhm_pix else t


class TransferCache:
    """Transfer functions by PSF content, scales, grid, target and device; least recently used go first."""

    def __init__(self, capacity: int = 256) -> None:
        self.capacity, self.hits, self.misses = capacity, 0, 0
        self._store: OrderedDict[tuple, torch.Tensor] = OrderedDict()

    def get(
        self,
        psf: np.ndarray,
        psf_scale: float,
        fine_scale: float,
        shape: tuple[int, int],
        target_fwhm_pix: float,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """(n, M, L // 2 + 1) complex64 on ``device`` for PSF images (n, p, p)."""
        out: list = [None] * len(psf)
        for i, one in enumerate(np.ascontiguousarray(psf, dtype=np.float32)):
            digest = hashlib.blake2b(one.tobytes(), digest_size=16).digest()
            key = (
                digest,
                one.shape,
                float(psf_scale),
                float(fine_scale),
                shape,
                float(target_fwhm_pix),
                str(device),
            )
            if key in self._store:
                self.hits += 1
                self._store.move_to_end(key)
            else:
                self.misses += 1
                otf = transfer(one[None].astype(np.float64), psf_scale, fine_scale, shape)
                otf = otf * over_target(target_fwhm_pix, shape)
                self._store[key] = torch.from_numpy(otf[0].astype(np.complex64)).to(device)
                while len(self._store) > self.capacity:
                    self._store.popitem(last=False)
            out[i] = self._store[key]
        return torch.stack(out)
