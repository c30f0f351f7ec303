"""Bounded least squares fit of a Sersic profile (Levenberg-Marquardt, analytic derivatives).

The model of draws is convolved with the Gaussian target PSF, so that the parameters are those of the galaxy
before any PSF; without a PSF the model is sampled at pixel centres, as by statmorph. Far from the centre
pixels are fitted in blocks. Bounds: 0.01 < n < 20,
0.05 pixel < r_c < 4 stamps, e < 0.98, centre inside the stamp.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.kernels.filters import blur_columns, blur_rows, gaussian_weights
from galbatch.morphology.kernels.jit import kernel, leaf
from galbatch.morphology.kernels.least_squares import add_row, clear, expected_gain, propose
from galbatch.morphology.kernels.sersic_model import (
    N_HIGH,
    N_LOW,
    N_PARAMETERS,
    block_models,
    make_blocks,
    model_images,
    window_of,
)

SersicProblem = tuple[
    np.ndarray,
    np.ndarray,
    tuple[int, ...],
    tuple[int, int],
    tuple[np.ndarray, np.ndarray, np.ndarray, float],
    np.ndarray,
    np.ndarray,
    float,
]

MAX_STEPS = 60
TOLERANCE = 1e-5
DIVIDE = 5  # points a side of the central pixels where there is a PSF
_NEAR = 0.1
_E_HIGH = 0.98
_R_LOW = 0.05
F_START, F_FEW = int(MorphFlag.SERSIC_START), int(MorphFlag.SERSIC_FEW_PIXELS)
F_NOT_CONVERGED, F_BOUND = int(MorphFlag.SERSIC_NOT_CONVERGED), int(MorphFlag.SERSIC_BOUND)


@leaf
def limit(p: np.ndarray, ny: int, nx: int) -> int:
    """Move ``p`` inside the bounds; returns how many of them it was at."""
    hits = 0
    lows = (math.log(_R_LOW), math.log(N_LOW), -0.5, -0.5)
    highs = (math.log(4.0 * max(ny, nx)), math.log(N_HIGH), nx - 0.5, ny - 0.5)
    for k in range(4):
        if p[k + 1] <= lows[k]:
            p[k + 1] = lows[k]
            hits += 1
        elif p[k + 1] >= highs[k]:
            p[k + 1] = highs[k]
            hits += 1
    e = math.hypot(p[5], p[6])
    if e >= _E_HIGH:
        p[5] *= _E_HIGH / e
        p[6] *= _E_HIGH / e
        hits += 1
    return hits


@leaf
def noise_is_known(sigma: np.ndarray) -> bool:
    """Whether any pixel of the noise map is finite."""
    for y in range(sigma.shape[0]):
        for x in range(sigma.shape[1]):
            if math.isfinite(sigma[y, x]):
                return True
    return False


@leaf
def weights(image: np.ndarray, good: np.ndarray, sigma: np.ndarray, weight: np.ndarray) -> int:
    """1 / sigma on the pixels that enter the fit (1 where the noise is not known at all); returns their
    number."""
    n = 0
    known = noise_is_known(sigma)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            s = abs(sigma[y, x]) if known else 1.0
            use = good[y, x] > 0.0 and image[y, x] != 0.0 and math.isfinite(s) and s > 0.0
            weight[y, x] = 1.0 / s if use else 0.0
            n += 1 if use else 0
    return n


@leaf
def start_point(
    x: float, y: float, r_half: float, ellipticity: float, theta: float, concentration: float, p: np.ndarray
) -> None:
    """First guess from the non-parametric statistics, as statmorph's; the amplitude is left at one."""
    e = min(max(ellipticity, 0.0), 0.95)
    n = 10.0 ** (-1.5) * concentration**3.5 if math.isfinite(concentration) else 1.0
    p[0], p[1] = 1.0, math.log(max(r_half, 0.5) * math.sqrt(1.0 - e))
    p[2], p[3], p[4] = math.log(min(max(n, 1.0), 3.5)), x, y
    p[5], p[6] = e * math.cos(2.0 * theta), e * math.sin(2.0 * theta)


@leaf
def information_criteria(chi2: float, n_pixels: int) -> tuple[float, ...]:
    """(chi2 per degree of freedom, Akaike, Bayesian) of a fit, as astropy.stats has them for least
    squares."""
    m, n = N_PARAMETERS, n_pixels
    level = n * math.log(max(chi2, 1e-300) / n)
    small = 2.0 * m * (m + 1.0) / (n - m - 1.0) if n / m < 40.0 and n > m + 1 else 0.0
    return chi2 / (n - m), 2.0 * m + level + small, m * math.log(n) + level


@leaf
def report(p: np.ndarray, chi2: float, n_pixels: int, known: bool, out: np.ndarray) -> None:
    """Fill ``out`` with n, r_e, ellipticity, orientation, amplitude, x, y, chi2 per degree of freedom, AIC,
    BIC."""
    e = math.hypot(p[5], p[6])
    out[0], out[1], out[2] = math.exp(p[2]), math.exp(p[1]) / math.sqrt(1.0 - e), e
    out[3] = (0.5 * math.atan2(p[6], p[5])) % math.pi
    out[4], out[5], out[6] = p[0], p[3], p[4]
    if known:
        out[7], out[8], out[9] = information_criteria(chi2, n_pixels)


