"""Who can reach a run: its cluster listens on 127.0.0.1 alone, as the sockets themselves say."""

import os
from pathlib import Path

import pytest
import toys
from distributed import default_client

from galbatch.run import process

LISTENS, LOOPBACK = "0A", "0100007F"


def listening(pids) -> set[str]:
    """Addresses, in hex, on which processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(link)
            except OSError:
                continue
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and words[9] in inodes:
                found.add(words[1].split(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc/net")
def test_scheduler_workers_and_dashboards_listen_on_this_machine_alone(survey, tmp_path):
    seen, links = [], []

    def look(progress):
        if progress.done and not seen:
            workers = default_client().scheduler_info(n_workers=-1)["workers"].values()
            pids = [os.getpid(), *default_client().run(os.getpid).values()]
            seen.append(listening(pids))
            links.append(progress.dashboard)
            assert all(w["services"].get("dashboard") for w in workers)  # they do serve their metrics

    options = dict(prior=toys.GaussianPrior(0.02), cluster="local", workers=1, report=False)
    process(survey, out=tmp_path / "a.run", on_progress=look, batch=3, draws=2, mode="fast", **options)
    assert seen == [{LOOPBACK}] and links[0].startswith("http://127.0.0.1:")
