"""What a process has asked of remote places, counted by all its threads."""

from __future__ import annotations

import threading
from collections import Counter


class Traffic:
    """Numbers by name: requests, bytes."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, what: str, n: int) -> None:
        with self._lock:
            self._counted[what] += n

    def take(self) -> dict[str, int]:
        """What was counted since this was asked last."""
        with self._lock:
            taken = dict(self._counted)
            self._counted.clear()
        return taken
