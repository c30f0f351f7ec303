"""The report of a large run: its size, how long it takes to write and to open, and how smoothly it scrolls.

    python benchmarks/throughput/report_page.py catalogs/demo.run [--sources 10000] [--pictures docs/images]

A run of that many sources is made of the sources of a finished one, whose measured numbers are scattered
within their error bars. Its page is opened in Chromium and scrolled through, a step a frame. ``--pictures``:
the page of the finished run itself, photographed in the light and the dark theme and on a phone.
Needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver), selenium and pillow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from browser import open_browser

import galbatch
from galbatch.cli.main import main as galbatch_command
from galbatch.columns import INTERVAL, columns_of
from galbatch.store import (
    BatchResult,
    PlanWriter,
    Run,
    RunPaths,
    StoreLayout,
    commit_batch,
    create_store,
    iter_plan,
    merge_catalogue,
)

BATCH, DRAWS = 64, 2
SCROLL = """
const done = arguments[0], frames = [], long = [], grid = document.getElementById("grid");
document.documentElement.style.scrollBehavior = "auto";
new PerformanceObserver((l) => long.push(...l.getEntries())).observe({entryTypes: ["longtask"]});
scrollTo(0, grid.getBoundingClientRect().top + scrollY);
let last = performance.now(), n = 0;
requestAnimationFrame(function tick(now) {
  frames.push(now - last);
  last = now;
  scrollBy(0, STEP);
  if (n++ < 100) requestAnimationFrame(tick); else setTimeout(() => done([frames.slice(2), long]), 200);
});
"""


def enlarge(run: Run, folder: Path, n: int) -> RunPaths:
    """A run folder of ``n`` sources, those of ``run`` over and over, numbers scattered by their errors."""
    rng = np.random.default_rng(0)
    paths, old, table = RunPaths(folder), run.layout, run.catalog
    paths.parts.mkdir(parents=True)
    layout = StoreLayout(
        n,
        BATCH,
        DRAWS,
        old.bands,
        old.stamp_pix,
        old.oversample,
        pixel_ratio=old.pixel_ratio,
        pixel_scale_arcsec=old.pixel_scale_arcsec,
        target_fwhm_pix=old.target_fwhm_pix,
    )
    create_store(paths.posterior, layout)
    store = zarr.open_group(run.paths.posterior, mode="r")
    arrays = {name: store[name][:] for name in layout.arrays()}
    arrays["samples"] = arrays["samples"][:, :DRAWS]
    row = {str(i): k for k, i in enumerate(table["source_id"])}
    at = np.array([row[str(i)] for i in arrays["source_id"]])
    columns = {
        c: np.asarray(getattr(t[c], "value", t[c])) for t in (run.statistics, run.catalog) for c in t.colnames
    }
    with PlanWriter(paths.plan, BATCH) as plan:
        k = np.arange(n)
        sky = {c: np.asarray(columns[c])[at[k % len(at)]] for c in ("ra", "dec")}
        plan.add(
            {
                "source_id": k,
                **sky,
                "tile": np.full(n, "t"),
                "x": k * 1.0,
                "y": k * 1.0,
                "prescreen_flags": np.zeros(n, np.int64),
            },
            {},
        )
    for rows in iter_plan(paths.plan):
        take = rows.columns["source_id"] % len(at)
        found = {name: values[take] for name, values in arrays.items()} | {
            "source_id": rows.columns["source_id"]
        }
        numbers = _scattered(columns, at[take], rng) | {"source_id": rows.columns["source_id"]}
        numbers |= {f"failure_{k}": np.full(len(take), "", object) for k in ("stage", "code", "message")}
        commit_batch(paths, layout, BatchResult(rows.batch, found, numbers))
    merge_catalogue(paths, columns_of(run.bands))
    for name in ("manifest", "summary"):
        shutil.copy(getattr(run.paths, name), getattr(paths, name))
    return paths


def _scattered(columns: dict, rows: np.ndarray, rng) -> dict[str, np.ndarray]:
    """The columns of ``rows``; all percentiles of a number moved by one draw from its error bar."""
    out = {
        c: v[rows] for c, v in columns.items() if c not in ("ra", "dec", "_healpix_29", "kind", "psf_index")
    }
    for name in [c for c in out if "_std_" in c]:
        move = (rng.normal(size=len(rows)) * np.nan_to_num(out[name])).astype(np.float32)
        for stat in (*INTERVAL, "obs"):
            if (other := name.replace("_std_", f"_{stat}_")) in out:
                out[other] = out[other] + move
    return out


def load(browser, page: Path) -> float:
    """Open the page; returns the seconds until it is ready."""
    from selenium.webdriver.support.ui import WebDriverWait

    start = time.perf_counter()
    browser.get(page.resolve().as_uri())
    WebDriverWait(browser, 120).until(lambda b: b.execute_script("return document.body.dataset.ready") == "1")
    return time.perf_counter() - start


def measure(browser, page: Path) -> dict:
    """Seconds to open; milliseconds a frame, and of the page's thread alone, while 100 steps are scrolled."""
    out = {"open_s": round(load(browser, page), 2)}
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    for kind, step in (("wheel", 120), ("flick", 1000)):
        before = _thread_ms(browser)
        frames, long = browser.execute_async_script(SCROLL.replace("STEP", str(step)))
        out[kind] = {
            "cpu_ms_a_frame": round((_thread_ms(browser) - before) / len(frames), 2),
            "frame_ms_median": round(float(np.median(frames)), 1),
            "frame_ms_p95": round(float(np.percentile(frames, 95)), 1),
            "long_tasks": len(long),
        }
    return out


def _thread_ms(browser) -> float:
    """CPU milliseconds that the page's main thread has spent in tasks: script, style, layout, paint."""
    found = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1e3 * next(m["value"] for m in found if m["name"] == "TaskDuration")


def photograph(browser, page: Path, folder: Path) -> None:
    """``report-{light,dark,phone}.png`` of the page: grades, plots and gallery side by side."""
    from PIL import Image

    for name, theme, width, height in (
        ("light", "light", 1200, 1300),
        ("dark", "dark", 1200, 1300),
        ("phone", "dark", 390, 844),
    ):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        load(browser, page)
        shots = []
        for where in ("usable", "explore", "gallery"):
            browser.execute_script(
                "document.documentElement.style.scrollBehavior = 'auto';"
                "document.getElementById(arguments[0]).scrollIntoView()",
                where,
            )
            time.sleep(2)
            shots.append(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
        sheet = Image.new("RGB", (len(shots) * (width + 10) - 10, height), "white")
        for k, shot in enumerate(shots):
            sheet.paste(shot, (k * (width + 10), 0))
        sheet.quantize(128).save(folder / f"report-{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path)
    chosen = parser.parse_args()
    browser = open_browser()
    try:
        if chosen.pictures:
            with tempfile.TemporaryDirectory() as folder:
                page = Path(folder) / "report.html"
                assert galbatch_command(["report", str(chosen.run), "--out", str(page)]) == 0
                photograph(browser, page, chosen.pictures)
            return
        with tempfile.TemporaryDirectory() as folder:
            paths = enlarge(galbatch.open_run(chosen.run), Path(folder) / "large.run", chosen.sources)
            start = time.process_time()
            assert galbatch_command(["report", str(paths.root)]) == 0
            row = {
                "sources": chosen.sources,
                "cpu_s": round(time.process_time() - start, 1),
                "mb": round(paths.report.stat().st_size / 1e6, 2),
                "load": os.getloadavg()[0],
            }
            print(json.dumps(row | measure(browser, paths.report)))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
