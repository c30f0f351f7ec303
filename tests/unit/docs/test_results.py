"""Numbers that the README and the pages claim are lines of benchmarks/results, and every script of
benchmarks is quoted."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINES = "\n".join(path.read_text() for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")))
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
CLAIMS = [  # page, the heading that its claims begin with, the one that they end with
    ("README.md", "## How far to trust it", "## How to cite"),
    ("docs/science.md", "## How well it is calibrated", "## When not to trust it"),
    ("docs/quickstart.md", "## How long it takes", "Next:"),
    ("docs/guide/prior.md", "| | `small`", "```sh"),
    ("docs/guide/scale.md", "## One run", "## 10^8 sources"),
    ("docs/guide/scale.md", "## What it costs", "## Memory"),
]
# Names, dates, options and scales, not measurements.
NOT_MEASURED = {"0006", "2000", "8", "0", "1", "2", "10", "128"}


def numbers(text: str) -> set[str]:
    text = re.sub(
        r"\]\([^)]*\)|```.*?```|\([\w ]*\d{4}\)|\w*\d*[a-z]\d+\w*|10\^\d", " ", text, flags=re.DOTALL
    )
    return {found.rstrip(",").replace(",", "").rstrip(".") for found in NUMBER.findall(text)}


@pytest.mark.parametrize("page, start, end", CLAIMS, ids=lambda v: v)
def test_every_number_that_is_claimed_is_in_the_results(page, start, end):
    text = (ROOT / page).read_text()
    claimed = text[text.index(start) : text.index(end, text.index(start) + len(start))]
    known = {float(n) for n in numbers(LINES)} | {float(n) for n in NOT_MEASURED}
    missing = sorted(n for n in numbers(claimed) if float(n) not in known)
    assert not missing, f"{page}: {', '.join(missing)}: add the line of the measurement to benchmarks/results"


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*/*.py")), ids=lambda p: p.stem)
def test_every_benchmark_is_quoted(script):
    """By a line of results, by a page whose picture it draws, or by another script that imports it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")]
    others = [p for p in (ROOT / "benchmarks").glob("*/*.py") if p != script]
    used = any(re.search(rf"^\s*(from|import) {script.stem}\b", p.read_text(), re.MULTILINE) for p in others)
    assert used or script.name in LINES or any(script.name in p.read_text() for p in pages), script
