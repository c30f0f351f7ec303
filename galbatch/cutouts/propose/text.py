"""The text of a proposed survey file: one line per key, each guess with its reason beside it."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from galbatch.cutouts.fits.units import ZERO_POINT_CARDS, njy_per_unit, zero_point_of
from galbatch.cutouts.propose.identify import Found, words_of
from galbatch.errors import InputError

Ask = Callable[[str, str], str | None]  # (question, suggestion) -> answer, None if there is nobody to ask
OPTIONAL = ("mask", "seg", "exp")
_INVERSE = {"invvar", "ivar", "ivm"}  # words for a weight that is 1 / variance by name


@dataclass
class Line:
    """``key = value`` with a comment; ``value`` as TOML. Without a key the comment alone."""

    key: str
    value: str
    why: str = ""

    def text(self) -> str:
        """As it is written."""
        if not self.key:
            return f"# {self.why}"
        return f"{self.key} = {self.value}" + (f"  # {self.why}" if self.why else "")


_STAMP = Line(
    "stamp", '"auto"', "64 to 128 pixels of the finest band, as each source needs; or stamp_arcsec = 3.0"
)


@dataclass
class Mosaic:
    """One band in one mosaic: its planes by role, the lines that describe it, its pixel scale (NaN: not
    known), and whether positions must be pixels."""

    band: str
    name: str
    planes: dict[str, Found]
    lines: list[Line] = field(default_factory=list)
    scale_arcsec: float = math.nan
    in_pixels: bool = False


def quoted(text: str) -> str:
    """A TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def survey_text(folder: Path, mosaics: list[Mosaic]) -> str:
    """The survey file of ``mosaics``, which were found in ``folder``."""
    layout, why = _layout(mosaics)
    lines = [
        Line("", "", f"Proposed by galbatch init from the FITS files of {folder}. Look at each line:"),
        Line("", "", "beside it stands what it was taken from. Then: galbatch check CATALOG --survey FILE"),
        Line("name", quoted(os.path.basename(os.path.abspath(folder)))),
        Line("layout", quoted(layout), why),
        _STAMP,
        Line("neighbours", '"separate"', 'those that touch are fitted too; "mask": none, "keep": all'),
    ]
    bands: dict[str, list[Mosaic]] = {}
    for mosaic in mosaics:
        bands.setdefault(mosaic.band, []).append(mosaic)
    if any(m.in_pixels for m in mosaics):
        columns = "x, y (from 0)" + (", tile" if max(map(len, bands.values())) > 1 else "")
        lines.append(Line("pixel_columns", "true", f"no usable WCS: the catalogue needs {columns}"))
    tiles = {tuple(m.name for m in own) for own in bands.values()}
    common = {band: _common(own) for band, own in bands.items()}
    compact = len(tiles) == 1 and len(next(iter(tiles))) > 1 and all(common.values())
    if compact:
        lines.append(Line("tiles", "[" + ", ".join(map(quoted, next(iter(tiles)))) + "]", "several mosaics"))
    parts = [[line.text() for line in lines]]
    for band, own in bands.items():
        head = [f"\n[bands.{quoted(band) if '.' in band else band}]"]
        if band == "band":
            head.append("# no file or header names the filter: call the table after it")
        if compact or len(own) == 1:
            parts.append(head + [line.text() for line in (common[band] if compact else own[0].lines)])
            continue
        parts.append(head)
        for m in own:
            name = Line("name", quoted(m.name)).text()
            parts.append([f"[[bands.{band}.tiles]]", name, *(line.text() for line in m.lines)])
    return "\n".join("\n".join(part) for part in parts) + "\n"


def _common(own: list[Mosaic]) -> list[Line]:
    """The lines that the mosaics of a band share once ``{tile}`` stands for their names; none if they differ
    in more than that."""
    values: dict[str, Line] = {}
    for m in own:
        for line in (line for line in m.lines if line.key):
            named = line.key in m.planes
            value = line.value.replace(m.name, "{tile}") if named else line.value
            if values.setdefault(line.key, Line(line.key, value, line.why)).value != value:
                return []
    missing = [k for k in values if k and any(k not in [line.key for line in m.lines] for m in own)]
    if not set(missing) <= set(OPTIONAL):
        return []
    optional = [Line("optional", "[" + ", ".join(map(quoted, missing)) + "]", "not all mosaics have it")]
    return [*values.values(), *(optional if missing else [])]


def _layout(mosaics: list[Mosaic]) -> tuple[str, str]:
    """Name of the layout, and why."""
    images = [m.planes["sci"] for m in mosaics]
    telescopes = {str(f.header.get("TELESCOP", "")).strip().upper() for f in images}
    if all("FLUXMAG0" in f.header or "calexp" in f.words for f in images):
        return "hsc", "FLUXMAG0 or calexp: HSC or LSST"
    if all("euc" in f.words for f in images):
        return "euclid-mer", "the names are Euclid's"
    files = [(m.planes["sci"], m.planes.get("err")) for m in mosaics]
    if all(sci.ext == "SCI" and err is not None and err.path == sci.path for sci, err in files):
        return "jwst-i2d", "extensions SCI and ERR in one file"
    weights = [m.planes["wht"] for m in mosaics if "wht" in m.planes]
    inverse = [w for w in weights if _INVERSE & {*w.words, *words_of(f"{w.ext} {w.own.get('IMAGETYP', '')}")}]
    if inverse and len(inverse) == len(weights) and not any("exp" in m.planes for m in mosaics):
        return "generic", "inverse variances are taken to include the photon noise of the sources"
    if len(weights) == len(mosaics):
        known = "hst" if telescopes == {"HST"} else "dja"
        return known, "weight maps: they lack the photon noise of the sources, which the exposure map gives"
    return "generic", "noise maps are taken to include the photon noise of the sources"


