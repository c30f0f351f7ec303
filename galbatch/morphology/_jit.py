"""The one place where numba is configured: compiled without the GIL, cached on disk, reproducible.

numba's disk cache looks at the file of a function only, not at the files of what it calls. Here the stamp
of an entry covers every source file of this folder, so that an edit of one kernel renews its callers.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numba


def _folder_stamp() -> tuple[float, int]:
    stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return max(s.st_mtime for s in stats), sum(s.st_size for s in stats)


_STAMP = _folder_stamp()


def kernel(function=None, **options):
    """``numba.njit`` with ``nogil`` and a disk cache whose entries renew when any file of this folder changes."""
    if function is None:
        return lambda f: kernel(f, **options)
    dispatcher = numba.njit(nogil=True, cache=True, error_model="numpy", **options)(function)
    with suppress(AttributeError):  # a private detail of numba: without it the plain per-file stamp holds
        dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher


def sum_kernel(function):
    """``kernel`` for loops that only add up: sums may be reordered into vector lanes (fixed at compile time)."""
    return kernel(function, fastmath={"reassoc", "contract", "nsz"})
