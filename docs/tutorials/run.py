"""Run the tutorials and keep their outputs, small and without the names of this machine.

    python docs/tutorials/run.py [NAME ...] [--set 'OLD=>NEW']

Large pictures are reduced to 128 colours; of progress bars the last state is kept. ``--set`` changes
a line while a notebook runs; what is saved is the notebook as it was.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NOTEBOOKS = sorted(path.stem for path in HERE.glob("*.ipynb"))
LARGE = 130_000  # characters of base64
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(name: str, changes: dict[str, str]) -> None:
    """Execute a notebook in its folder and write it with its outputs. Any error in a cell raises."""
    import nbclient
    import nbformat

    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    place = {"metadata": {"path": str(HERE)}}
    nbclient.NotebookClient(notebook, timeout=3000, kernel_name="python3", resources=place).execute()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = clean(cell.outputs)
    nbformat.write(notebook, HERE / f"{name}.ipynb")


def clean(outputs: list[Any]) -> list[Any]:
    """Outputs worth keeping: streams as one, without progress bars; small pictures; no paths."""
    kept: list[Any] = []
    for before, output in zip([None, *outputs], outputs, strict=False):
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            # a bar on one stream ends without a line's end: what the other says is no part of it
            other = before.name != output.name and not kept[-1].text.endswith("\n")
            kept[-1].text += ("\n" if other else "") + output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = plain(output.text)
        for kind, value in output.get("data", {}).items():
            output.data[kind] = small(value) if kind == "image/png" else without_paths(value)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def plain(text: str) -> str:
    """Text as a terminal leaves it, bars and paths left out."""
    lines = [
        ANSI.sub("", line).rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")
    ]
    bar = re.compile(r"\[[#-]+\]|\d+%\||TqdmWarning|autonotebook")
    lines = [line for line in lines if not bar.search(line) and "Building task graph" not in line]
    return without_paths(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n")


def without_paths(text: str) -> str:
    """Names of files relative to the notebooks."""
    return text.replace(f"{HERE}/", "").replace(f"{HERE.parents[1]}/", "../../")


def small(png: str) -> str:
    """The picture as base64, in 128 colours where it is large."""
    from PIL import Image

    if len(png) < LARGE:
        return png
    out = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NOTEBOOKS)
    parser.add_argument("--set", action="append", default=[], metavar="OLD=>NEW")
    chosen = parser.parse_args()
    for name in chosen.names:
        run(name, dict(pair.split("=>", 1) for pair in chosen.set))
        print(f"{name}: {(HERE / f'{name}.ipynb').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
