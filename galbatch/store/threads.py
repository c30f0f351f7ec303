"""Work in threads beside the caller: behind it, one item before it, or a few items ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

THREADS = min(8, os.cpu_count() or 1)
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def behind(work: Callable[[Item], None]) -> Iterator[Callable[[Item], None]]:
    """``work`` in a thread of its own, one call at a time: the caller makes the next item while this one is
    worked on."""
    with ThreadPoolExecutor(1) as thread:
        last: list[Future] = []

        def submit(item: Item) -> None:
            while last:
                last.pop().result()
            last.append(thread.submit(work, item))

        yield submit
        while last:
            last.pop().result()


def prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator; a thread of its own makes the next one."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


def ahead(
    pool: Executor, items: Iterable[Item], work: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Every item with what ``work`` makes of it in a thread, in order, a few ahead of the one given."""
    waiting: deque = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) > 4 * THREADS:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
