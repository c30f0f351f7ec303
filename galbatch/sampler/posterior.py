"""``sample_posterior``: from a prior and an observation to draws with their diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from galbatch.errors import ConfigError, InputError
from galbatch.forward import steps_of, wavelengths_um
from galbatch.interfaces import Denoiser
from galbatch.prior.compile import full_float32
from galbatch.sampler.draw import Call, draw
from galbatch.sampler.levels import by_itself
from galbatch.sampler.prior import as_denoiser
from galbatch.sampler.schedule import MODES, Mode
from galbatch.sampler.summary import as_posterior, join
from galbatch.types import Observation, Posterior

IMAGES_AT_ONCE = 1024  # on a GPU
READY_AT_ONCE = 4  # pieces of sources that are made ready together on a GPU


def sample_posterior(
    prior: Any,
    obs: Observation | Sequence[Observation],
    draws: int = 16,
    mode: str | Mode = "default",
    oversample: int = 1,
    seed: int = 0,
    source_ids: Any = None,
    batch: int | None = None,
    bands: Sequence | None = None,
    joint: bool = False,
    wavelengths: Sequence[float] | None = None,
    replay: Callable | None = None,
) -> Posterior:
    """Draws from p(x | data) for a batch of sources.

    Parameters
    ----------
    prior : Denoiser
        Any object with ``denoise(x, sigma)``; x and the result (b, c, H, W) float32 tensors, sigma (b,), E[x0
        | x0 + sigma e], and optionally the fields of a ``PriorSpec``. A prior of one channel is applied to
        each band by itself.
    obs : Observation or sequence of Observation
        Several observations are of the same sources on detector grids of their own, whose bands come in turn.
    draws : int
        Draws per source.
    mode : str or Mode
        "fast", "default" or "accurate": how many network evaluations each draw may take.
    oversample : int
        Fine pixels along the side of a detector pixel; of the finest grid.
    seed : int
        With ``source_ids`` and ``bands`` the key of the random numbers, which depend on nothing else.
    source_ids : sequence (b,), optional
        Integers or strings; numbered if left out.
    batch : int, optional
        Sources at once; by itself one on a CPU, else as many as make ``IMAGES_AT_ONCE`` images.
    bands : sequence (c,), optional
        Names of the bands; numbered if left out.
    joint : bool
        A prior that can (a ``JointDenoiser``) sees all bands of a galaxy together: draw k of every band is
        one galaxy, and a band without usable pixels is drawn from the others (``Flag.PREDICTED``).
    wavelengths : sequence (c,), optional
        In micrometres, of the bands then; by themselves what the names of ``bands`` say.
    replay : callable, optional
        How levels are run (``levels.py``); by themselves as CUDA graphs on a card, with the package's own
        networks.

    Returns
    -------
    Posterior
        H = oversample * h; its ``info`` has ``model`` (b, c, h, w), the mean as the telescope would see it
        (of several observations on the pixels of the finest: a band of fewer fills a corner), and
        ``solver_residual`` (b, k), the largest error of a linear solve in standard deviations,
        ``psf_in_error`` (b, c), where draws have PSFs of their own because an error of the PSF shows.

    Raises
    ------
    ConfigError
        Unknown mode.
    InputError
        A PSF that cannot be used, a number of bands that does not fit, stamps of several observations that
        cover unlike squares.

    Examples
    --------
    Two draws of a blob, under the prior that pixels are independent and of standard deviation 10; for
    galaxies ``prior = galbatch.load_prior()``:

    >>> import numpy as np
    >>> import galbatch
    >>> y, x = np.mgrid[:32, :32] - 16
    >>> data = (50 * np.exp(-(x**2 + y**2) / 18))[None, None]
    >>> psf = np.exp(-(np.hypot(*(np.mgrid[:15, :15] - 7)) ** 2) / 8)[None]
    >>> obs = galbatch.Observation(data, np.ones_like(data), psf / psf.sum())
    >>> class White:
    ...     def denoise(self, x, sigma):
    ...         return x * 100 / (100 + sigma[:, None, None, None] ** 2)
    >>> posterior = galbatch.sample_posterior(White(), obs, draws=2, mode="fast")
    >>> posterior.samples.shape
    (1, 2, 1, 32, 32)
    """
    if not isinstance(mode, Mode) and (mode not in MODES or mode == "rerun"):
        names = ", ".join(repr(name) for name in MODES if name != "rerun")
        raise ConfigError(f"mode is {mode!r}: it must be one of {names}, or a Mode of your own.")
    mode = mode if isinstance(mode, Mode) else MODES[mode]
    if draws < 1 or oversample < 1:
        raise ConfigError(f"draws is {draws} and oversample is {oversample}: both must be at least 1.")
    observations = [obs] if isinstance(obs, Observation) else list(obs)
    b, c = len(observations[0].data), sum(o.data.shape[1] for o in observations)
    ids = list(range(b)) if source_ids is None else list(source_ids)
    if len(ids) != b or any(len(o.data) != b for o in observations):
        raise InputError(f"{len(ids)} source_ids for {b} sources: give one id per source.")
    bands = list(range(c)) if bands is None else list(bands)
    if len(bands) != c:
        raise InputError(f"{len(bands)} bands named for data with {c}: give one name per band.")
    prior = as_denoiser(prior)
    if joint and not prior.spec.joint:
        raise ConfigError(
            f"joint is asked for, but the prior {prior.spec.name} sees one band at a time: leave joint out, "
            "or give a joint model."
        )
    joint = joint and c > 1  # of one band both are the same
    together = _wavelengths(bands, wavelengths) if joint else None
    groups = [(observations, oversample, bands)] if joint else _apart(prior, observations, oversample, bands)
    size = batch or sources_at_once(prior.spec.device, draws * c if joint else draws)
    at_once = size if _is_cpu(prior.spec.device) else READY_AT_ONCE * size
    rows = []
    for first in range(0, b, at_once):
        chosen = slice(first, min(first + at_once, b))
        parts = []
        for some, step, own in groups:
            streams = (seed, ids[chosen], own)
            call = Call(mode, draws, step, streams, size, replay or by_itself(prior), together)
            with full_float32():
                parts.append(draw(prior, [_subset(o, chosen, slice(None)) for o in some], call))
        rows.append(join(parts, axis=1))
    return as_posterior(join(rows, axis=0), prior.spec.target_fwhm_pix)


def _apart(prior: Denoiser, observations: list[Observation], oversample: int, bands: list) -> list[tuple]:
    """(observations, fine pixels to a detector pixel, bands) of each call of the sampler: one per band where
    the prior has one channel, else one per observation."""
    groups: list[tuple] = []
    channels = prior.spec.channels
    for obs, step in zip(observations, steps_of(observations, oversample), strict=True):
        c = obs.data.shape[1]
        own, bands = bands[:c], bands[c:]
        if channels not in (None, 1, c):
            raise InputError(
                f"the prior has {channels} bands, the data {c}: choose bands or a prior that fit."
            )
        if channels == 1 and c > 1:
            each = [_subset(obs, slice(None), slice(n, n + 1)) for n in range(c)]
            groups += [([one], step, [name]) for one, name in zip(each, own, strict=True)]
        else:
            groups.append(([obs], step, own))
    return groups


def sources_at_once(device: Any, draws: int) -> int:
    """How many sources are sampled together where nothing else is said."""
    return 1 if _is_cpu(device) else max(1, IMAGES_AT_ONCE // draws)


def _is_cpu(device: Any) -> bool:
    return torch.device(device).type == "cpu"


def _subset(obs: Observation, rows: slice, bands: slice) -> Observation:
    kept: dict[str, Any] = {}
    for name in ("data", "sigma", "psf", "mask", "sigma_white", "shift_pix", "neighbour"):
        value = getattr(obs, name)
        kept[name] = None if value is None else value[rows, bands]
    error = None if obs.psf_error is None else obs.psf_error[bands]
    kept["psf_error"] = error if error is not None and error.any() else None
    return replace(obs, **kept, noise_acf=None if obs.noise_acf is None else obs.noise_acf[bands])


def _wavelengths(bands: Sequence, given: Sequence[float] | None) -> list[float]:
    found = wavelengths_um(list(bands)) if given is None else [float(value) for value in given]
    if len(found) != len(bands) or not all(value > 0 for value in found):
        raise InputError(
            f"wavelengths are {found} for {len(bands)} bands: give one positive number per band, in "
            "micrometres."
        )
    return found
