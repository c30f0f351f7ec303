"""The HTML page: what it contains, that it needs no network, and how it behaves in a browser."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from report_fakes import fake_summary, fake_view

from galbatch.errors import InputError
from galbatch.report.gather import _choose
from galbatch.report.page import fill_template, page_data, render_page
from galbatch.report.thumbnails import MAX_STRIPS, encode_strip, plan_strips


@pytest.fixture(scope="module")
def summary():
    return fake_summary()


@pytest.fixture(scope="module")
def page(summary):
    return render_page(summary)


def without_plots(summary):
    return fill_template(summary, "", {}, "")


def embedded(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    )


def test_page_asks_no_other_file(page):
    own = page[: page.index('<script type="application/json"')] + page[page.rindex("<script>") :]
    assert not re.findall(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', own)
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?!data:)', page[: page.index("<script")])
    assert "@import" not in own and "url(" not in own


def test_page_has_the_accounts(page, summary):
    for count in summary.counts.values():
        assert f"<b>{count}</b>" in page
    assert "All sources accounted for" in page
    assert "NEIGHBOUR" in page and "outside &lt;every&gt; image" in page


def test_page_says_first_which_sources_can_be_used(summary):
    graded = dataclasses.replace(summary, grades={"": (31, 5, 4), "f200w": (33, 4, 3)})
    text = without_plots(graded)
    assert text.index("Which sources can I use?") < text.index("<h2>Health</h2>")
    row = re.search(r'data-quality="0".*?</tr>', text, re.S).group(0)
    assert ">31<" in row and ">33<" in row and 'value="quality:2"' in text


def test_accounts_that_do_not_balance_are_called_out(summary):
    broken = dataclasses.replace(summary, counts=summary.counts | {"ok": summary.counts["ok"] - 1})
    assert "Not all sources are accounted for" in without_plots(broken)


def test_embedded_data_are_the_columns(page, summary):
    data = embedded(page)
    assert data["ids"] == [str(i) for i in summary.source_id]
    for name in ("gini_p50_f444w", "chi2_f200w"):
        found = np.array([np.nan if v is None else v for v in data["columns"][name]])
        assert np.allclose(found, summary.columns[name], rtol=1e-4, equal_nan=True)


def test_text_of_a_catalogue_cannot_break_out_of_the_page(summary):
    ids = np.array([f"</script><script>alert({i})</script>" for i in summary.source_id])
    text = without_plots(dataclasses.replace(summary, source_id=ids, title="<b>run</b>"))
    assert embedded(text)["ids"] == ids.tolist()
    assert "<script>alert(" not in text
    assert "<title>&lt;b&gt;run&lt;/b&gt;" in text


def test_rows_that_disagree_are_named(summary):
    with pytest.raises(InputError, match="chi2_f200w has 3 rows"):
        dataclasses.replace(summary, columns=summary.columns | {"chi2_f200w": np.zeros(3)})


def test_run_without_measurements_has_a_page():
    full = fake_summary(n=5, bands=("f200w",))
    bare = dataclasses.replace(full, columns={}, strips={}, stages={}, calibration=(), failures=())
    assert page_data(bare)["columns"] == {}
    assert "<h2>Gallery</h2>" in render_page(bare)


@pytest.mark.parametrize("count", [10, 1000, 3000, 10_000])
def test_strip_decodes_to_its_panels(count):
    from PIL import Image

    plan = plan_strips(count)
    image = Image.open(io.BytesIO(base64.b64decode(encode_strip(fake_view(size=64, draws=4), plan))))
    assert image.size == (plan.panel_pix * len(plan.titles), plan.panel_pix)
    panels = np.asarray(image.convert("RGB"), dtype=float).reshape(
        plan.panel_pix, len(plan.titles), plan.panel_pix, 3
    )
    mean, spread = panels[:, 1].mean(), panels[:, 2].mean()
    assert mean > spread, "the galaxy must be brighter than its uncertainty"


@pytest.mark.parametrize("bands", [("f200w",), ("f200w", "f444w")])
def test_ten_thousand_sources_stay_under_20_mb(page, bands):
    plan = plan_strips(MAX_STRIPS)
    strips = [encode_strip(fake_view(size=64, truth=False, seed=k), plan) for k in range(6)]
    summary = fake_summary(n=MAX_STRIPS, bands=bands, strip_pool=1)
    summary = dataclasses.replace(summary, strips={"f200w": [strips[i % 6] for i in range(MAX_STRIPS)]})
    plots = len(page) - len(without_plots(fake_summary()))
    three_planes = 3 * 6 * 4 * 4 / 3 + 3 * 6  # columns of float32 as base64, and which points are flagged
    assert len(without_plots(summary)) + plots + MAX_STRIPS * len(bands) * three_planes < 20e6


@pytest.mark.parametrize("n, bands, shown", [(10_000, 2, 10_000), (10_000, 6, 3333), (3000, 6, 3000)])
def test_larger_runs_are_shown_in_part_and_say_so(n, bands, shown):
    rows, note = _choose(n, bands)
    assert len(rows) == shown and len(set(rows.tolist())) == shown
    assert (f"{shown:,} sources chosen at random out of {n:,}" in note) == (shown < n)
