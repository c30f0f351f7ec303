"""How the HTML page behaves in a real browser (Chromium)."""

import sys
from pathlib import Path

import numpy as np
import pytest
from report_fakes import fake_summary

from galbatch.report.page import fill_template, render_page

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "throughput"))

import browser as chromium

pytestmark = pytest.mark.ci("selenium")


@pytest.fixture(scope="module")
def summary():
    return fake_summary()


@pytest.fixture(scope="module")
def page(summary):
    return render_page(summary)


@pytest.fixture(scope="module")
def browser():
    if not (chromium.BROWSER and chromium.DRIVER):
        pytest.skip(chromium.MISSING)
    driver = chromium.open_browser()
    yield driver
    driver.quit()


def load(browser, page, path):
    from selenium.webdriver.support.ui import WebDriverWait

    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.body.dataset.ready") == "1")


@pytest.fixture(scope="module")
def loaded(browser, page, tmp_path_factory):
    load(browser, page, tmp_path_factory.mktemp("page") / "report.html")
    return browser


@pytest.fixture
def opened(loaded):
    """The page as a visitor finds it, scrolled to the gallery."""
    loaded.execute_script("document.getElementById('detail').close()")
    for name, value in (
        ("find", ""),
        ("only", ""),
        ("sort", "row"),
        ("descending", False),
        ("band", "f200w"),
    ):
        choose(loaded, name, value)
    loaded.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.getElementById('gallery').scrollIntoView()"
    )
    loaded.execute_async_script("setTimeout(arguments[0], 100)")
    return loaded


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


def test_browser_reports_no_error_and_draws_every_plot(opened):
    assert [e for e in opened.get_log("browser") if e["level"] == "SEVERE"] == []
    assert opened.execute_script("return Bokeh.documents[0].roots().length") == 5 + 2 * 3


@pytest.mark.parametrize(
    "key, column",
    [("chi2", "chi2_f200w"), ("size", "r_half_p50_f200w"), ("prior", "prior_driven_frac_f200w")],
)
def test_gallery_sorts(opened, summary, key, column):
    choose(opened, "sort", key)
    values = summary.columns[column][order(opened)]
    finite = values[np.isfinite(values)]
    assert np.all(np.diff(finite) >= 0) and np.isnan(values[len(finite) :]).all()
    choose(opened, "descending", True)
    values = summary.columns[column][order(opened)]
    assert np.all(np.diff(values[np.isfinite(values)]) <= 0)


def test_gallery_filters_and_finds(opened, summary):
    choose(opened, "only", "flagged")
    assert order(opened) == np.flatnonzero(summary.status == "flagged").tolist()
    choose(opened, "only", "flag:SOLVER")
    assert order(opened) == np.flatnonzero(summary.status == "flagged").tolist()
    choose(opened, "only", "")
    choose(opened, "find", "1007")
    assert order(opened) == [7]


def test_card_opens_the_source_and_arrows_go_on(opened):
    opened.execute_script("document.querySelector('.card[data-row=\"2\"]').click()")
    body = opened.find_element("id", "detail-body").text
    assert "Source 1002" in body and "Gini" in body
    from selenium.webdriver.common.keys import Keys

    opened.find_element("id", "detail").send_keys(Keys.ARROW_RIGHT)
    assert "Source 1003" in opened.find_element("id", "detail-body").text


def test_flag_is_explained_in_the_detail(opened):
    opened.execute_script("galbatch.open(4)")
    body = opened.find_element("id", "detail-body").text
    assert "NEIGHBOUR" in body and "neighbours contribute" in body


def test_clicking_a_point_of_a_plane_opens_its_source(opened):
    opened.execute_script("""
        const all = Bokeh.documents[0].roots().flatMap((r) => [...r.references()]);
        const source = Bokeh.documents[0].get_model_by_name("points-f200w");
        source.selected.indices = [6];
        const tap = all.find((m) => m.type === "TapTool");
        tap.callback.execute(tap, { geometries: {}, source });""")
    assert "Source 1006" in opened.find_element("id", "detail-body").text


def test_band_switches_planes_and_pictures(opened):
    before = opened.execute_script("return document.querySelector('.card[data-row=\"0\"] img').src")
    choose(opened, "band", "f444w")
    hidden = opened.execute_script("return [...document.querySelectorAll('.planes')].map((p) => p.hidden)")
    assert hidden == [True, False]
    assert opened.execute_script("return document.querySelector('.card[data-row=\"0\"] img').src") != before
    assert opened.execute_script("return galbatch.state.band") == "f444w"


def test_theme_changes_page_and_plots(opened):
    read = (
        "return [getComputedStyle(document.body).backgroundColor, [...Bokeh.documents[0].roots()]"
        ".flatMap((r) => [...r.references()]).find((m) => m.type === 'LinearAxis').major_label_text_color]"
    )
    start = opened.execute_script(read)
    opened.find_element("id", "theme").click()
    other = opened.execute_script(read)
    assert start[0] != other[0] and start[1] != other[1]


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_page_never_scrolls_sideways(opened, width):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        right = opened.execute_async_script("""
            window.dispatchEvent(new Event("resize"));
            document.getElementById("gallery").scrollIntoView();
            setTimeout(() => arguments[0]([document.documentElement.scrollWidth,
                ...[...document.querySelectorAll(".card")].map((c) => c.getBoundingClientRect().right)
            ]), 300)""")
        assert len(right) > 3, "no card is shown"
        assert max(right) <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_large_gallery_costs_no_more_than_a_small_one(browser, tmp_path):
    """Only cards in view exist, so that a step of scrolling takes as long in 5,000 sources as in 60."""
    page = fill_template(fake_summary(n=5000, bands=("f200w",)), "", {}, "").replace(
        "<body>", "<body data-ready=1>"
    )
    load(browser, page, tmp_path / "large.html")
    scroll = """
        const done = arguments[0], work = [], cards = [], grid = document.getElementById("grid");
        const top = grid.getBoundingClientRect().top + scrollY;
        document.documentElement.style.scrollBehavior = "auto";
        let n = 0;
        (function tick() {
            scrollTo(0, top + (n % 4) * 700);
            const start = performance.now();
            galbatch.draw();
            document.body.getBoundingClientRect();
            work.push(performance.now() - start);
            cards.push(document.querySelectorAll(".card").length);
            if (n++ < 16) setTimeout(tick, 0); else done([work, cards, galbatch.state.order.length]);
        })();"""
    large, cards, count = browser.execute_async_script(scroll)
    assert count == 5000 and 3 < min(cards) and max(cards) < 80
    choose(browser, "find", "10")
    browser.execute_script("galbatch.state.order.length = 60")
    small, _, count = browser.execute_async_script(scroll)
    assert count == 60
    assert np.median(large) < 5 * np.median(small)
