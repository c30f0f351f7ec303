"""What the part of a run that sends batches costs by itself: ``Dispatcher`` with a client that answers now.

    python benchmarks/throughput/dispatcher.py [--batches 1000000] [--workers 1000]

No Dask process, no worker: a thousand simulated ones hold two batches each and give them back in random
order. Prints microseconds per batch and memory at every tenth of the way: both must be flat. What Dask's own
scheduler and client cost is measured by ``scale.py``, with workers that are real connections.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from stubs import record

from galbatch.bench.timing import arguments
from galbatch.config import ExecutionSettings
from galbatch.run.dispatcher import Dispatcher
from galbatch.run.events import Reporter, StopRequest
from galbatch.store import PlanBatch


class Answer:
    """A future: of the simulated client."""

    def __init__(self, rows: PlanBatch) -> None:
        self.rows, self.status, self.callback = rows, "pending", None

    def add_done_callback(self, callback: object) -> None:
        self.callback = callback

    def result(self, timeout: float = 0) -> dict:
        return record(self.rows, 1, 1.0)

    def release(self) -> None:
        pass


class Client:
    """Whenever it is asked how it is, one of the batches that it holds, any one, is done."""

    def __init__(self) -> None:
        self.held, self.random = [], random.Random(0)

    def submit(self, task: object, rows: PlanBatch, *more: object, **options: object) -> Answer:
        self.held.append(answer := Answer(rows))
        return answer

    @property
    def status(self) -> str:
        if self.held:
            place = self.random.randrange(len(self.held))
            self.held[place], self.held[-1] = self.held[-1], self.held[place]
            answer = self.held.pop()
            answer.status = "finished"
            answer.callback(answer)
        return "running"


def memory_mb() -> float:
    """Resident now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measure(batches: int, workers: int) -> list[tuple[int, float, float]]:
    """(batches done, CPU microseconds per batch since the last line, MB) at every tenth."""
    columns = {"source_id": np.arange(64), "tile": np.array(["A7"])}
    found, mark = [], [time.process_time()]

    def plan() -> object:
        for n in range(batches):
            if n and n % (batches // 10) == 0:
                now = time.process_time()
                found.append((n, 1e6 * (now - mark[0]) / (batches // 10), memory_mb()))
                mark[0] = now
            yield PlanBatch(n, columns)

    cluster = SimpleNamespace(client=Client(), cluster=None, n_workers=workers, connected=lambda: workers)
    reporter = Reporter()
    dispatcher = Dispatcher(
        cluster, SimpleNamespace(root="none"), ExecutionSettings(), reporter, StopRequest(), task=None
    )
    dispatcher.run(plan())
    assert reporter.progress.done == 64 * batches and not dispatcher._pending
    return found


def main() -> None:
    options = arguments(__doc__, batches=1_000_000, workers=1000)
    for done, microseconds, megabytes in measure(options.batches, options.workers):
        print(f"{done:>9} batches  {microseconds:6.1f} us of CPU per batch  {megabytes:6.1f} MB")


if __name__ == "__main__":
    main()
