"""The keys of a survey file, their types and choices, and the words for those that are wrong."""

from __future__ import annotations

import difflib
from pathlib import Path

from galbatch.errors import ConfigError

_NUMBER = (int, float)
SURVEY_KEYS = {
    "name": str,
    "layout": str,
    "description": str,
    "stamp": str,
    "stamp_arcsec": _NUMBER,
    "stamp_pix": int,
    "neighbours": str,
    "pixel_columns": bool,
    "tiles": list,
    "bands": dict,
}
TILE_KEYS = {
    "sci": str,
    "err": str,
    "wht": str,
    "var": str,
    "exp": str,
    "mask": str,
    "seg": str,
    "psf": str,
    "mask_bits": (int, list),
    "pixel_scale_arcsec": _NUMBER,
    "err_scale": (int, float, str),
    "noise_acf": str,
    "zero_point_ab": _NUMBER,
    "unit": str,
    "psf_scale_arcsec": _NUMBER,
    "psf_frame": str,
    "psf_norm": str,
    "psf_centre": str,
    "saturation": _NUMBER,
    "error_floor": (int, float, str),
    "psf_error": (str, list),
    "optional": list,
}
BAND_KEYS = {**TILE_KEYS, "tiles": list, "wavelength_um": _NUMBER}
_CHOICES = {
    "stamp": ("auto",),
    "neighbours": ("separate", "mask", "keep"),
    "psf_frame": ("mosaic", "detector"),
    "psf_norm": ("keep", "unit"),
    "psf_centre": ("check", "recentre"),
}


def positive(path: Path, where: str, value: float | None) -> float | None:
    """``value`` if it is None or a finite number above 0; ``ConfigError`` otherwise."""
    finite(path, where, value)
    if value is not None and not value > 0:
        raise ConfigError(f"{path}: {where} = {value}: it must be above 0.")
    return value


def finite(path: Path, where: str, value: float | None) -> float | None:
    """``value`` if it is None or a finite number; ``ConfigError`` otherwise."""
    if value is not None and not abs(value) < 1e300:
        raise ConfigError(f"{path}: {where} = {value}: it must be finite.")
    return value


def check_keys(path: Path, where: str, table: dict, keys: dict) -> None:
    """Refuse unknown keys, wrong types and wrong choices, and say what is allowed."""
    for key, value in table.items():
        if key not in keys:
            close = difflib.get_close_matches(key.lower(), keys, 1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"{path}: unknown key {key!r} in {where}. {hint}Allowed: {', '.join(keys)}.")
        kinds = keys[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            names = " or ".join(t.__name__ for t in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise ConfigError(
                f"{path}: {where}: {key} = {value!r} is of type {type(value).__name__}, not {names}."
            )
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ConfigError(
                f"{path}: {where}: {key} = {value!r}: use {' or '.join(map(repr, _CHOICES[key]))}."
            )