@kernel
def _new_problem(
    image: np.ndarray, weight: np.ndarray, psf_sigma: float, x: float, y: float
) -> SersicProblem:
    """(image, weight, window, origin, blocks, images, block images, PSF sigma): the data of a fit whose
    centre is near (x, y); room for the models of the pixels from ``origin`` on, (H, 8, W), and of the
    blocks."""
    ny, nx = image.shape
    (y0, y1), (x0, x1) = window_of(y, ny), window_of(x, nx)
    blocks = make_blocks(image, weight, (y0, y1, x0, x1), (y, x))
    border = gaussian_weights(psf_sigma).size - 1 if psf_sigma > 0.0 else 0
    origin = (max(0, y0 - border), max(0, x0 - border))
    images = np.empty((min(ny, y1 + border) - origin[0], 8, min(nx, x1 + border) - origin[1]))
    block_images = np.empty((3, 8, blocks[0].shape[1]))
    return image, weight, (y0, y1, x0, x1), origin, blocks, images, block_images, psf_sigma


@kernel
def _evaluate(problem: SersicProblem, p: np.ndarray) -> None:
    """Fill the images of ``problem`` with the model at ``p`` and its derivatives."""
    _image, _weight, _window, origin, blocks, images, block_images, psf_sigma = problem
    model_images(p, origin[0], origin[1], images, DIVIDE if psf_sigma > 0.0 else 1)
    if psf_sigma > 0.0:
        ny, m, nx = images.shape
        weight = gaussian_weights(psf_sigma)
        blurred, padded = np.empty((ny, m * nx)), np.empty(nx + 2 * weight.size - 2)
        blur_columns(images.reshape(ny, m * nx), weight, False, blurred)
        blur_rows(blurred.reshape(ny * m, nx), weight, False, padded, images.reshape(ny * m, nx))
    block_models(p, psf_sigma, blocks[0], block_images)


@leaf
def _normal_equations(problem: SersicProblem, normal: np.ndarray, gradient: np.ndarray) -> float:
    """Fill ``normal`` and ``gradient`` from evaluated models, which are overwritten; returns chi2."""
    clear(normal, gradient)
    image, weight, window, origin, blocks, images, block_images, _psf_sigma = problem
    _place, data, root, chi2 = blocks
    y0, y1, x0, x1 = window
    for y in range(y0, y1):
        chi2 += add_row(
            images[y - origin[0]], x0 - origin[1], image[y, x0:x1], weight[y, x0:x1], normal, gradient
        )
    for kind in range(3):
        chi2 += add_row(block_images[kind], 0, data[kind], root[kind], normal, gradient)
    return chi2


@leaf
def _best_amplitude(problem: SersicProblem) -> float:
    """The amplitude of an evaluated model of unit amplitude that fits best; 1 where there is none."""
    image, weight, window, origin, blocks, images, block_images, _psf_sigma = problem
    product = square = 0.0
    y0, y1, x0, x1 = window
    for y in range(y0, y1):
        for x in range(x0, x1):
            m, w = images[y - origin[0], 0, x - origin[1]], weight[y, x] * weight[y, x]
            product += w * m * image[y, x]
            square += w * m * m
    _place, data, root, _scatter = blocks
    for i in range(root.shape[1]):
        m, w = block_images[0, 0, i], root[0, i] * root[0, i]
        product += w * m * data[0, i]
        square += w * m * m
    return product / square if square > 0.0 and product != 0.0 else 1.0


@kernel
def _search(problem: SersicProblem, p: np.ndarray) -> tuple[np.ndarray, float, bool, int]:
    """(best parameters, chi2, whether the search ended by itself, bounds it is at) from ``p`` on."""
    ny, nx = problem[0].shape
    trial, normal, gradient = np.empty(N_PARAMETERS), np.empty((7, 7)), np.empty(7)
    normal2, gradient2 = np.empty((7, 7)), np.empty(7)
    _evaluate(problem, p)
    chi2 = _normal_equations(problem, normal, gradient)
    damping, hits = 1e-3, 0
    for _ in range(MAX_STEPS):
        if not propose(p, normal, gradient, damping, trial):
            damping *= 10.0
            continue
        hit = limit(trial, ny, nx)
        expected = expected_gain(p, trial, normal, gradient)
        if hit == 0 and 0.0 <= expected < _NEAR * TOLERANCE * chi2:  # so near that the step needs no proof
            return trial, chi2 - expected, True, 0
        _evaluate(problem, trial)
        chi2_trial = _normal_equations(problem, normal2, gradient2)
        if chi2_trial <= chi2:
            gain = (chi2 - chi2_trial) / max(chi2, 1e-300)
            hits, chi2 = hit, chi2_trial
            p, trial = trial, p
            normal, normal2, gradient, gradient2 = normal2, normal, gradient2, gradient
            damping = max(0.1 * damping, 1e-9)
            if gain < TOLERANCE:
                return p, chi2, True, hits
        else:
            damping *= 8.0
            if damping > 1e10:
                return p, chi2, True, hits
    return p, chi2, False, hits


@kernel
def fit(
    image: np.ndarray,
    good: np.ndarray,
    sigma: np.ndarray,
    psf_sigma: float,
    x: float,
    y: float,
    r_half: float,
    ellipticity: float,
    theta: float,
    concentration: float,
    out: np.ndarray,
) -> int:
    """Fit one image and fill ``out`` (see ``report``); returns flag bits."""
    weight = np.empty(image.shape)
    n_pixels = weights(image, good, sigma, weight)
    if n_pixels <= N_PARAMETERS:
        return F_FEW
    problem, p = _new_problem(image, weight, psf_sigma, x, y), np.empty(N_PARAMETERS)
    start_point(x, y, r_half, ellipticity, theta, concentration, p)
    _evaluate(problem, p)
    p[0] = _best_amplitude(problem)
    flags = F_START if p[0] < 0.0 or not r_half >= 0.5 else 0
    p, chi2, converged, hits = _search(problem, p)
    report(p, chi2, n_pixels, noise_is_known(sigma), out)
    return flags | (0 if converged else F_NOT_CONVERGED) | (F_BOUND if hits > 0 else 0)
