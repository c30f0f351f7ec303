"""How the HTML page behaves in a real browser (Chromium)."""

import csv
import dataclasses
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from pages import chart_of, choose, drag, filter_by, load, order, settle
from report_fakes import fake_summary

from galbatch.report.page import render_page

pytestmark = pytest.mark.ci("selenium")


@pytest.fixture(scope="module")
def loaded(browser, page, tmp_path_factory):
    load(browser, page, tmp_path_factory.mktemp("page") / "report.html")
    return browser


@pytest.fixture
def opened(loaded):
    """The page as a visitor finds it, scrolled to the gallery."""
    loaded.execute_script("document.getElementById('detail').close()")
    choose(loaded, "band", "f200w")
    loaded.execute_script(
        "Object.assign(galbatch.state, { sort: 0, descending: false });"
        "const clear = document.getElementById('clear'); clear.disabled = false; clear.click();"
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.getElementById('gallery').scrollIntoView()"
    )
    settle(loaded, 100)
    return loaded


def test_browser_reports_no_error_and_draws_every_plot(opened):
    assert [e for e in opened.get_log("browser") if e["level"] == "SEVERE"] == []
    inked = opened.execute_script("""
        return galbatch.charts.map(({ canvas }) => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(pixels.data.buffer)).size;
        })""")
    assert len(inked) == 8 and min(inked) > 10


def test_numbers_arrive_with_their_digits(opened, summary):
    """Medians to 1 in 10^5, error bars (differences from the median) and all else to 1 in 2000."""
    choose(opened, "band", "f444w")
    settle(opened)
    for name, base in opened.execute_script("return Object.values(galbatch.data.pages).flat()"):
        kept = opened.execute_script(
            "return [...galbatch.columns.get(arguments[0])].map((x) => isNaN(x) ? null : x)", name
        )
        kept, true = np.array([np.nan if v is None else v for v in kept]), summary.columns[name]
        middle = summary.columns.get(base, np.zeros(1))
        size = np.abs(true - middle) / 2000 + np.abs(middle) / 1e5 if "_p50_" not in name else abs(true) / 1e5
        assert np.array_equal(np.isnan(kept), np.isnan(true)), name
        assert np.all((np.abs(kept - true) <= size) | np.isnan(true)), name


@pytest.mark.parametrize("heading, column", [("χ²", "chi2_f200w"), ("r½", "r_half_p50_f200w")])
def test_a_heading_sorts_table_and_gallery(opened, summary, heading, column):
    click = (
        "[...document.querySelectorAll('#heads button')].find((b) => b.textContent === arguments[0]).click()"
    )
    for sign, said in ((1, "ascending"), (-1, "descending")):
        opened.execute_script(click, heading)
        values = summary.columns[column][order(opened)]
        finite = values[np.isfinite(values)]
        assert np.all(sign * np.diff(finite) >= -1e-3) and np.isnan(values[len(finite) :]).all()
        first = opened.find_element("css selector", "#rows button").text
        assert first == str(summary.source_id[order(opened)[0]])
        assert opened.find_elements("css selector", f"#heads [aria-sort={said}]")


def test_table_and_menu_filter(opened, summary):
    choose(opened, "only", "flagged")
    assert order(opened) == np.flatnonzero(summary.status == "flagged").tolist()
    choose(opened, "only", "flag:NO_SEG")
    assert order(opened) == np.flatnonzero(summary.status == "flagged").tolist()
    choose(opened, "only", "")
    choose(opened, "find", "1007")
    assert order(opened) == [7]
    choose(opened, "find", "")
    filter_by(opened, "mag", "<24")
    filter_by(opened, "χ²", "0.95 .. 1.05")
    mag, chi2 = summary.columns["mag_ab_p50_f200w"], summary.columns["chi2_f200w"]
    assert order(opened) == np.flatnonzero((mag < 24) & (chi2 >= 0.95) & (chi2 <= 1.05)).tolist()
    filter_by(opened, "χ²", "few")
    assert order(opened) == np.flatnonzero(mag < 24).tolist()
    assert len(opened.find_elements("css selector", "[aria-invalid=true]")) == 1


def test_a_box_in_one_plot_selects_in_all_and_in_the_table(opened, summary):
    drag(opened, "Gini-M20", (0.02, 0.5), (0.6, 0.98))
    chosen = order(opened)
    fx, fy = opened.execute_script(f"const c = {chart_of('Gini-M20')}; return [[...c.fx], [...c.fy]]")
    rank = np.argsort(summary.columns["gini_p50_f200w"][chosen])
    assert 3 < len(chosen) < 30
    assert all(0 < fx[i] < 0.63 and fy[i] > 0.47 for i in chosen)
    assert np.all(np.diff(np.array(fy)[chosen][rank]) >= 0), "the axis must grow with Gini"
    keep = opened.execute_script("return [...galbatch.state.keep]")
    assert np.flatnonzero(keep).tolist() == sorted(chosen)
    assert f"{len(chosen)} of 40" in opened.find_element("id", "shown").text
    drag(opened, "chi2 per pixel", (0.3, 0.2), (0.5, 0.8))
    both = order(opened)
    chi2 = summary.columns["chi2_f200w"][both]
    assert set(both) < set(chosen) and np.all((chi2 > 0.78) & (chi2 < 1.02))
    opened.find_element("id", "clear").click()
    assert len(order(opened)) == 40


