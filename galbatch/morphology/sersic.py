"""Sersic fit stub."""
from galbatch.morphology._jit import kernel
N_RESULTS = 10

@kernel
def fit(image, good, sigma, psf_sigma, x, y, a_half, ellipticity, theta, concentration, out):
    return 0
