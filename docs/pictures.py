"""Pictures for the documentation, of the pages of a finished run that has a report: the report in the light
and the dark theme and on a phone, and the live page: ``python docs/pictures.py catalogs/demo.run``
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks" / "throughput"))

from browser import open_browser  # noqa: E402

PLACES = (
    "usable",
    "explore",
    "gallery",
)  # of the report, side by side; the first and the last where it is wide


def page(browser, url: str, theme: str, width: int, height: int) -> None:
    """Open ``url`` in a window of this size and theme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(url)


def shot(browser):
    """The window as a picture."""
    from PIL import Image

    time.sleep(3)
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def report(browser, path: Path, name: str, theme: str, width: int, height: int) -> None:
    """``report-NAME.png``: three places of the report side by side."""
    from PIL import Image
    from selenium.webdriver.support.ui import WebDriverWait

    page(browser, path.resolve().as_uri(), theme, width, height)
    WebDriverWait(browser, 120).until(lambda b: b.execute_script("return document.body.dataset.ready") == "1")
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    places = PLACES if width < 500 else PLACES[::2]
    sheet = Image.new("RGB", (len(places) * (width + 10) - 10, height), "white")
    for k, place in enumerate(places):
        browser.execute_script("document.getElementById(arguments[0]).scrollIntoView()", place)
        sheet.paste(shot(browser), (k * (width + 10), 0))
    sheet.quantize(128).save(HERE / "images" / f"report-{name}.png", optimize=True)


def live(browser, run: Path) -> None:
    """``live.png``: the page of ``galbatch watch --live``."""
    watch = [sys.executable, "-m", "galbatch", "watch", str(run), "--live"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        page(browser, process.stdout.readline().split()[0], "light", 1100, 760)
        shot(browser).quantize(128).save(HERE / "images" / "live.png", optimize=True)
        process.terminate()


def main() -> None:
    """Read the command line."""
    run, browser = Path(sys.argv[1]), open_browser()
    browser.set_page_load_timeout(300)
    try:
        for name, theme, width, height in (
            ("light", "light", 900, 1150),
            ("dark", "dark", 900, 1150),
            ("phone", "dark", 390, 844),
        ):
            report(browser, run / "report.html", name, theme, width, height)
        live(browser, run)
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
