"""Compilation ahead of time, so that no batch waits for it."""

from __future__ import annotations

import numpy as np

_SIDE = 24


def compile_kernels() -> None:
    """Compile all that ``measure`` and ``measure_posterior`` run, or load it from the cache of this
    installation.

    Some 30 s of one core the first time on a machine, a second afterwards. Processes that start at once wait
    for the first of them. May be called from a thread: most of it runs without holding up what others compute
    on GPUs, but on the CPU it takes a core.
    """
    from galbatch.morphology.posterior import measure_posterior

    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2
    image = np.exp(-np.hypot(y, x) / 3.0)[None]
    psf = np.exp(-(y[:9, :9] ** 2 + x[:9, :9] ** 2) / 4.0)[None]
    measure_posterior(image[:, None], image, np.full(image.shape, 0.05), psf=psf, threads=1)
