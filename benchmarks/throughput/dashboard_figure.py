"""The picture of Dask's dashboard in docs/guide/running.md: taken in a real browser while a run of the demo
goes on.

    python benchmarks/throughput/dashboard_figure.py [docs/images/dashboard.png]

Needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver), selenium and pillow.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from browser import open_browser

from galbatch.run import process

ROOT = Path(__file__).resolve().parents[2]
WIDTH, COLOURS = 1500, 64
PAGES = (("workers", 1150), ("individual-task-stream", 330))
SCROLLBAR = 16  # pixels at the right of a page
BLANK = 14  # rows of one colour that are left of a longer run of them


def take(browser, head: str) -> list:
    """Pictures of the pages, each once it has drawn something."""
    from PIL import Image

    pictures = []
    for page, height in PAGES:
        browser.set_window_size(WIDTH, height + 140)
        browser.get(f"{head}/{page}")
        time.sleep(12)
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        box = (0, 0, picture.width - SCROLLBAR, min(picture.height, height))
        pictures.append(squeezed(picture.crop(box)))
    return pictures


def squeezed(picture):
    """Without its blank bands."""
    from PIL import Image

    rows = np.asarray(picture)
    plain = (rows == rows[:, :1]).all(axis=(1, 2))
    run = np.zeros(len(rows), int)
    for i in np.flatnonzero(plain):
        run[i] = run[i - 1] + 1 if i else 1
    return Image.fromarray(rows[run <= BLANK])


def save(pictures: list, path: Path) -> None:
    """One below the other, in few colours."""
    from PIL import Image

    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    sheet.quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "dashboard.png"
    browser, pictures = open_browser(WIDTH), []

    def look(progress):
        if progress.done >= 6 and not pictures:
            pictures.extend(take(browser, progress.dashboard.removesuffix("/status")))
            save(pictures, path)

    try:
        with tempfile.TemporaryDirectory() as folder:
            process(
                ROOT / "catalogs" / "demo.parquet",
                out=Path(folder) / "demo.run",
                cluster="local",
                workers=2,
                batch=2,
                limit=12,
                draws=4,
                bands=("f200w",),
                mode="fast",
                on_progress=look,
                on_message=print,
            )
    finally:
        browser.quit()
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
