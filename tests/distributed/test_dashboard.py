"""One run of a local cluster: its bytes, where it listens, and what it shows while it goes on: task names,
columns of the workers page, Prometheus, metrics.jsonl."""

import json
import os
import re
import urllib.request
from pathlib import Path

import pytest
import toys
from distributed import default_client
from runs import OPTIONS, same

from galbatch.run import process, status
from galbatch.run.worker import COLUMNS

LISTENS, LOOPBACK = "0A", "0100007F"  # as /proc/net/tcp has them
NET = Path("/proc/net/tcp")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def listening(pids) -> set[str]:
    """Addresses, in hex, on which processes listen."""
    inodes, found = set(), set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
            except OSError:
                continue
    for table in filter(Path.exists, (NET, NET.with_name("tcp6"))):
        for words in map(str.split, table.read_text().splitlines()[1:]):
            if words[3] == LISTENS and words[9] in inodes:
                found.add(words[1].split(":")[0])
    return found


@pytest.fixture(scope="module")
def watched(survey, tmp_path_factory):
    """A run of two workers, looked at from outside after each of its batches: (folder, views, messages)."""
    out, seen, messages = tmp_path_factory.mktemp("watched") / "w.run", [], []

    def look(progress):
        if not 0 < progress.done < 10:
            return
        head = progress.dashboard.removesuffix("/status")
        workers = default_client().scheduler_info(n_workers=-1)["workers"]
        ports = [(w["host"], w["services"]["dashboard"]) for w in workers.values()]
        pids = [os.getpid(), *default_client().run(os.getpid).values()]
        seen.append(
            {
                "metrics": [w["metrics"] for w in workers.values()],
                "prometheus": [get(f"http://{host}:{port}/metrics") for host, port in ports],
                "page": get(f"{head}/workers"),
                "state": status(out)["state"],
                "holder": status(out)["holder"],
                "listening": listening(pids) if NET.exists() else None,
                "dashboard": progress.dashboard,
            }
        )

    how = dict(cluster="local", workers=2, on_progress=look, on_message=messages.append)
    process(survey, out=out, prior=toys.GaussianPrior(0.02), **how, **OPTIONS)
    return out, seen, messages


def test_a_cluster_writes_what_a_serial_run_writes(watched, serial):
    out, _, messages = watched
    same(serial, out)
    assert any("local, 2 CPU process" in m for m in messages)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    batches = [r for r in records if r["event"] == "batch"]
    assert sorted(r["batch"] for r in batches) == [0, 1, 2, 3]
    assert {r["models_loaded"] for r in batches} == {1}  # once a process, however many batches it took
    assert len({r["pid"] for r in batches}) <= 2


@pytest.mark.skipif(not NET.exists(), reason="needs /proc/net")
def test_scheduler_workers_and_dashboards_listen_on_this_machine_alone(watched):
    for view in watched[1]:
        assert view["listening"] == {LOOPBACK} and view["dashboard"].startswith("http://127.0.0.1:")


def test_workers_publish_their_columns(watched):
    _, seen, _ = watched
    columns = {f"galbatch_{name}" for name in COLUMNS}
    assert seen and all(columns <= set(worker) for view in seen for worker in view["metrics"])
    last = seen[-1]["metrics"]  # as of the last heartbeats: at most what is committed
    assert 0 < sum(w["galbatch_sources"] for w in last) <= 10
    assert all(w["galbatch_models_loaded"] == 1 for w in last)
    assert any(w["galbatch_psf_cache_hit"] > 0 for w in last)  # the sources share a PSF
    assert all("</html>" in view["page"] for view in seen)


def test_prometheus_counts_sources_draws_and_stage_seconds(watched):
    _, seen, _ = watched
    text = "".join(seen[-1]["prometheus"])

    def total(name, label=""):
        return sum(float(v) for v in re.findall(rf"^{name}{label} ([0-9.e+-]+)$", text, re.M))

    sources = total("galbatch_sources_total", r"\{[^}]*\}")
    assert 3 <= sources <= 10 and total("galbatch_draws_total") == 3 * (
        sources - total("galbatch_sources_total", r'\{status="failed"\}')
    )
    stages = set(re.findall(r'galbatch_stage_seconds_bucket\{le="[^"]+",stage="([^"]+)"\}', text))
    assert {"cut", "sample", "measure", "store"} <= stages
    assert total("galbatch_stage_seconds_sum", r'\{stage="sample"\}') > 0


def test_a_run_at_work_says_so_and_by_whom(watched):
    _, seen, _ = watched
    assert {view["state"] for view in seen} == {"running"} and all(view["holder"]["pid"] for view in seen)


def test_task_names_carry_batch_and_tile_in_report_and_metrics(watched):
    out, *_ = watched
    assert "galbatch-batch-000001-tile-0" in (out / "dask-report.html").read_text()
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    batch = next(r for r in records if r["event"] == "batch")
    assert batch["tile"] == "0" and {"seconds", "counters", "worker", "pid", "time"} <= set(batch)
    assert any(r["event"] == "dashboard" and r["link"].startswith("http") for r in records)
