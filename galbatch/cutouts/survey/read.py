"""The survey file: TOML in, checked dataclasses out.

Paths are relative to the folder of the survey file unless absolute; ``path[EXTNAME]`` names an extension;
``{tile}`` and ``{band}`` in a path stand for the names of the tile and the band. Nothing else is expanded.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from galbatch.cutouts.fits.images import Plane
from galbatch.cutouts.survey.config import UNIFORM, BandConfig, SurveyConfig, TileConfig, subject_of
from galbatch.cutouts.survey.layout import (
    BAND_KEYS,
    PLANES,
    SURVEY_KEYS,
    TILE_KEYS,
    Layout,
    PlaneRule,
    are_bits,
    check_keys,
    finite,
    load_layout,
    parse_psf_error,
    positive,
)
from galbatch.display import first_few
from galbatch.errors import ConfigError

LISTED = 8  # questions
_SCHEMES = ("http", "https", "s3", "gs", "gcs", "abfs", "az")


def load_survey(path: str | Path, bands: list[str] | tuple[str, ...] | None = None) -> SurveyConfig:
    """Read and check the survey file at ``path``; ``bands`` keeps only these, in the order given.

    Raises ``ConfigError`` that names the file, the key, its value and what is allowed.
    """
    path = Path(path).absolute()
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"Survey file {path} is not a regular file.")
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            f"Survey file {path} does not exist. Give it with --survey, or put it beside the catalogue "
            "under the catalogue's name with the ending .toml."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"Survey file {path} cannot be read as TOML: {error}.") from error
    if questions := open_questions(text):
        raise ConfigError(f"{path} has lines that only you can complete:\n" + "\n".join(questions))
    check_keys(path, "the survey file", table, SURVEY_KEYS)
    layout, given = load_layout(table.get("layout", "generic"), path.parent), table.get("bands")
    if not given:
        raise ConfigError(f"{path} has no band. Add a table such as [bands.f200w] with sci, err and psf.")
    wanted = _selected(path, given, bands)
    tiles = table.get("tiles", [])
    if not all(isinstance(t, str) and t for t in tiles) or len(set(tiles)) != len(tiles):
        raise ConfigError(f"{path}: tiles = {tiles}: give different names as strings.")
    stamp_arcsec = positive(path, "stamp_arcsec", table.get("stamp_arcsec"))
    positive(path, "stamp_pix", table.get("stamp_pix"))
    if "stamp" in table and ("stamp_arcsec" in table or "stamp_pix" in table):
        raise ConfigError(f'{path}: stamp = "auto" leaves the size of stamps open. Remove it, or the size.')
    return SurveyConfig(
        name=table.get("name", path.stem),
        layout=layout,
        bands=tuple(_band(path, name, given[name], layout, tiles) for name in wanted),
        stamp_arcsec=stamp_arcsec,
        stamp_pix=table.get("stamp_pix"),
        neighbours=table.get("neighbours", "separate"),
        pixel_columns=table.get("pixel_columns", False),
        path=str(path),
        segment_bands=_leading(path, table.get("segment_bands"), wanted),
    )


def open_questions(text: str) -> list[str]:
    """What a survey file leaves to its user, one line each; what is asked of several keys, once."""
    keys: dict[str, list[str]] = {}
    for asked, key in _to_do("", tomllib.loads(text)):
        keys.setdefault(asked, []).append(key)
    lines = [f"  {first_few(own, 1)}: {asked}" for asked, own in keys.items()]
    return lines[:LISTED] + ([f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])


def _to_do(where: str, table: dict) -> list[tuple[str, str]]:
    """(what is asked, key) of the values that begin with TODO, as ``galbatch init`` writes them."""
    out = []
    for key, value in table.items():
        if isinstance(value, str) and value.startswith("TODO"):
            out.append((value.removeprefix("TODO").lstrip(": ") or "no value yet", f"{where}{key}"))
        for part in value if isinstance(value, list) else [value]:
            out += _to_do(f"{where}{key}.", part) if isinstance(part, dict) else []
    return out


def _selected(path: Path, tables: dict, bands: list[str] | tuple[str, ...] | None) -> list[str]:
    if bands is None:
        return list(tables)
    unknown = [b for b in bands if b not in tables]
    if unknown or not bands or len(set(bands)) != len(bands):
        raise ConfigError(
            f"Bands {', '.join(unknown or bands) or '(none)'} cannot be selected from {path}: it has "
            f"{', '.join(tables)}; name each once."
        )
    return list(bands)


def _leading(path: Path, given: list | None, bands: list[str]) -> tuple[str, ...]:
    """The bands in which segments are found, in the order of ``bands``; () for all. Raises ``ConfigError``
    for one that is not there."""
    if given is None:
        return ()
    other = [str(band) for band in given if band not in bands]
    if other or not given:
        raise ConfigError(
            f"{path}: segment_bands = {given}: {', '.join(other) or 'it'} must be some of the bands in use, "
            f"{', '.join(bands)}. Segments are found in these bands alone; without the key in all."
        )
    return tuple(band for band in bands if band in given)


def _band(path: Path, name: str, table: Any, layout: Layout, tiles: list[str]) -> BandConfig:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}", name):
        raise ConfigError(f"{path}: band name {name!r}: use letters, digits, '_', '.', '+', '-', at most 40.")
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: bands.{name} must be a table, not {table!r}.")
    check_keys(path, f"bands.{name}", table, BAND_KEYS)
    common = {k: v for k, v in table.items() if k not in ("tiles", "wavelength_um")}
    if "tiles" in table:
        entries = table["tiles"]
        if not entries or not all(isinstance(t, dict) for t in entries):
            raise ConfigError(f"{path}: bands.{name}.tiles must be a list of tables: [[bands.{name}.tiles]].")
    else:
        entries = [{"name": t} for t in tiles] or [{"name": "0"}]
    out = []
    for i, entry in enumerate(entries):
        check_keys(path, f"bands.{name}.tiles", entry, {**TILE_KEYS, "name": str, "tile": str})
        tile = entry.get("name", entry.get("tile", str(i)))
        own = {k: v for k, v in entry.items() if k not in ("name", "tile")}
        out.append(_tile(path, name, tile, {**common, **own}, layout))
    names = [t.name for t in out]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: bands.{name} has two tiles of one name: {', '.join(names)}.")
    wavelength = positive(path, f"bands.{name}: wavelength_um", table.get("wavelength_um"))
    return BandConfig(name, tuple(out), wavelength)


def _tile(path: Path, band: str, tile: str, table: dict, layout: Layout) -> TileConfig:
    where = subject_of(f"bands.{band}", tile)
    for key in ("sci", "psf"):
        if key not in table:
            raise ConfigError(f'{path}: {where} has no {key}. Add {key} = "file.fits".')
    optional = table.get("optional", [])
    if not set(map(str, optional)) <= set(PLANES[1:]):
        raise ConfigError(f"{path}: {where}: optional = {optional}: use some of {', '.join(PLANES[1:])}.")
    found = {p: _plane(path, where, p, table, layout, optional, {"tile": tile, "band": band}) for p in PLANES}
    planes: dict[str, Any] = {k: v for k, v in found.items() if v is not None}
    if not any(p in planes for p in layout.noise_planes):
        raise ConfigError(
            f"{path}: {where} has no noise map. Add one of {', '.join(layout.noise_planes)} (layout "
            f'{layout.name}), or err = "measure": one sigma for the whole image, measured on blank sky.'
        )
    acf = table.get("noise_acf", "auto")
    if acf not in ("none", "measure", "auto"):
        acf = parse_path(path, f"{where}: noise_acf", acf, {"tile": tile, "band": band})[0]
    numbers: dict[str, Any] = {
        k: positive(path, f"{where}: {k}", table.get(k)) for k in ("pixel_scale_arcsec", "psf_scale_arcsec")
    }
    for key in ("zero_point_ab", "saturation"):
        numbers[key] = finite(path, f"{where}: {key}", table.get(key))
    words = {k: table[k] for k in ("psf_frame", "psf_norm", "psf_centre", "unit") if k in table}
    psf, ext = parse_path(path, f"{where}: psf", table["psf"], {"tile": tile, "band": band})
    return TileConfig(
        name=tile,
        **planes,
        psf=Plane(psf, ext),
        mask_bits=_mask_bits(path, where, table, layout),
        err_scale=_err_scale(path, where, table.get("err_scale", "auto")),
        noise_acf=acf,
        error_floor=_error_floor(path, where, table.get("error_floor", "measure")),
        psf_error=parse_psf_error(path, where, table.get("psf_error", "auto"), layout.name),
        psf_error_auto=table.get("psf_error", "auto") == "auto",
        **numbers,
        **words,
    )


def _plane(
    path: Path,
    where: str,
    plane: str,
    table: dict[str, Any],
    layout: Layout,
    optional: list[str],
    names: dict[str, str],
) -> Plane | None:
    rule = layout.planes.get(plane, PlaneRule())
    if plane == "err" and table.get(plane) == UNIFORM.path:
        return UNIFORM
    if plane in table:
        file, ext = parse_path(path, f"{where}: {plane}", table[plane], names)
        return Plane(file, ext or rule.ext, plane in optional)
    if rule.source is None or any(p in table for p in layout.noise_planes if plane in layout.noise):
        return None
    file, ext = parse_path(path, f"{where}: sci", table["sci"], names)
    if rule.replace is not None:
        folder, _, stem = file.rpartition("/")
        if rule.replace[0] not in stem:
            return None
        file = f"{folder}/{stem.replace(*rule.replace)}"
    return Plane(file, rule.ext, rule.optional or plane in optional)


def parse_path(path: Path, where: str, text: str, names: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """``file.fits[EXT]`` to (absolute path or URL, extension names). Raises ``ConfigError`` for what cannot
    be a path."""
    match = re.fullmatch(r"(?P<file>[^\[\]\x00]+)(\[(?P<ext>[^\[\]\x00]+)\])?", text, flags=re.DOTALL)
    if match is None:
        raise ConfigError(f"{path}: {where} = {text!r} is not a path or path[EXTNAME].")
    file = match["file"]
    for key, value in names.items():
        file = file.replace("{" + key + "}", value)
    ext = (match["ext"].strip(),) if match["ext"] else ()
    if "::" in file or "://" in file:
        scheme = file.split("://")[0]
        if "::" in file or scheme not in _SCHEMES:
            raise ConfigError(
                f"{path}: {where} = {text!r}: URLs of {', '.join(_SCHEMES)} can be read, "
                "other paths are local."
            )
        return file, ext
    full = Path(path.parent, file)
    try:
        return str(full.resolve() if ".." in full.parts else full), ext
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{path}: {where} = {text!r} is not a path: {error}.") from error


def _mask_bits(path: Path, where: str, table: dict[str, Any], layout: Layout) -> int | tuple[int | str, ...]:
    bits = table.get("mask_bits", layout.mask_bits)
    if isinstance(bits, int):
        if isinstance(bits, bool) or not 0 < bits < 2**63:
            raise ConfigError(
                f"{path}: {where}: mask_bits = {bits}: a number is a bit mask above 0; a list holds bit "
                "numbers or names."
            )
        return bits
    if not are_bits(bits):
        raise ConfigError(
            f"{path}: {where}: mask_bits = {list(bits)}: list bit numbers (0 to 62) or mask plane names."
        )
    return tuple(bits)


def _err_scale(path: Path, where: str, value: Any) -> Any:
    if value in ("measure", "auto"):
        return value
    if isinstance(value, str):
        raise ConfigError(
            f'{path}: {where}: err_scale = {value!r}: give a positive number, "measure" or "auto".'
        )
    return positive(path, f"{where}: err_scale", value)


def _error_floor(path: Path, where: str, value: Any) -> float | str:
    if value == "measure":
        return value
    if isinstance(value, str) or not 0 <= (finite(path, f"{where}: error_floor", value) or 0.0) < 1:
        raise ConfigError(
            f"{path}: {where}: error_floor = {value!r}: give a fraction of the light, 0 to below 1, "
            'or "measure".'
        )
    return float(value)
