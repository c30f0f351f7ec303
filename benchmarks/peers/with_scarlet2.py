"""scarlet2 (Melchior et al.) with the score network of galaxygrad (Sampson et al. 2024) as the prior of the
galaxy's image, as scarlet2's guide on neural priors sets it up: one best image, since the density that its
sampler would need is not the prior's.

    pip install scarlet2==0.5.1 galaxygrad==0.2.1
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from problem import Problem
from scipy import ndimage


def best_image(problem: Problem, budget: int, knob: tuple, draws: int, seed: int):
    """``knob``: temperature of the score, and the step of the image, whose peak starts at one."""
    import jax.numpy as jnp
    import scarlet2 as sc2
    from numpyro.distributions import constraints
    from scarlet2.nn import ScorePrior

    temperature, step = knob
    sc2.set_validation(False)
    data, variance = problem.stamp(0)
    known = problem.obs.valid[0, 0]
    smooth = ndimage.gaussian_filter(data, 1)
    point = np.zeros((3, 3))
    point[1, 1] = 1  # the model is at the target PSF, and the blur from there is what is left of the PSF
    frame = sc2.Frame(sc2.Box((1, *data.shape)), psf=sc2.ArrayPSF(jnp.asarray(point)))
    seen = sc2.Observation(data[None], np.where(known, 1 / variance, 0)[None], psf=problem.narrow_psf()[None])
    seen.match(frame)
    with sc2.Scene(frame) as scene:
        centre = jnp.asarray(data.shape) // 2
        sc2.Source(centre, jnp.asarray([smooth.max()]), jnp.asarray(smooth.clip(0) / smooth.max()))
    with sc2.Parameters(scene):
        source = scene.sources[0]
        prior = ScorePrior(_hsc_score(), data.shape, t=temperature)
        relative = partial(sc2.relative_step, factor=0.05)
        sc2.Parameter(source.spectrum, name="flux", constraint=constraints.positive, stepsize=relative)
        sc2.Parameter(source.morphology, name="image", prior=prior, stepsize=step)
    return np.asarray(scene.fit(seen, max_iter=1000, e_rel=1e-4, progress_bar=False)(), float)


def _hsc_score():
    """galaxygrad's score of 64-pixel HSC galaxies. Its package of 0.2.1 asks for a file by a name in other
    letters than the wheel's, so it cannot be imported where case matters: network and weights are taken by
    themselves, with its numbers."""
    import equinox as eqx
    import jax

    folder = Path(find_spec("galaxygrad").submodule_search_locations[0])
    spec = spec_from_file_location("galaxygrad_models", folder / "models_eqx.py")
    spec.loader.exec_module(models := module_from_spec(spec))
    empty = models.ScoreNet((1, 64, 64), 4, 64, 512, 512, 4, 10.0, key=jax.random.PRNGKey(0))
    network = eqx.tree_deserialise_leaves(folder / "eqx_hsc_ScoreNet64.eqx", empty)
    width = 0.1  # it was trained on log(1 + x) / width

    def score(x, t):
        return network(jax.numpy.log(1 + x) / width, t) / (width * (1 + x))

    return score
