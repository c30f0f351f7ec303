"""Batches made ahead of time by threads, for devices that learn faster than one core draws stamps.

A batch is a function of the step alone, so who makes it, and when, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Prefetch:
    """``prefetch(step)`` is ``make(step)``; with ``workers`` threads, up to twice as many later steps are
    begun."""

    def __init__(self, make: Callable[[int], T], workers: int) -> None:
        self.make, self.ahead = make, 2 * workers
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="stamps") if workers else None
        self.begun: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        if self.pool is None:
            return self.make(step)
        for later in range(step, step + self.ahead):
            if later not in self.begun:
                self.begun[later] = self.pool.submit(self.make, later)
        for old in [s for s in self.begun if s < step or s >= step + self.ahead]:
            self.begun.pop(old).cancel()
        return self.begun.pop(step).result()

    def close(self) -> None:
        """Let the threads go; batches not yet begun are dropped."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
