"""``sample_posterior``: from a prior and an observation to draws with their diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from galbatch.errors import ConfigError, InputError
from galbatch.forward import wavelengths_um
from galbatch.prior.compile import full_float32
from galbatch.sampler.draw import Call, draw
from galbatch.sampler.levels import one_by_one
from galbatch.sampler.prior import as_denoiser
from galbatch.sampler.schedule import MODES, Mode
from galbatch.sampler.summary import as_posterior, join
from galbatch.types import Observation, Posterior

IMAGES_AT_ONCE = 1024  # on a GPU
READY_AT_ONCE = 4  # pieces of sources that are made ready together on a GPU


def sample_posterior(
    prior: Any,
    obs: Observation,
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

    ``prior``: any object with ``denoise(x, sigma)``; x and the result (b, c, H, W) float32 tensors, sigma
    (b,), E[x0 | x0 + sigma e], and optionally the fields of a ``PriorSpec`` (``interfaces.py``). A prior of
    one channel is applied to each band by itself; with ``joint`` one that can (a ``JointDenoiser``) sees all
    bands of a galaxy together, draw k of every band is one galaxy, and a band without usable pixels is drawn
    from the others (``Flag.PREDICTED``). ``wavelengths`` (c,) in micrometres: of the bands then; by
    themselves what the names of ``bands`` say. ``mode``: 'fast', 'default' or 'accurate', or a
    ``Mode``. ``source_ids`` (b,) and ``bands`` (c,), integers or strings (numbered if left out), key the
    random numbers with ``seed``: they depend on nothing else. ``batch``: sources at once (by
    itself one on a CPU, else as many as make ``IMAGES_AT_ONCE`` images). ``replay``: how levels are run again
    (``levels.py``).

    Returns a ``Posterior`` with H = oversample * h; its ``info`` has ``model`` (b, c, h, w), the mean as the
    telescope would see it, and ``solver_residual`` (b, k), the largest error of a linear solve in standard
    deviations. Raises ``ConfigError`` for an unknown mode, ``InputError`` for a PSF that cannot be used or a
    number of bands that does not fit.
    """
    if not isinstance(mode, Mode) and (mode not in MODES or mode == "rerun"):
        raise ConfigError(
            f"mode is {mode!r}: it must be 'fast', 'default' or 'accurate', or a Mode of your own."
        )
    mode = mode if isinstance(mode, Mode) else MODES[mode]
    if draws < 1 or oversample < 1:
        raise ConfigError(f"draws is {draws} and oversample is {oversample}: both must be at least 1.")
    b, c = obs.data.shape[:2]
    ids = list(range(b)) if source_ids is None else list(source_ids)
    if len(ids) != b:
        raise InputError(f"{len(ids)} source_ids for {b} sources: give one id per source.")
    bands = list(range(c)) if bands is None else list(bands)
    if len(bands) != c:
        raise InputError(f"{len(bands)} bands named for data with {c}: give one name per band.")
    prior = as_denoiser(prior)
    channels = prior.spec.channels
    if channels not in (None, 1, c):
        raise InputError(f"the prior has {channels} bands, the data {c}: choose bands or a prior that fit.")
    if joint and not prior.spec.joint:
        raise ConfigError(
            f"joint is asked for, but the prior {prior.spec.name} sees one band at a time: leave joint out, "
            "or give a joint model."
        )
    joint = joint and c > 1  # of one band both are the same
    separate = channels == 1 and c > 1 and not joint
    together = _wavelengths(bands, wavelengths) if joint else None
    size = batch or sources_at_once(prior.spec.device, draws * c if joint else draws)
    at_once = size if _is_cpu(prior.spec.device) else READY_AT_ONCE * size
    parts = []
    for first in range(0, b, at_once):
        chosen = slice(first, min(first + at_once, b))
        for band in range(c) if separate else (slice(None),):
            part, own = _subset(obs, chosen, band), [bands[band]] if separate else bands
            streams = (seed, ids[chosen], own)
            call = Call(mode, draws, oversample, streams, size, replay or one_by_one, together)
            with full_float32():
                parts.append(draw(prior, part, call))
    n_bands = c if separate else 1
    rows = [join(parts[i : i + n_bands], axis=1) for i in range(0, len(parts), n_bands)]
    return as_posterior(join(rows, axis=0), prior.spec.target_fwhm_pix)


def _wavelengths(bands: Sequence, given: Sequence[float] | None) -> list[float]:
    found = wavelengths_um(list(bands)) if given is None else [float(value) for value in given]
    if len(found) != len(bands) or not all(value > 0 for value in found):
        raise InputError(
            f"wavelengths are {found} for {len(bands)} bands: give one positive number per band, in "
            "micrometres."
        )
    return found


def sources_at_once(device: Any, draws: int) -> int:
    """How many sources are sampled together where nothing else is said."""
    return 1 if _is_cpu(device) else max(1, IMAGES_AT_ONCE // draws)


def _is_cpu(device: Any) -> bool:
    return torch.device(device).type == "cpu"


def _subset(obs: Observation, rows: Any, band: Any) -> Observation:
    bands = slice(band, band + 1) if isinstance(band, int) else band
    return Observation(
        obs.data[rows, bands],
        obs.sigma[rows, bands],
        obs.psf[rows, bands],
        None if obs.mask is None else obs.mask[rows, bands],
        obs.pixel_scale_arcsec,
        obs.psf_scale_arcsec,
        None if obs.noise_acf is None else obs.noise_acf[bands],
        None if obs.sigma_white is None else obs.sigma_white[rows, bands],
        None if obs.psf_error is None or not obs.psf_error[bands].any() else obs.psf_error[bands],
    )