def unit_lines(sci: Found, ask: Ask) -> list[Line]:
    """How the values of an image become fluxes: nothing where its own header says it to a run."""
    own, header = sci.own, sci.header
    bunit = str(header.get("BUNIT", "")).strip()
    try:
        njy_per_unit(own, 0.1)
        card = "BUNIT" if bunit and "BUNIT" in own else "the header"
        return [Line("", "", f"unit: {card} says {bunit or 'it'}")]
    except InputError:
        pass
    if (zero_point := zero_point_of(header)) is not None:
        card = next(k for k in ZERO_POINT_CARDS if k in header)
        return [Line("zero_point_ab", f"{zero_point:.4f}", f"from {card} = {header[card]}")]
    if header.get("PHOTFLAM") and header.get("PHOTPLAM"):
        why = "guess: PHOTFLAM and PHOTPLAM are there, BUNIT is not"
        if not bunit or bunit.lower().endswith("/s"):
            return [Line("unit", '"electron/s"', why)]
        return [_whole_exposure(header, bunit)]
    for card in ("BUNIT", "PHOTMJSR", "PHOTFNU"):  # in the primary header, which a run does not read
        if card in header and card not in own:
            try:
                njy_per_unit(header, 0.1)
                return [Line("unit", quoted(bunit), "BUNIT of the primary header")]
            except InputError:
                break
    jwst = re.fullmatch(r"f\d{3}[wmn]2?", sci.band) is not None and header.get("TELESCOP", "JWST") == "JWST"
    legacy = re.fullmatch(r"DECALS|BASS|MZLS|LEGACY.*", str(header.get("SURVEY", "")).strip().upper())
    said = f"BUNIT = {bunit!r}" if bunit else "no BUNIT"
    answer = ask(
        f"Unit of the pixel values, such as nJy or MJy/sr (the headers say nothing: {said}, no zero point)",
        "MJy/sr" if jwst else "nanomaggy" if legacy else "",
    )
    if answer:
        njy_per_unit(header, 0.1, answer, where=f"{sci.path.name}: the unit that you gave")
        return [Line("unit", quoted(answer), "as you said; the header does not say")]
    hint = "e.g. nJy, MJy/sr; or give zero_point_ab"
    if jwst or legacy:
        hint = "MJy/sr for mosaics of the JWST pipeline" if jwst else "nanomaggy in the Legacy Surveys"
    states = f"BUNIT = {bunit} without a zero point does not say" if bunit else "no header states"
    return [Line("unit", quoted(f"TODO: the unit of the pixel values, which {states} ({hint})"))]


def _whole_exposure(header: Any, bunit: str) -> Line:
    flam, pivot, seconds = (positive(header.get(k)) for k in ("PHOTFLAM", "PHOTPLAM", "EXPTIME"))
    if not seconds > 0:
        return Line("zero_point_ab", quoted(f"TODO: the AB zero point of {bunit!r} (there is no EXPTIME)"))
    per_second = -2.5 * math.log10(flam) - 5 * math.log10(pivot) - 2.408
    value = per_second + 2.5 * math.log10(seconds)
    return Line("zero_point_ab", f"{value:.4f}", f"PHOTFLAM and PHOTPLAM, times EXPTIME as BUNIT is {bunit}")


def positive(value: Any) -> float:
    """A number above 0, 0 for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def template(survey: str) -> str:
    """The survey file to begin with for a public survey of ``templates/surveys.toml``. It names no file:
    which ones you have is a TODO, with the name of the release as an example."""
    about = surveys()[survey]
    lines = [
        Line("", "", about["about"]),
        Line("", "", "Files that are here already: galbatch init FOLDER fills all of this in."),
        Line("name", quoted(survey)),
        Line("layout", quoted(about["layout"])),
        _STAMP,
        Line("neighbours", '"separate"', 'those that touch are fitted too; "mask": none, "keep": all'),
    ]
    text = [line.text() for line in lines]
    for band in about["bands"]:
        names = {"band": band, "BAND": band.upper()}
        text.append(f"\n[bands.{band}]  # leave out bands that you do not have")
        for role, example in {"sci": about["sci"], **about.get("planes", {})}.items():
            text.append(Line(role, quoted(f"TODO: your file, e.g. {example.format(**names)}")).text())
        text.append(
            Line("psf", quoted(f"TODO: your PSF of this band: {about['psf'].format(**names)}")).text()
        )
        text += about.get("lines", [])
    return "\n".join(text) + "\n"


def surveys() -> dict[str, dict]:
    """The surveys with a template, by name."""
    path = Path(__file__).parent / "templates" / "surveys.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))
