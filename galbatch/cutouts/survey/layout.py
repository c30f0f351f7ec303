"""The keys of a survey file, their types and choices; and survey layouts by name: which plane of a survey is
what, in small TOML files that users can add to.

A layout says, for each plane (``sci err wht var exp mask seg``), under which extension names it is found
(first that exists wins) and, when the survey file does not name its file, how to get it from the file of
``sci`` (the same file, or with a part of its name replaced). It says in which order noise planes are
preferred, whether the noise holds the photon noise of the source (``poisson = "included"``), misses it
(``"missing"``) or has it added from an exposure map (``"exposure"``), and the survey's unit, zero point and
mask bits, if the survey fixes them.

``psf_error`` says how badly PSFs are known. "auto" takes the row of the survey's layout; they
are judgements, one standard deviation each, and not measurements. A drizzled space mosaic differs from its
PSF model by the kernel of the drizzle, the jitter and charge diffusion of each exposure, the registration of
the exposures and the spectrum of the source: a tenth of a pixel in position and a third in width are common,
and 68% intervals should hold the truth then. On the ground the PSF is measured on stars of the same image,
and more pixels sample it. ``rest`` is for shapes that the other four do not have.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galbatch.errors import ConfigError
from galbatch.types import PSF_ERROR_PARTS

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
    "segment_bands": list,
    "tiles": list,
    "bands": dict,
}
PLANES = ("sci", "err", "wht", "var", "exp", "mask", "seg")
TILE_KEYS = {
    **dict.fromkeys((*PLANES, "psf"), str),
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


_NOISE = ("err", "var", "wht", "exp")
_KEYS = {
    "description": str,
    "noise": list,
    "poisson": str,
    "unit": str,
    "zero_point_ab": (int, float),
    "mask_bits": list,
    "saturated_bits": list,
    "planes": dict,
}
_PLANE_KEYS = {"ext": list, "from": str, "replace": list, "optional": bool}


@dataclass(frozen=True)
class PlaneRule:
    """Where one plane is found: extension names to try, and how its file follows from another plane's."""

    ext: tuple[str, ...] = ()
    source: str | None = None
    replace: tuple[str, str] | None = None
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """A survey layout. ``noise``: noise planes by preference; ``mask_bits``: bit numbers or names to
    reject."""

    name: str
    description: str = ""
    noise: tuple[str, ...] = _NOISE
    poisson: str = "included"
    unit: str | None = None
    zero_point_ab: float | None = None
    mask_bits: tuple[int | str, ...] = ()
    saturated_bits: tuple[int | str, ...] = ()
    planes: dict[str, PlaneRule] = field(default_factory=dict)

    @property
    def noise_planes(self) -> tuple[str, ...]:
        """``noise``, and an error map whatever the survey delivers: a user may have one."""
        return tuple(dict.fromkeys((*self.noise, "err")))


def layout_names() -> list[str]:
    """The layouts that come with the package."""
    return sorted(p.stem for p in (Path(__file__).parent / "layouts").glob("*.toml"))


def load_layout(name: str, folder: Path) -> Layout:
    """The layout called ``name``, or the TOML file of that name relative to ``folder`` (the survey file's
    folder).

    Raises ``ConfigError`` with the known names when there is none, and for any wrong key in it.
    """
    unknown = ConfigError(
        f"layout = {name!r} is unknown. Known: {', '.join(layout_names())}; or the path of a layout "
        ".toml file."
    )
    path = Path(__file__).parent / "layouts" / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9-]+", name):
        path = folder / name
        if path.suffix != ".toml" or (path.exists() and not path.is_file()):
            raise unknown
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise unknown from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"Layout {path} cannot be read: {error}.") from error
    return _parse(path.stem, path, table)


def _parse(name: str, path: Path, table: dict) -> Layout:
    check_keys(path, "the layout", table, _KEYS)
    noise = tuple(table.get("noise", _NOISE))
    if not set(noise) <= set(_NOISE) or not noise:
        raise ConfigError(f"{path}: noise = {list(noise)}: use one or more of {', '.join(_NOISE)}.")
    poisson = table.get("poisson", "included")
    if poisson not in ("included", "missing", "exposure"):
        raise ConfigError(f"{path}: poisson = {poisson!r}: use 'included', 'missing' or 'exposure'.")
    planes = {}
    for plane, rule in table.get("planes", {}).items():
        if plane not in PLANES:
            raise ConfigError(f"{path}: unknown plane {plane!r}. Known: {', '.join(PLANES)}.")
        planes[plane] = _rule(path, plane, rule)
    return Layout(
        name,
        table.get("description", ""),
        noise,
        poisson,
        table.get("unit"),
        table.get("zero_point_ab"),
        _bits(path, "mask_bits", table),
        _bits(path, "saturated_bits", table),
        planes,
    )


def _rule(path: Path, plane: str, rule: Any) -> PlaneRule:
    if not isinstance(rule, dict):
        raise ConfigError(f"{path}: planes.{plane} must be a table, not {rule!r}.")
    check_keys(path, f"planes.{plane}", rule, _PLANE_KEYS)
    ext = rule.get("ext", [])
    replace = rule.get("replace")
    if not all(isinstance(e, str) for e in ext):
        raise ConfigError(f"{path}: planes.{plane}.ext = {ext}: extension names are strings.")
    if replace is not None and (len(replace) != 2 or not all(isinstance(r, str) for r in replace)):
        raise ConfigError(f"{path}: planes.{plane}.replace = {replace}: give two strings, [old, new].")
    if rule.get("from") not in (None, "sci"):
        raise ConfigError(f"{path}: planes.{plane}.from = {rule['from']!r}: only 'sci' is possible.")
    return PlaneRule(
        tuple(ext), rule.get("from"), tuple(replace) if replace else None, rule.get("optional", False)
    )


def _bits(path: Path, key: str, table: dict) -> tuple[int | str, ...]:
    bits = table.get(key, [])
    if not are_bits(bits):
        raise ConfigError(f"{path}: {key} = {bits}: give bit numbers (0 to 62) or names of mask planes.")
    return tuple(bits)


def are_bits(bits: Iterable[Any]) -> bool:
    """Numbers of bits of a 63-bit mask, or names of mask planes?"""
    return all(
        isinstance(b, str) or (isinstance(b, int) and not isinstance(b, bool) and 0 <= b < 63) for b in bits
    )


_DRIZZLED = (0.5, 0.1, 0.03, 0.02, 0.01)  # width, shift, ellipticity, wings, rest
DEFAULTS: dict[str, tuple[float, ...]] = {
    "euclid-mer": (0.25, 0.06, 0.02, 0.01, 0.01),
    "hsc": (0.15, 0.05, 0.01, 0.01, 0.01),
}
LARGEST = (10.0, 5.0, 1.0, 1.0, 1.0)


def parse_psf_error(path: Path, where: str, value: Any, layout: str) -> tuple[float, ...]:
    """The numbers of a setting: "auto", "none" (no numbers: the PSF is exact) or a list of them. Raises
    ``ConfigError``."""
    if value == "none":
        return ()
    if value == "auto":
        return DEFAULTS.get(layout, _DRIZZLED)
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
