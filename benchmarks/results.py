"""The page of results from its lines: python benchmarks/results.py [--figures]

Lines of results/*.jsonl that have the key ``what`` are rows of RESULTS.md: what, value, target, met (true,
false, null where there is no target, or what of it is missed), command, date, commit (at which the number was
written down), machine. Other lines are what they were taken from. ``--figures`` draws
docs/images/frontier.png from results/frontier.jsonl as well.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIGURE = HERE.parent / "docs" / "images" / "frontier.png"
KEYS = ("what", "value", "target", "met", "command", "date", "commit", "machine")
TOPICS = {
    "calibration": "Calibration: do intervals hold the truth?",
    "accuracy": "Accuracy: against truth, other codes and real pixels",
    "speed": "Speed",
    "scale": "Scale",
}
HEAD = """# Results

Made by `python benchmarks/results.py` from the lines of `benchmarks/results/*.jsonl`: a new number is a new
line there, and every number that the README and the documentation quote is in one. A row holds for its commit
and machine; a script that is not here any more is at that commit. Machines were shared with other work unless
they say otherwise, so ratios say more than seconds.
What was tried and failed: [FAILED.md](FAILED.md). The long page of before, with every step on the way:
`git show eae6c16:benchmarks/RESULTS.md`.
"""
COLOURS = {"galbatch": "#c0392b", "azula": "#2471a3", "deepinv": "#1e8449", "classical": "#7f8c8d"}


def lines(topic: str) -> list[dict]:
    """The lines of results/TOPIC.jsonl."""
    text = (HERE / "results" / f"{topic}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def page() -> str:
    """RESULTS.md."""
    parts = [HEAD]
    for topic, title in TOPICS.items():
        rows = [_row(line) for line in lines(topic) if "what" in line]
        head = "| what | value | target | met | command | date, commit | machine |\n|" + "---|" * 7
        parts.append("\n".join([f"## {title}\n", head, *rows]) + "\n")
    return "\n".join(parts)


def _row(line: dict) -> str:
    assert tuple(line) == KEYS, f"keys of a row: {', '.join(KEYS)}; found {', '.join(line)}"
    met = {True: "yes", False: "**no**", None: ""}.get(line["met"], line["met"])
    command = f"`{line['command']}`" if line["command"] else ""
    place = " ".join(filter(None, (line["date"], line["commit"])))
    cells = (line["what"], line["value"], line["target"], met, command, place, line["machine"])
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def draw_figure(found: list[dict], path: Path) -> None:
    """The error of each method over that of galbatch's default mode on the same galaxy, against the
    cost of a draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    costs = ("evaluations", "seconds"), ("network evaluations per draw", "CPU seconds per draw")
    for panel, key, label in zip(panels, *costs, strict=True):
        for row in (row for row in found if row[key]):
            family, _, name = row["method"].partition(" ")
            family = family if family in COLOURS else "classical"
            style = {"fmt": "o" if family == "galbatch" else "s", "color": COLOURS[family], "ms": 6}
            low = min(row["ratio_error"], 0.9 * row["ratio"])  # an error bar that fits a logarithmic axis
            panel.errorbar(row[key], row["ratio"], [[low], [row["ratio_error"]]], **style)
            text = row["method"].removesuffix(" (oracle)") if family == "classical" else name
            panel.annotate(
                text,
                (row[key], row["ratio"]),
                (5, 4),
                textcoords="offset points",
                fontsize=7,
                color=COLOURS[family],
            )
        panel.axhline(1, color=COLOURS["galbatch"], lw=0.8, ls=":")
        panel.set(xscale="log", yscale="log", xlabel=label)
        panel.xaxis.set_minor_formatter("")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if key == "evaluations" else (1,)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.margins(x=0.15)
        panel.grid(alpha=0.2, which="both")
    panels[0].set_ylabel("squared error of the mean / that of galbatch default")
    title = "One network, one set of mocks: galbatch (red), azula (blue), deepinv (green), others (grey)"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    (HERE / "RESULTS.md").write_text(page(), encoding="utf-8")
    if "--figures" in sys.argv:
        draw_figure(lines("frontier"), FIGURE)
