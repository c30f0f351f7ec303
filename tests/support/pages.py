"""A report in a real browser (Chromium), and what a visitor does with it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "throughput"))
import browser as chromium


@pytest.fixture(scope="module")
def browser():
    if not (chromium.BROWSER and chromium.DRIVER):
        pytest.skip(chromium.MISSING)
    driver = chromium.open_browser()
    yield driver
    driver.quit()


def settle(browser, ms: int = 300) -> None:
    """Until pictures and scrolling have come to rest."""
    browser.execute_async_script(f"setTimeout(arguments[0], {ms})")


def load(browser, page, path):
    from selenium.webdriver.support.ui import WebDriverWait

    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.body.dataset.ready") == "1")


def choose(browser, name, value):
    browser.execute_script(
        "const e = document.getElementById(arguments[0]);"
        "if (e.type === 'checkbox') e.checked = arguments[1]; else e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.type === 'search' ? 'input' : 'change'))",
        name,
        value,
    )


def order(browser):
    return browser.execute_script("return galbatch.state.order")


def filter_by(browser, heading, words):
    """Type into the filter under a heading of the table."""
    browser.execute_script(
        "const heads = [...document.querySelectorAll('#heads button')];"
        "const n = heads.findIndex((b) => b.textContent === arguments[0]);"
        "const input = document.querySelectorAll('#filters input')[n]; input.value = arguments[1];"
        "input.dispatchEvent(new Event('input'))",
        heading,
        words,
    )


def chart_of(title):
    return f"galbatch.charts.find((c) => c.title === {title!r})"


def drag(browser, title, start, end):
    """Draw a box with the pointer, from and to fractions of the axes of a plot."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas, width, height = browser.execute_script(
        f"const c = {chart_of(title)}.canvas; c.scrollIntoView({{block: 'center'}});"
        "return [c, c.clientWidth, c.clientHeight]"
    )
    at = [  # offsets from the middle of the canvas; the margins are those of charts.js
        (54 + x * (width - 64) - width / 2, 8 + (1 - y) * (height - 48) - height / 2) for x, y in (start, end)
    ]
    chain = ActionChains(browser).move_to_element_with_offset(canvas, *map(round, at[0])).click_and_hold()
    chain.move_by_offset(round(at[1][0] - at[0][0]), round(at[1][1] - at[0][1])).release().perform()
