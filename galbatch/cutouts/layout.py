"""Survey layouts by name: which plane of a survey is what, in small TOML files that users can add to.

A layout says, for each plane (``sci err wht var exp mask seg``), under which extension names it is found
(first that exists wins) and, when the survey file does not name its file, how to get it from the file of
``sci`` (the same file, or with a part of its name replaced). It says in which order noise planes are
preferred, whether the noise holds the photon noise of the source (``poisson = "included"``), misses it
(``"missing"``) or has it added from an exposure map (``"exposure"``), and the survey's unit, zero point and
mask bits, if the survey fixes them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galbatch.errors import ConfigError

PLANES = ("sci", "err", "wht", "var", "exp", "mask", "seg")
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
    path = Path(__file__).parent / "layouts" / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9-]+", name):
        path = folder / name
        if path.suffix != ".toml" or (path.exists() and not path.is_file()):
            raise ConfigError(
                f"layout = {name!r} is unknown. Known: {', '.join(layout_names())}; or the path of a "
                "layout .toml file."
            )
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            f"layout = {name!r} is unknown. Known: {', '.join(layout_names())}; or the path of a "
            "layout .toml file."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"Layout {path} cannot be read: {error}.") from error
    return _parse(path.stem, path, table)


def _parse(name: str, path: Path, table: dict) -> Layout:
    _check(path, "the layout", table, _KEYS)
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
    _check(path, f"planes.{plane}", rule, _PLANE_KEYS)
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
    if not all(
        isinstance(b, str) or (isinstance(b, int) and not isinstance(b, bool) and 0 <= b < 63) for b in bits
    ):
        raise ConfigError(f"{path}: {key} = {bits}: give bit numbers (0 to 62) or names of mask planes.")
    return tuple(bits)


def _check(path: Path, where: str, table: dict, keys: dict) -> None:
    for key, value in table.items():
        if key not in keys:
            raise ConfigError(f"{path}: unknown key {key!r} in {where}. Allowed: {', '.join(keys)}.")
        if not isinstance(value, keys[key]) or (isinstance(value, bool) and keys[key] is not bool):
            raise ConfigError(f"{path}: {where}: {key} = {value!r} has the wrong type.")
