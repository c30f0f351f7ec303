"""``galbatch init``: a survey file to begin with."""

from __future__ import annotations

import sys
from pathlib import Path

import click

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
    is ever replaced.

    \b
    galbatch init my_mosaics
    galbatch init my_cutouts --sources my_cutouts.csv
    galbatch init --survey ceers
    """
    if (folder is None) == (survey is None):
        raise click.UsageError("Give a FOLDER with FITS files, or --survey NAME for a template.")
    if sources and survey:
        raise click.UsageError("--sources looks at the images of a FOLDER: give one.")
    path = Path(out or f"{survey or Path(str(folder)).resolve().name}.toml")
    for file, option in ((path, "--out"), (Path(sources or ""), "--sources")):
        if file.is_file():
            raise click.UsageError(f"{file} exists, and is not replaced. Name another file with {option}.")
    from galbatch.cutouts.propose import propose
    from galbatch.cutouts.survey_file import open_questions
    from galbatch.cutouts.survey_text import template

    said: list[str] = []
    if survey is not None:
        text = template(survey)
    else:
        text, said = propose(Path(str(folder)), path, lambda question, like: _ask(question, like, unit))
    try:
        with open(path, "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise click.UsageError(f"{path} exists, and is not replaced. Name another file with --out.") from None
    for line in said:
        click.echo(line, err=True)
    click.echo(path)
    questions = open_questions(text)
    if questions:
        click.echo("To complete in it:\n" + "\n".join(questions), err=True)
    if sources and questions:
        click.echo(f"{sources} is not written: sources can be looked for when nothing is open.", err=True)
    elif sources:
        _write_sources(path, Path(sources))
    click.echo(f"Then: galbatch check {sources or 'CATALOG'} --survey {path}", err=True)
    return 0


def _write_sources(survey: Path, catalogue: Path) -> None:
    """The catalogue of what is found on the images of a survey file."""
    from galbatch.cutouts.find import find_sources

    found = find_sources(survey)
    rows = zip(*found.values(), strict=True)
    lines = [",".join(f"{v:.7f}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    with open(catalogue, "x", encoding="utf-8") as file:
        file.write("\n".join([",".join(found), *lines, ""]))
    click.echo(f"{catalogue}: {len(lines)} sources")


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
