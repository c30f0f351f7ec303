"""``psf_error`` of a survey file: how badly the PSFs of a band are known.

"auto" takes the row of the survey's layout; they are judgements, one standard deviation each, and not
measurements. A drizzled space mosaic differs from its PSF model by the kernel of the drizzle, the jitter and
charge diffusion of each exposure, the registration of the exposures and the spectrum of the source: a tenth
of a pixel in position and a third in width are common, and 68% intervals should hold the truth then. On the
ground the PSF is measured on stars of the same image, and more pixels sample it. ``rest`` is for shapes that
the other four do not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from galbatch.cutouts.keys import finite
from galbatch.errors import ConfigError
from galbatch.types import PSF_ERROR_PARTS

_DRIZZLED = (0.5, 0.1, 0.03, 0.02, 0.01)  # width, shift, ellipticity, wings, rest
DEFAULTS: dict[str, tuple[float, ...]] = {
    "euclid-mer": (0.25, 0.06, 0.02, 0.01, 0.01),
    "hsc": (0.15, 0.05, 0.01, 0.01, 0.01),
}
LARGEST = (10.0, 5.0, 1.0, 1.0, 1.0)


def default_psf_error(layout: str) -> tuple[float, ...]:
    """``PSF_ERROR_PARTS`` of the surveys of a layout."""
    return DEFAULTS.get(layout, _DRIZZLED)


def parse_psf_error(path: Path, where: str, value: Any, layout: str) -> tuple[float, ...]:
    """The numbers of a setting: "auto", "none" (no numbers: the PSF is exact) or a list of them. Raises
    ``ConfigError``."""
    if value == "none":
        return ()
    if value == "auto":
        return default_psf_error(layout)
    parts = list(PSF_ERROR_PARTS)
    numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
    if not numbers or len(value) != len(parts) or any(isinstance(v, bool) for v in value):
        raise ConfigError(
            f'{path}: {where}: psf_error = {value!r}: use "auto", "none" (the PSF is exact) or a list of '
            f"{len(parts)} numbers: {', '.join(parts)}."
        )
    for name, number, largest in zip(parts, value, LARGEST, strict=True):
        if not 0 <= (finite(path, f"{where}: psf_error", number) or 0.0) <= largest:
            raise ConfigError(
                f"{path}: {where}: psf_error = {value}: {name} is {number}: it must lie in 0 to {largest:g} "
                f"({PSF_ERROR_PARTS[name]})."
            )
    return tuple(float(v) for v in value)
