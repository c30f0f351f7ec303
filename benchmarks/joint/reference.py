"""What other bands can tell of a colour: the exact posterior of a Gaussian prior, bands together and apart.

    python benchmarks/joint/reference.py

Fields of a red spectrum on 24 x 24 pixels in two bands that correlate by 0.95, the second seen through a PSF
of twice the width, under white noise; the error of the difference of the bands (a colour to first order) of
the light in a circle of 6 pixels and of single pixels: together over apart.
"""

import numpy as np

N, RHO, SIGMA_PIX = 24, 0.95, (1.0, 2.0)


def matrix(spectrum):
    """(N^2, N^2) of the stationary operator with this transfer on the torus."""
    kernel, i = np.fft.ifft2(spectrum).real, np.arange(N)
    dy = (i[:, None, None, None] - i[None, None, :, None]) % N
    dx = (i[None, :, None, None] - i[None, None, None, :]) % N
    return kernel[dy, dx].reshape(N * N, N * N)


def posterior(covariance, seen, noise):
    """Covariance of all bands given the data of each."""
    gain = covariance @ seen.T @ np.linalg.inv(seen @ covariance @ seen.T + np.diag(noise))
    return covariance - gain @ seen @ covariance


def main():
    f = np.fft.fftfreq(N)
    k2 = f[:, None] ** 2 + f**2
    power = (k2 + 0.002) ** -1.5
    one = matrix(power / power.mean())
    seen = np.kron(np.diag([1.0, 0]), matrix(np.exp(-2 * np.pi**2 * SIGMA_PIX[0] ** 2 * k2)))
    seen += np.kron(np.diag([0, 1.0]), matrix(np.exp(-2 * np.pi**2 * SIGMA_PIX[1] ** 2 * k2)))
    y, x = np.indices((N, N)) - N / 2
    circle = (np.hypot(y, x) < 6).ravel().astype(float)
    pixel = (np.arange(N * N) == N * N // 2 + N // 2).astype(float)
    print("noise of the two bands   light in the circle   a pixel")
    for levels in ((0.03, 0.03), (0.1, 0.1), (0.3, 0.3), (0.03, 0.3), (1.0, 1.0)):
        noise = np.repeat(np.square(levels), N * N)
        both, apart = (
            posterior(np.kron(r, one), seen, noise) for r in (np.array([[1, RHO], [RHO, 1]]), np.eye(2))
        )
        found = []
        for weight in (circle, pixel):
            w = np.concatenate([weight, -weight])
            found.append(np.sqrt((w @ both @ w) / (w @ apart @ w)))
        print(f"{levels[0]:6} {levels[1]:6} {found[0]:22.2f} {found[1]:17.2f}")


if __name__ == "__main__":
    main()
