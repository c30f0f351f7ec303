"""``galbatch init``: a survey file to begin with."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from galbatch.display import count

SURVEYS = ("ceers", "jades", "cosmos-web", "primer", "euclid-q1", "hsc")


@click.command("init")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--survey", type=click.Choice(SURVEYS), help="A template for this survey, in place of FOLDER.")
@click.option(
    "--out",
    metavar="S.toml",
    type=click.Path(dir_okay=False),
    help="The file to write  [default: the folder's or the survey's name + .toml, in the current folder].",
)
@click.option(
    "--sources",
    metavar="FILE.csv",
    type=click.Path(dir_okay=False),
    help="Look for sources on the images, and write a catalogue of them.",
)
@click.option("--unit", metavar="UNIT", help="Unit of the pixel values where no header says it, e.g. MJy/sr.")
def command(
    folder: str | None, survey: str | None, out: str | None, sources: str | None, unit: str | None
) -> int:
    """Propose a survey file from the FITS files in FOLDER, or write the template of a survey.

    Reads headers, names and, where they say nothing, pixels: which file is which plane and band, units, zero
    points, pixel scales, PSFs. Every guess has its reason beside it. What cannot be known is asked on a
    terminal; without one the line says TODO, and `galbatch check` refuses it until you complete it. No file
    of yours is replaced.

    \b
    galbatch init my_mosaics
    galbatch init my_cutouts --sources my_cutouts.csv
    galbatch init --survey ceers
    """
    if (folder is None) == (survey is None):
        raise click.UsageError("Give a FOLDER with FITS files, or --survey NAME for a template.")
    if sources and survey:
        raise click.UsageError("--sources looks at the images of a FOLDER: give one.")
    path = Path(out or f"{survey or Path(os.path.abspath(str(folder))).name}.toml")
    if sources and Path(sources).is_file():
        raise click.UsageError(f"{sources} exists, and is not replaced. Name another file with --sources.")
    from galbatch.cutouts.propose.text import template
    from galbatch.cutouts.survey.read import open_questions

    if survey:
        text = _write(path, template(survey))
    else:
        text = _proposed(Path(str(folder)), path, unit, sources is not None)
    click.echo(path)
    questions = open_questions(text)
    if not questions:
        if sources:
            _write_sources(path, Path(sources))
        known = shlex.join([sources] if sources else []) or "CATALOG"
        click.echo(f"Then: galbatch check {known} --survey {shlex.quote(str(path))}", err=True)
        return 0
    click.echo("To complete in it, where it says TODO:\n" + "\n".join(questions), err=True)
    if any(".unit" in question for question in questions) and folder:
        again = ["galbatch", "init", folder, *(["--out", out] if out else []), "--unit", "UNIT"]
        click.echo(f"If one unit holds for all: {shlex.join(again)}", err=True)
    if sources:
        click.echo(f"{sources} is written by the same command once nothing is open.", err=True)
    return 0


def _proposed(folder: Path, path: Path, unit: str | None, keep: bool) -> str:
    """The survey file in ``path``, proposed and written. A file that is there already is replaced if it is a
    proposal that nobody touched, and kept if ``keep``; else ``click.UsageError``."""
    from galbatch.cutouts.propose.folder import propose

    there = path.read_text(encoding="utf-8") if path.is_file() else None
    if there is not None and there != propose(folder, path, lambda question, like: None)[0]:
        if not keep:
            raise _exists(path)
        click.echo(f"{path} exists, and is used as it is.", err=True)
        return there
    text, said = propose(folder, path, lambda question, like: _ask(question, like, unit))
    _write(path, text, new=there is None)
    for line in said:
        click.echo(line, err=True)
    return text


def _write(path: Path, text: str, new: bool = True) -> str:
    try:
        with open(path, "x" if new else "w", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise _exists(path) from None
    return text


def _exists(path: Path) -> click.UsageError:
    return click.UsageError(f"{path} exists, and is not replaced. Name another file with --out.")


def _write_sources(survey: Path, catalog: Path) -> None:
    """The catalogue of what is found on the images of a survey file."""
    from galbatch.cutouts.propose.identify import find_sources

    found = find_sources(survey)
    rows = zip(*found.values(), strict=True)
    lines = [",".join(f"{v:.7f}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    with open(catalog, "x", encoding="utf-8") as file:
        file.write("\n".join([",".join(found), *lines, ""]))
    click.echo(f"{catalog}: {count(len(lines), 'source')}")


def _ask(question: str, suggestion: str, unit: str | None) -> str | None:
    """The answer of the user; None without a terminal, or where none is given."""
    if unit and question.startswith("Unit"):
        return unit
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    hint = "Enter to leave it open" if not suggestion else None
    answer = click.prompt(
        question + (f" ({hint})" if hint else ""), default=suggestion, show_default=bool(suggestion), err=True
    )
    return answer.strip() or None
