"""The one place where numba is configured: compiled without the GIL, cached on disk, reproducible.

``entry`` is for functions called from Python: only these are cached, with all that they call. ``kernel`` is for
functions called from other kernels (and from tests).

numba's disk cache looks at the file of a function only, not at the files of what it calls. Here the stamp of an
entry is the content of every file of this folder and the order of columns and bits, so that an edit of one renews them.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.quantities import GROUPS, QUANTITIES


def _content_stamp() -> tuple[int, int]:
    content = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    content += repr((tuple(QUANTITIES), GROUPS, [int(flag) for flag in MorphFlag])).encode()
    return zlib.crc32(content), len(content)


_STAMP = _content_stamp()


def kernel(function=None, **options):
    """``numba.njit`` without the GIL, with numpy's rules for division by zero."""
    if function is None:
        return lambda f: kernel(f, **options)
    return numba.njit(nogil=True, error_model="numpy", **options)(function)


def sum_kernel(function):
    """``kernel`` for loops that only add up: sums may be reordered into vector lanes (fixed at compile time)."""
    return kernel(function, fastmath={"reassoc", "contract", "nsz"})


def entry(function):
    """``kernel`` with a disk cache that renews when any file of the kernels changes."""
    dispatcher = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    with suppress(AttributeError):  # a private detail of numba: without it the plain per-file stamp holds
        dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher


@intrinsic
def bits_of(typingctx, x):
    """The 64 bits of a float as an integer."""
    def code(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))
    return types.int64(types.float64), code


@intrinsic
def float_of(typingctx, x):
    """The float whose 64 bits are those of an integer."""
    def code(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())
    return types.float64(types.int64), code