def test_the_selection_is_downloaded_as_csv(opened, summary):
    choose(opened, "only", "quality:0")
    text = opened.execute_async_script("galbatch.csv().then(arguments[0])")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["source_id"] for row in table] == [str(i) for i in summary.source_id[summary.status == "ok"]]
    for band in summary.bands:
        found = [float(row[f"gini_p84_{band}"]) for row in table]
        assert np.allclose(found, summary.columns[f"gini_p84_{band}"][summary.status == "ok"], atol=1e-4)
    assert float(table[0]["ra"]) == pytest.approx(summary.ra[0], abs=1e-7)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("detail", [False, True])
def test_axe_finds_nothing_serious(opened, dark, detail):
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None:
        pytest.skip("axe-playwright-python is not installed: pip install -e '.[ci]'")
    opened.execute_script(
        "document.documentElement.dataset.theme = arguments[0]", "dark" if dark else "light"
    )
    if detail:
        opened.execute_script("galbatch.open(4)")
        settle(opened)
    opened.execute_script(
        (Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")
    )
    found = opened.execute_async_script("axe.run().then(arguments[0])")
    bad = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert len(found["passes"]) > 15 and [(v["id"], v["nodes"][0]["html"][:200]) for v in bad] == []


def test_a_source_opens_from_card_and_point_with_its_flags_bands_and_links(opened):
    from selenium.webdriver.common.keys import Keys

    text = lambda: opened.find_element("id", "detail-body").text  # noqa: E731
    opened.execute_script("document.querySelector('.card[data-row=\"2\"]').click()")
    assert "Source 1002" in text() and "Gini" in text()
    settle(opened)
    one, two = opened.find_elements("css selector", "#detail-body img")
    assert one.get_attribute("src") != two.get_attribute("src")
    links = [a.get_attribute("href") for a in opened.find_elements("css selector", "#detail-body a")]
    assert len(links) == 3 and all("150." in link for link in links)
    opened.find_element("id", "detail").send_keys(Keys.ARROW_RIGHT)
    assert "Source 1003" in text()
    opened.execute_script("galbatch.open(4)")
    assert "NEIGHBOUR" in text() and "neighbours contribute" in text()
    opened.execute_script("document.getElementById('detail').close()")
    x, y = opened.execute_script(f"const c = {chart_of('Size-magnitude')}; return [c.fx[6], c.fy[6]]")
    drag(opened, "Size-magnitude", (x, y), (x, y))
    assert "Source 1006" in text()


def test_band_switches_plots_and_pictures(opened):
    read = (
        "return [document.querySelector('.card[data-row=\"0\"] img').src, "
        f"{chart_of('Size-magnitude')}.fx[0]]"
    )
    before = opened.execute_script(read)
    choose(opened, "band", "f444w")
    settle(opened)
    after = opened.execute_script(read)
    assert before[0] != after[0] and before[1] != after[1]
    assert opened.execute_script("return galbatch.state.band") == "f444w"


def test_theme_changes_page_and_plots(opened):
    read = (
        "const pen = galbatch.charts[0].canvas.getContext('2d');"
        "return [getComputedStyle(document.body).backgroundColor,"
        " [...pen.getImageData(0, 0, 300, 200).data].reduce((a, b) => a + b)]"
    )
    start = opened.execute_script(read)
    opened.find_element("id", "theme").click()
    other = opened.execute_script(read)
    assert start[0] != other[0] and start[1] != other[1]


def test_keyboard_reaches_the_selection_and_a_source(opened):
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.getElementById('find').focus()")
    opened.switch_to.active_element.send_keys("100")
    assert order(opened) == list(range(10))
    button = opened.find_element("css selector", "#rows button")
    button.send_keys(Keys.ENTER)
    settle(opened)
    assert "Source 1000" in opened.find_element("id", "detail-body").text
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not opened.execute_script("return document.getElementById('detail').open")


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
    load(browser, render_page(fake_summary(n=5000, bands=("f200w",))), tmp_path / "large.html")
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
    browser.execute_script("galbatch.state.order.length = 60")
    small, _, count = browser.execute_async_script(scroll)
    assert count == 60
    assert np.median(large) < 5 * np.median(small)


def test_a_hundred_thousand_sources_are_selected_in_a_second(browser, tmp_path):
    summary = fake_summary(n=100_000, bands=("f200w",), strip_pool=1)
    load(browser, render_page(dataclasses.replace(summary, strips={})), tmp_path / "huge.html")
    seconds, count = browser.execute_script("""
        const chart = galbatch.charts[2], times = [];
        for (let k = 0; k < 5; k++) {
            const start = performance.now();
            chart.box = galbatch.boxOf(chart, [0.1 * k, 0.2], [0.6, 0.7]);
            galbatch.arrange();
            times.push(performance.now() - start);
        }
        return [times.sort((a, b) => a - b)[2] / 1000, galbatch.state.order.length]""")
    assert 5_000 < count < 80_000 and seconds < 1


def test_a_run_in_pixels_has_all_but_the_sky(browser, summary, tmp_path):
    nowhere = np.full(len(summary.ra), np.nan)
    load(
        browser, render_page(dataclasses.replace(summary, ra=nowhere, dec=nowhere)), tmp_path / "pixels.html"
    )
    titles = browser.execute_script("return galbatch.charts.map((c) => c.title)")
    assert "Size-magnitude" in titles and "On the sky" not in titles
    written = browser.execute_async_script("galbatch.csv().then(arguments[0])")
    row = next(csv.DictReader(io.StringIO(written)))
    assert row["ra"] == row["dec"] == "" and row["source_id"]
