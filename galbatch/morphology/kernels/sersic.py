"""Bounded least squares fit of a Sersic profile (Levenberg-Marquardt, analytic derivatives).

The model of draws is convolved with the Gaussian target PSF, so that the parameters are those of the galaxy
before any PSF; without a PSF the model is sampled at pixel centres, as by statmorph. Bounds: 0.01 < n < 20,
0.05 pixel < r_c < 4 stamps, e < 0.98, centre inside the stamp.
"""

from __future__ import annotations

import math

import numpy as np

from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.kernels.filters import blur_columns, blur_rows, gaussian_weights
from galbatch.morphology.kernels.jit import kernel, sum_kernel
from galbatch.morphology.kernels.sersic_model import N_HIGH, N_LOW, N_PARAMETERS, model_images

N_RESULTS = 10
MAX_STEPS = 60
TOLERANCE = 1e-5
DIVIDE = 5  # points a side of the central pixels where there is a PSF
_E_HIGH = 0.98
_R_LOW = 0.05
F_START, F_FEW = int(MorphFlag.SERSIC_START), int(MorphFlag.SERSIC_FEW_PIXELS)
F_NOT_CONVERGED, F_BOUND = int(MorphFlag.SERSIC_NOT_CONVERGED), int(MorphFlag.SERSIC_BOUND)


@sum_kernel
def _product(one, two):
    total = 0.0
    for i in range(one.size):
        total += one[i] * two[i]
    return total


@kernel
def normal_equations(images, data, weight, normal, gradient):
    """Fill the lower triangle of ``normal`` (7, 7) and ``gradient`` (7,); returns chi2. Overwrites
    ``images``."""
    for a in range(7):
        gradient[a] = 0.0
        for b in range(7):
            normal[a, b] = 0.0
    chi2 = 0.0
    for y in range(data.shape[0]):
        rows, w = images[y], weight[y]
        for x in range(w.size):
            rows[0, x] = data[y, x] - rows[0, x]
        for m in range(8):
            row = rows[m]
            for x in range(w.size):
                row[x] *= w[x]
        chi2 += _product(rows[0], rows[0])
        for a in range(7):
            gradient[a] += _product(rows[a + 1], rows[0])
            for b in range(a + 1):
                normal[a, b] += _product(rows[a + 1], rows[b + 1])
    return chi2


@kernel
def solve_damped(normal, gradient, damping, step):
    """``step`` = (normal + damping diag)^-1 gradient by Cholesky; False if not positive definite."""
    n = gradient.size
    low = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            s = normal[i, j]
            if i == j:
                s += damping * normal[i, i] + 1e-300
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                if not s > 0.0:
                    return False
                low[i, i] = math.sqrt(s)
            else:
                low[i, j] = s / low[j, j]
    for i in range(n):
        s = gradient[i]
        for k in range(i):
            s -= low[i, k] * step[k]
        step[i] = s / low[i, i]
    for i in range(n - 1, -1, -1):
        s = step[i]
        for k in range(i + 1, n):
            s -= low[k, i] * step[k]
        step[i] = s / low[i, i]
    return True


@kernel
def limit(p, ny, nx):
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


@kernel
def propose(p, normal, gradient, damping, trial):
    """Next point of the search into ``trial``; False if the equations are singular."""
    step = np.empty(N_PARAMETERS)
    if not solve_damped(normal, gradient, damping, step):
        return False
    for k in range(N_PARAMETERS):
        trial[k] = p[k] + step[k]
    for k in range(1, 3):  # at most a factor of e in radius and index
        trial[k] = p[k] + min(max(step[k], -1.0), 1.0)
    return True


@kernel
def noise_is_known(sigma):
    """Whether any pixel of the noise map is finite."""
    for y in range(sigma.shape[0]):
        for x in range(sigma.shape[1]):
            if math.isfinite(sigma[y, x]):
                return True
    return False


@kernel
def weights(image, good, sigma, weight):
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


@kernel
def start_point(x, y, r_half, ellipticity, theta, concentration, p):
    """First guess from the non-parametric statistics, as statmorph's; the amplitude is left at one."""
    e = min(max(ellipticity, 0.0), 0.95)
    n = 10.0 ** (-1.5) * concentration**3.5 if math.isfinite(concentration) else 1.0
    p[0], p[1] = 1.0, math.log(max(r_half, 0.5) * math.sqrt(1.0 - e))
    p[2], p[3], p[4] = math.log(min(max(n, 1.0), 3.5)), x, y
    p[5], p[6] = e * math.cos(2.0 * theta), e * math.sin(2.0 * theta)


