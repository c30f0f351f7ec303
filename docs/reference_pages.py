"""mkdocs hook: the reference pages are made from the code, so that they cannot say anything else.

A page holds a line ``[[name]]``, which is replaced by what ``PARTS[name]`` returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
FRAGMENTS = "<!-- fragments of changelog.d -->"  # where they go, here and in towncrier's settings


def command_line() -> str:
    """Markdown of every command and subcommand with its help text."""
    from galbatch.cli.main import SECTIONS, cli

    lines = []
    for section, commands in SECTIONS.items():
        lines += [f"## {section}", ""]
        for name in commands:
            lines += _command(cli.get_command(click.Context(cli), name), f"galbatch {name}", 3)
    return "\n".join(lines)


def _command(command: click.Command, name: str, level: int) -> list[str]:
    width = {"max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=name, show_default=True, **width)
    lines = [f"{'#' * level} {name}", "", "```text", command.get_help(context), "```", ""]
    for child in getattr(command, "commands", {}).values():
        lines += _command(child, f"{name} {child.name}", level + 1)
    return lines


def arrays() -> str:
    """Markdown table of the arrays of posterior.zarr."""
    from galbatch.store import StoreLayout

    layout = StoreLayout(1, 1, 16, ("f200w",), 64, oversample=2)
    lines = ["| array | dimensions | type | what |", "|---|---|---|---|"]
    for spec in layout.every_array():
        lines.append(f"| `{spec.name}` | {', '.join(spec.dims)} | {spec.dtype} | {spec.description} |")
    return "\n".join(lines)


def quantities() -> str:
    """Markdown table of the measured quantities."""
    from galbatch.columns import INTERVAL, QUANTITIES, statistics_of

    lines = ["| quantity | unit | UCD | what | interval in | see flag |", "|---|---|---|---|---|---|"]
    for name, about in QUANTITIES.items():
        where = f"`{about.table}.parquet`" if INTERVAL[0] in statistics_of(about) else "-"
        cells = (
            f"`{name}`",
            about.unit or "-",
            _ucd(about.ucd),
            about.description,
            where,
            _levels(about.flags),
        )
        lines.append(_row(cells))
    return "\n".join(lines)


def statistics() -> str:
    """Markdown table of the statistics of each quantity."""
    from galbatch.columns import INTERVAL, STATISTICS

    lines = ["| suffix | what | of |", "|---|---|---|"]
    of = {name: "quantities with an interval" for name in INTERVAL}
    of |= {"obs": "all", "draws": "all but the sky; with `--draw-columns`"}
    for name, (text, _) in STATISTICS.items():
        lines.append(_row((f"`{name}`", text, of.get(name, "all but the sky"))))
    return "\n".join(lines)


def other_columns() -> str:
    """Markdown table of the columns that are no statistic of a quantity."""
    from galbatch.columns import MEASURED, PLACE

    lines = ["| column | in | unit | UCD | what | see flag |", "|---|---|---|---|---|---|"]
    for name, about in (MEASURED | PLACE).items():
        name = name.replace("{pair}", "{b1}_{b2}")
        cells = (f"`{name}`", f"`{about.table}.parquet`", about.unit or "-", _ucd(about.ucd))
        lines.append(_row((*cells, about.description, _levels(about.flags))))
    return "\n".join(lines)


def _ucd(ucd: str) -> str:
    return f"`{ucd}`" if ucd else "-"


def _levels(flags: int) -> str:
    """The flags that are set, each with its level."""
    from galbatch.flags import FLAGS

    return (
        ", ".join(f"{f.name} ({about.level.name.lower()})" for f, about in FLAGS.items() if f & flags) or "-"
    )


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def flags() -> str:
    """Markdown table of the flag bits."""
    from galbatch.flags import FLAGS

    lines = ["| bit | value | flag | level | meaning | what to do |", "|---:|---:|---|---|---|---|"]
    lines += [
        f"| {int(flag).bit_length() - 1} | {int(flag)} | `{flag.name}` | {about.level.name.lower()} "
        f"| {_cell(about.meaning)} | {_cell(about.remedy)} |"
        for flag, about in FLAGS.items()
    ]
    return "\n".join(lines)


def morphology_flags() -> str:
    """Markdown table of the bits of morph_flags."""
    from galbatch.morphology import MORPH_FLAG_DESCRIPTIONS

    lines = ["| value | flag | meaning |", "|---:|---|---|"]
    lines += [
        f"| {int(flag)} | `{flag.name}` | {_cell(text)} |" for flag, text in MORPH_FLAG_DESCRIPTIONS.items()
    ]
    return "\n".join(lines)


def layouts() -> str:
    """Markdown table of the survey layouts that ship."""
    from pathlib import Path

    from galbatch.cutouts.survey.layout import layout_names, load_layout

    lines = ["| layout | expected files |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(load_layout(name, Path()).description)} |" for name in layout_names()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def units() -> str:
    """The units that the survey file accepts, as a list inside another."""
    from galbatch.cutouts.fits.units import ACCEPTED

    return "\n".join(f"  - {words}" for words in ACCEPTED).lstrip()


def changelog() -> str:
    """The changelog of the repository, with the fragments that wait for the next version."""
    waiting = [(path.name.split(".")[1], path) for path in sorted((ROOT / "changelog.d").glob("*.md"))]
    lines = [f"- {kind.capitalize()}: {path.read_text(encoding='utf-8').strip()}" for kind, path in waiting]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.replace(FRAGMENTS, "\n".join(["### Latest changes", "", *lines, ""]) if lines else "")


def citation() -> str:
    """The citation file of the repository."""
    return (ROOT / "CITATION.cff").read_text(encoding="utf-8").rstrip()


PARTS: dict[str, Callable[[], str]] = {
    "command line": command_line,
    "arrays": arrays,
    "quantities": quantities,
    "statistics": statistics,
    "other columns": other_columns,
    "flags": flags,
    "morphology flags": morphology_flags,
    "layouts": layouts,
    "units": units,
    "changelog": changelog,
    "citation": citation,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """mkdocs calls this with every page."""
    return re.sub(r"\[\[(?!data\])([a-z ]+)\]\]", lambda found: PARTS[found.group(1)](), markdown)
