"""Spectra of the parts of a galaxy: how bright old and young stars are at any wavelength, and how dust dims.

A part is known by its colour, flux at ``BLUE_UM`` over flux at ``RED_UM`` (per frequency, as all fluxes).
At other wavelengths its logarithm lies between those of two populations, 10 Gyr old and forming stars for
100 Myr, as far as its colour does (shapes after Bruzual & Charlot 2003). The optical depth falls as a power
of the wavelength, as in Charlot & Fall (2000), 1.8 times as deep in the blue as in the red.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLUE_UM, RED_UM = 0.4809, 0.7703
TABLE = np.array(
    [  # wavelength (micron), f_nu of old and of young stars, 1 at RED_UM
        [0.10, 0.004, 0.60],
        [0.15, 0.006, 0.95],
        [0.20, 0.006, 1.05],
        [0.25, 0.013, 1.05],
        [0.30, 0.040, 1.05],
        [0.36, 0.105, 1.10],
        [0.40, 0.170, 1.25],
        [BLUE_UM, 0.330, 1.20],
        [0.62, 0.700, 1.07],
        [RED_UM, 1.000, 1.00],
        [1.00, 1.350, 0.92],
        [1.25, 1.600, 0.85],
        [1.65, 2.000, 0.80],
        [2.20, 1.750, 0.65],
        [3.00, 1.100, 0.45],
        [4.50, 0.550, 0.25],
    ]
)
LINES_UM = (0.373, 0.50, 0.656)  # [O II], [O III] with H beta, H alpha
RANGE_UM = (0.2, 2.5)
_LOG = np.log(TABLE)
_BLUE, _RED = np.log(BLUE_UM), np.log(RED_UM)
_COLOURS = _LOG[7, 1:]


class Light:
    """The wavelengths at which a galaxy is seen, and what its parts look like there.

    Without ``rng`` spectra follow from colours alone. With it, two galaxies of one colour differ at other
    wavelengths: old and young stars have a curvature of their own (none at blue and red), and young stars
    emission lines as broad as a filter. ``reference``: the place of ``RED_UM``, appended where it is not
    among them.
    """

    def __init__(self, wavelengths_um: Sequence[float], rng: np.random.Generator | None = None) -> None:
        self.n = len(wavelengths_um)
        known = list(wavelengths_um) if RED_UM in wavelengths_um else [*wavelengths_um, RED_UM]
        self.reference = known.index(RED_UM)
        self.log = np.log(known)
        self.bends, self.lines = (0.0, 0.0), np.zeros(len(LINES_UM))
        if rng is not None:
            self.bends = (rng.normal(0.0, 0.12), rng.normal(0.0, 0.15))
            self.lines = 0.25 * rng.lognormal(0.0, 0.9, len(LINES_UM)) * (rng.random() < 0.7)

    def old(self, colour: float) -> list[float]:
        """By band: flux of a population of old stars, 1 in the red and ``colour`` in the blue."""
        return self._stars(colour, self.bends[0]).tolist()

    def young(self, colour: float) -> list[float]:
        """As ``old``, with lines."""
        apart = self.log[:, None] - np.log(LINES_UM)
        lines = 1.0 + np.exp(-0.5 * (apart / 0.08) ** 2) @ self.lines
        return (self._stars(colour, self.bends[1]) * lines).tolist()

    def power_law(self, colour: float) -> list[float]:
        """By band: an active nucleus."""
        return list((colour ** ((_RED - self.log) / (_RED - _BLUE))).tolist())

    def optical_depth(self, blue_to_red: float = 1.8) -> list[float]:
        """By band, in units of that in the red."""
        return self.power_law(blue_to_red)

    def _stars(self, colour: float, bend: float) -> np.ndarray:
        """(bands,) between the two populations of ``TABLE``, or beyond, as far as the colour says."""
        old, young = (np.interp(self.log, _LOG[:, 0], _LOG[:, i]) for i in (1, 2))
        age = (np.log(colour) - _COLOURS[1]) / (_COLOURS[0] - _COLOURS[1])
        curve = bend * (self.log - _BLUE) * (self.log - _RED)
        return np.asarray(np.exp(young + age * (old - young) + curve))


def draw_wavelengths(rng: np.random.Generator, bands: int) -> np.ndarray:
    """(bands,) wavelengths (micron), rising, one in each of as many equal parts of ln ``RANGE_UM``."""
    low, high = np.log(RANGE_UM)
    return np.round(np.exp(low + (np.arange(bands) + rng.random(bands)) / bands * (high - low)), 4)