@kernel
def information_criteria(chi2, n_pixels):
    """(chi2 per degree of freedom, Akaike, Bayesian) of a fit, as astropy.stats has them for least
    squares."""
    m, n = N_PARAMETERS, n_pixels
    level = n * math.log(max(chi2, 1e-300) / n)
    small = 2.0 * m * (m + 1.0) / (n - m - 1.0) if n / m < 40.0 and n > m + 1 else 0.0
    return chi2 / (n - m), 2.0 * m + level + small, m * math.log(n) + level


@kernel
def report(p, chi2, n_pixels, known, out):
    """Fill ``out`` with n, r_e, ellipticity, orientation, amplitude, x, y, chi2 per degree of freedom, AIC,
    BIC."""
    e = math.hypot(p[5], p[6])
    out[0], out[1], out[2] = math.exp(p[2]), math.exp(p[1]) / math.sqrt(1.0 - e), e
    out[3] = (0.5 * math.atan2(p[6], p[5])) % math.pi
    out[4], out[5], out[6] = p[0], p[3], p[4]
    if known:
        out[7], out[8], out[9] = information_criteria(chi2, n_pixels)


@kernel
def _evaluate(p, psf_sigma, images):
    model_images(p, images, DIVIDE if psf_sigma > 0.0 else 1)
    if psf_sigma > 0.0:
        ny, m, nx = images.shape
        weight = gaussian_weights(psf_sigma)
        blurred = blur_columns(images.reshape(ny, m * nx), weight, False)
        blur_rows(blurred.reshape(ny * m, nx), weight, False, images.reshape(ny * m, nx))


@kernel
def _scale_to(images, data, weight):
    """Multiply a model of unit amplitude, with its derivatives, by the amplitude that fits best; returns
    it."""
    product = square = 0.0
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            m, w2 = images[y, 0, x], weight[y, x] * weight[y, x]
            product += w2 * m * data[y, x]
            square += w2 * m * m
    amplitude = product / square if square > 0.0 and product != 0.0 else 1.0
    for y in range(images.shape[0]):
        for m in range(images.shape[1]):
            if m != 1:
                for x in range(images.shape[2]):
                    images[y, m, x] *= amplitude
    return amplitude


@kernel
def fit(image, good, sigma, psf_sigma, x, y, r_half, ellipticity, theta, concentration, out):
    """Fit one image and fill ``out`` (see ``report``); returns flag bits."""
    ny, nx = image.shape
    weight = np.empty((ny, nx))
    n_pixels = weights(image, good, sigma, weight)
    if n_pixels <= N_PARAMETERS:
        return F_FEW
    flags = F_START if not r_half >= 0.5 else 0
    p, trial = np.empty(N_PARAMETERS), np.empty(N_PARAMETERS)
    start_point(x, y, r_half, ellipticity, theta, concentration, p)
    images = np.empty((ny, 8, nx))
    normal, gradient = np.empty((7, 7)), np.empty(7)
    normal2, gradient2 = np.empty((7, 7)), np.empty(7)
    _evaluate(p, psf_sigma, images)
    p[0] = _scale_to(images, image, weight)
    if p[0] < 0.0:
        flags |= F_START
    chi2 = normal_equations(images, image, weight, normal, gradient)
    damping, converged, hits = 1e-3, False, 0
    for _ in range(MAX_STEPS):
        if not propose(p, normal, gradient, damping, trial):
            damping *= 10.0
            continue
        hit = limit(trial, ny, nx)
        _evaluate(trial, psf_sigma, images)
        chi2_trial = normal_equations(images, image, weight, normal2, gradient2)
        if chi2_trial <= chi2:
            gain = (chi2 - chi2_trial) / max(chi2, 1e-300)
            hits, chi2 = hit, chi2_trial
            p, trial = trial, p
            normal, normal2, gradient, gradient2 = normal2, normal, gradient2, gradient
            damping = max(0.1 * damping, 1e-9)
            if gain < TOLERANCE:
                converged = True
                break
        else:
            damping *= 8.0
            if damping > 1e10:
                converged = True
                break
    report(p, chi2, n_pixels, noise_is_known(sigma), out)
    return flags | (0 if converged else F_NOT_CONVERGED) | (F_BOUND if hits > 0 else 0)
