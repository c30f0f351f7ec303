"""The HTML page: what it contains, that it needs no network, and how it behaves in a browser."""

import base64
import dataclasses
import io
import json
import re
import zlib

import numpy as np
import pytest
from report_fakes import fake_summary, fake_view
from scipy.stats import binom

from galbatch.flags import Flag, quality_of
from galbatch.report.colour import rgb
from galbatch.report.gather import _choose, reasons
from galbatch.report.page import render_page
from galbatch.report.small import MAX_STRIPS, encode_strip, plan_strips


def embedded(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    )


def test_page_asks_no_other_file(page):
    """Nothing is loaded: links to survey viewers open where somebody clicks on them."""
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', page)
    assert "@import" not in page and "url(" not in page and "fetch(" not in page and "import(" not in page
    own = page[page.rindex("<script>") :]
    assert set(re.findall(r"https?://[\w.]+", own)) == {
        "https://aladin.cds.unistra.fr",
        "https://www.legacysurvey.org",
        "https://sky.esa.int",
    }


def test_page_has_the_accounts(page, summary):
    for count in summary.counts.values():
        assert f"<b>{count}</b>" in page
    assert "All sources accounted for" in page
    assert "NEIGHBOUR" in page and "outside &lt;every&gt; image" in page


def test_page_says_first_which_sources_can_be_used(summary):
    graded = dataclasses.replace(summary, grades={"": (31, 5, 4), "f200w": (33, 4, 3)})
    text = render_page(graded)
    assert text.index("Which sources can I use?") < text.index("<h2>Explore</h2>")
    assert "<b>31</b>good" in text and ">33</button>" in text and 'value="quality:2"' in text


def test_page_says_why_a_source_is_not_good(page):
    row = re.search(r'<tr class="grade1">.*?</tr>', page, re.S).group(0)
    assert 'data-only="flag:NO_SEG"' in row and "no light above the noise" in row and "deeper data" in row
    assert "3% narrower than &lt;usual&gt;" in page


def test_reasons_count_sources_and_those_they_alone_decide():
    both, bad = Flag.MASKED_CENTRE | Flag.NO_SEG, Flag.SATURATED
    assert quality_of(int(both)) == 1 and quality_of(int(bad)) == 2
    flags = np.array([0, both, Flag.NO_SEG, bad | Flag.NO_SEG, Flag.NEIGHBOUR], np.int64)
    found = {r.name: (r.level, r.sources, r.alone) for r in reasons(flags)}
    assert found == {
        "SATURATED": (2, 1, 1),
        "NO_SEG": (1, 3, 1),
        "MASKED_CENTRE": (1, 1, 0),
        "NEIGHBOUR": (0, 1, 0),
    }
    assert next(iter(found)) == "SATURATED"


def test_coverage_says_what_so_few_truths_can_say(summary, page):
    rows = {row.quantity: row for row in summary.coverage()}
    assert rows["r half light"].verdict == "as expected" and rows["Gini"].verdict == "too few"
    half = rows["r half light"]
    assert binom.cdf(half.high, 40, 0.6827) - binom.cdf(half.low - 1, 40, 0.6827) >= 0.95
    assert "26 of 40" in page and f"{half.low} to {half.high}" in page


def test_accounts_that_do_not_balance_are_called_out(summary):
    broken = dataclasses.replace(summary, counts=summary.counts | {"ok": summary.counts["ok"] - 1})
    assert "Not all sources are accounted for" in render_page(broken)


def sources_of(page):
    packed = re.search(r'id="sources">(.*?)</script>', page, re.S).group(1)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_page_holds_the_sources(page, summary):
    found = sources_of(page)
    assert found["ids"] == [str(i) for i in summary.source_id]
    assert found["quality"] == [int(q) for q in summary.columns["quality_f200w"]]
    assert np.allclose(found["ra"], summary.ra, atol=1e-7)
    names = [name for name, _ in embedded(page)["pages"]["f444w"]]
    assert {"gini_p50_f444w", "chi2_f444w", "quality_f444w"} < set(names)


def test_text_of_a_catalogue_cannot_break_out_of_the_page(summary):
    ids = np.array([f"</script><script>alert({i})</script>" for i in summary.source_id])
    text = render_page(dataclasses.replace(summary, source_id=ids, title="<b>run</b>"))
    assert sources_of(text)["ids"] == ids.tolist()
    assert "<script>alert(" not in text
    assert "<title>&lt;b&gt;run&lt;/b&gt;" in text


def test_run_without_measurements_has_a_page():
    full = fake_summary(n=5, bands=("f200w",))
    bare = dataclasses.replace(full, columns={}, strips={}, stages={}, calibration=(), failures=())
    text = render_page(bare)
    assert embedded(text)["pages"] == {"f200w": []} and "Nobody knows the truth" in text


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


def test_ten_thousand_sources_of_three_bands_stay_under_20_mb():
    """With pictures in colour, which fewer bands do not have."""
    plan = dataclasses.replace(plan_strips(MAX_STRIPS), coloured=True)
    views = [fake_view(size=64, truth=False, seed=k) for k in range(6)]
    strips = [encode_strip(view, plan, rgb(np.stack([view.mean] * 3), 0.01)) for view in views]
    summary = fake_summary(n=MAX_STRIPS, bands=("f115w", "f200w", "f444w"), strip_pool=1)
    summary = dataclasses.replace(summary, strips={"f200w": [strips[i % 6] for i in range(MAX_STRIPS)]})
    assert len(render_page(summary)) < 20e6


@pytest.mark.parametrize("n, most", [(10_000, 10_000), (10_000, 3333), (3000, 6000)])
def test_larger_runs_are_shown_in_part_and_say_so(n, most):
    rows, note = _choose(n, most, "Pictures are of")
    shown = min(n, most)
    assert len(rows) == shown and len(set(rows.tolist())) == shown and np.all(np.diff(rows) > 0)
    assert (f"Pictures are of {shown:,} sources chosen at random out of {n:,}." == note) == (shown < n)


def test_sources_without_a_position_on_the_sky_are_what_a_browser_reads(summary):
    """Runs in pixel coordinates have none: NaN, which JSON does not know, left the page empty."""
    nowhere = np.full(len(summary.ra), np.nan)
    text = render_page(dataclasses.replace(summary, ra=nowhere, dec=nowhere))
    packed = re.search(r'id="sources"[^>]*>(.*?)</script>', text, re.S).group(1)
    raw = zlib.decompress(base64.b64decode(packed)).decode()
    assert json.loads(raw, parse_constant=pytest.fail)["ra"] == [None] * len(nowhere)
