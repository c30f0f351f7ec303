"""STARRED (Michalewicz et al. 2023, Millon et al. 2024): its starlets, and its correlated field with metric
Gaussian variational inference by nifty (Knollmueller & Ensslin 2019). Neither is trained on galaxies, and no
point source is fitted.

Both see the stamp in units of its peak, with ``BORDER`` pixels around it of which nothing is known, and the
blur between the target PSF and the data, so the image that they fit is at the target PSF.

    pip install starred-astro==1.7.1 nifty8
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from problem import Problem
from scipy import ndimage

BORDER = 8
CACHE = str(Path(gettempdir()) / "galbatch-peers-jax")
# As STARRED has them by default. Started from the most probable field, the first draws are far too wide, and
# four iterations do not mend that.
ITERATIONS, PAIRS = 10, 4
STEPS = 1000


def correlated_field(problem: Problem, budget: int, knob: tuple, draws: int, seed: int):
    """A Gaussian random field or its exponential, of which the power spectrum is found with it. ``knob``:
    whether it is the exponential, its mean, and the slope of its amplitudes. nifty draws in pairs that mirror
    each other: one of each is kept, so that draws are independent."""
    from starred.optim.vi import VIOptimizer

    positive, mean, slope = knob
    field = {"exponentiate": positive, "offset_mean": mean, "prior_loglogavgslope": (slope, 0.5)}
    fit = _Fit(problem, background_mode="correlated_field", correlated_field_kwargs=field)
    inference = VIOptimizer(*fit.loss(regularization_terms="none"), method="mgvi")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = inference.run(ITERATIONS, max(draws, PAIRS), seed=seed, verbose=False)[2]["samples"]
    return np.stack([fit.image(one) for one in inference.get_posterior_kwargs(found)[::2]])[:draws]


def starlets(problem: Problem, budget: int, knob: tuple, draws: int, seed: int):
    """One image, positive and with few starlet coefficients; ``knob``: the strengths of the finest scale and
    of the others. It starts from the smoothed data: from nothing, L-BFGS-B never leaves it."""
    from starred.optim.optimization import Optimizer
    from starred.utils.noise_utils import propagate_noise

    finest, others = knob
    fit = _Fit(problem)
    fit.start["kwargs_background"]["h"] = ndimage.gaussian_filter(fit.data[0], 1).clip(0).ravel()
    weights = propagate_noise(
        fit.model, np.sqrt(fit.variance), fit.start, method="MC", num_samples=100, seed=1, upsampling_factor=1
    )[0]
    loss, parameters = fit.loss(
        regularization_strength_hf=finest,
        regularization_strength_scales=others,
        regularization_strength_positivity=100,
        W=weights,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        Optimizer(loss, parameters, method="adabelief").minimize(STEPS, init_learning_rate=0.01)
    return fit.image(parameters.best_fit_values(as_kwargs=True))[None]


class _Fit:
    """STARRED's model of one stamp without point sources and without a sky to fit."""

    def __init__(self, problem: Problem, **background):
        import jax
        from starred.deconvolution import deconvolution

        jax.config.update(
            "jax_use_simplified_jaxpr_constants", True
        )  # so that compiled code serves all galaxies
        jax.config.update("jax_compilation_cache_dir", CACHE)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        # one exposure is not turned or moved against itself: to do so by zero takes four fifths of the time
        deconvolution.rotate_array = lambda image, angle: image
        deconvolution.translate_array = lambda image, dx, dy: image
        data, variance = problem.stamp(BORDER)
        self.unit = float(ndimage.gaussian_filter(data, 1).max())
        self.data, self.variance = data[None] / self.unit, variance[None] / self.unit**2
        # its convolution by FFT turns the PSF by 180 degrees, and wants it even, centred a pixel before n / 2
        turned = problem.narrow_psf()[::-1, ::-1]
        psf, none = np.pad(turned, ((BORDER, BORDER + 1),) * 2), np.zeros(0)
        self.model, self.start, self.up, self.down, self.fixed = deconvolution.setup_model(
            self.data,
            self.variance,
            psf[None],
            *(none, none, 1, none.copy()),
            convolution_method="fft",
            **background,
        )
        self.model.scale = 1.0  # of point sources; a number of its own would have every galaxy compiled anew
        self.fixed["kwargs_background"]["mean"] = np.zeros(1)

    def loss(self, **terms):
        from starred.deconvolution.loss import Loss
        from starred.deconvolution.parameters import ParametersDeconv

        parameters = ParametersDeconv(self.start, self.fixed, self.up, self.down)
        return Loss(self.data, self.model, parameters, self.variance, **terms), parameters

    def image(self, fitted: dict) -> np.ndarray:
        """(h, w) in the unit of the data."""
        inner = slice(BORDER, -BORDER)
        return np.asarray(self.model.getDeconvolved(fitted)[0], float)[inner, inner] * self.unit
