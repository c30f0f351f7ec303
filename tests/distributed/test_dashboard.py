"""What a run shows while it goes on: task names, the columns of the workers page, Prometheus,
metrics.jsonl."""

import json
import re
import urllib.request

import pytest
import toys
from distributed import default_client

from galbatch.run import process, status
from galbatch.run.worker import COLUMNS

OPTIONS = dict(batch=2, draws=2, mode="fast")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def watched(survey, tmp_path_factory):
    """A run of two workers, looked at from outside after each of its batches."""
    out, seen = tmp_path_factory.mktemp("watched") / "w.run", []

    def look(progress):
        if not 4 <= progress.done < 10:
            return
        head = progress.dashboard.removesuffix("/status")
        workers = default_client().scheduler_info(n_workers=-1)["workers"]
        ports = [(w["host"], w["services"]["dashboard"]) for w in workers.values()]
        seen.append(
            {
                "metrics": [w["metrics"] for w in workers.values()],
                "prometheus": [get(f"http://{host}:{port}/metrics") for host, port in ports],
                "page": get(f"{head}/workers"),
                "state": status(out)["state"],
                "holder": status(out)["holder"],
            }
        )

    options = dict(prior=toys.GaussianPrior(0.02), cluster="local", workers=2, on_progress=look)
    process(survey, out=out, **options, **OPTIONS)
    return out, seen


def test_workers_publish_their_columns(watched):
    _, seen = watched
    columns = {f"galbatch_{name}" for name in COLUMNS}
    assert seen and all(columns <= set(worker) for view in seen for worker in view["metrics"])
    last = seen[-1]["metrics"]  # as of the last heartbeats: at most what is committed
    assert 0 < sum(w["galbatch_sources"] for w in last) <= 10
    assert all(w["galbatch_models_loaded"] == 1 for w in last)
    assert any(w["galbatch_psf_cache_hit"] > 0 for w in last)  # the sources share a PSF
    assert all("</html>" in view["page"] for view in seen)


def test_prometheus_counts_sources_draws_and_stage_seconds(watched):
    _, seen = watched
    text = "".join(seen[-1]["prometheus"])

    def total(name, label=""):
        return sum(float(v) for v in re.findall(rf"^{name}{label} ([0-9.e+-]+)$", text, re.M))

    sources = total("galbatch_sources_total", r"\{[^}]*\}")
    assert 4 <= sources <= 10 and total("galbatch_draws_total") == 2 * (
        sources - total("galbatch_sources_total", r'\{status="failed"\}')
    )
    stages = set(re.findall(r'galbatch_stage_seconds_bucket\{le="[^"]+",stage="([^"]+)"\}', text))
    assert {"cut", "sample", "measure", "store"} <= stages
    assert total("galbatch_stage_seconds_sum", r'\{stage="sample"\}') > 0


def test_a_run_at_work_says_so_and_by_whom(watched):
    _, seen = watched
    assert {view["state"] for view in seen} == {"running"} and all(view["holder"]["pid"] for view in seen)


def test_task_names_carry_batch_and_tile_in_report_and_metrics(watched):
    out, _ = watched
    assert "galbatch-batch-000001-tile-0" in (out / "dask-report.html").read_text()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["event"] for r in records].count("batch") == 5
    batch = next(r for r in records if r["event"] == "batch")
    assert batch["tile"] == "0" and {"seconds", "counters", "worker", "pid", "time"} <= set(batch)
    assert any(r["event"] == "dashboard" and r["link"].startswith("http") for r in records)
