"""The one place where numba is configured: compiled without the GIL, cached on disk, reproducible.

``entry`` is for functions called from Python: only these are cached, with all that they call. ``kernel`` is
for functions called from other kernels only.

numba's disk cache looks at the file of a function only, not at the files of what it calls. Here the stamp of
an entry is the content of every file of this folder and the order of columns and bits, so that an edit of one
renews them. Of processes that start together one compiles, and the others wait for it.
"""

from __future__ import annotations

import getpass
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import extending
from numba.core import types

from galbatch.columns import QUANTITIES
from galbatch.morphology.flags import MorphFlag
from galbatch.morphology.kernels.columns import GROUPS

KERNEL_OPTIONS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # a sixth of the time to compile

njit: Callable[..., Any] = numba.njit  # the types that numba has for it lack options that it takes
intrinsic: Callable[..., Any] = extending.intrinsic


def _content_stamp() -> tuple[int, int]:
    content = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    content += repr((tuple(QUANTITIES), GROUPS, [int(flag) for flag in MorphFlag])).encode()
    return zlib.crc32(content), len(content)


_STAMP = _content_stamp()


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """``numba.njit`` without the GIL, with numpy's rules for division by zero; not callable from Python."""
    if function is None:
        return lambda f: kernel(f, **options)
    dispatcher = njit(nogil=True, error_model="numpy", **KERNEL_OPTIONS, **options)(function)
    template = dispatcher.get_call_template  # or it would be compiled again for each constant argument
    dispatcher.get_call_template = lambda args, named: template(tuple(map(types.unliteral, args)), named)
    # it has no address of its own that Python could call
    dispatcher._insert = dispatcher._compile_for_args = partial(_refuse, function.__name__)
    return dispatcher


def _refuse(name: str, *_args: Any, **_options: Any) -> None:
    if _args and isinstance(_args[0], list):  # numba registers a compiled kernel
        return
    raise TypeError(f"kernel {name} was called from Python: only an entry can be; use {name}.py_func.")


def leaf(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """``kernel`` that makes no array, returns none and calls none that does: references are not counted,
    which would cost more than a short row of pixels."""
    return kernel(function, _nrt=False, **options)


def sum_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """``leaf`` for loops that only add up: sums may be reordered into vector lanes (fixed at compile
    time)."""
    return leaf(function, fastmath={"reassoc", "contract", "nsz"})


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """``kernel`` with a disk cache that renews when any file of the kernels changes."""
    dispatcher = _cached(function)
    with suppress(AttributeError):  # a private detail of numba: without it the plain per-file stamp holds
        dispatcher._cache._cache_file._source_stamp = _STAMP
        compile_now, folder = dispatcher.compile, Path(dispatcher._cache.cache_path)

        def compile_in_turn(signature: Any) -> Callable[..., Any]:
            with _turn(folder):
                return compile_now(signature)

        dispatcher.compile = compile_in_turn
    return dispatcher


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder; without it, on file systems or platforms that have none, go ahead."""
    file = None
    with suppress(OSError, ImportError):
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "galbatch-kernels.lock", "a")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if file is not None:
            file.close()


def _cached(function: Callable[..., Any]) -> Any:
    jit = njit(nogil=True, cache=True, error_model="numpy")
    try:
        return jit(function)
    except RuntimeError:  # neither the package's folder nor the home directory can be written
        config: Any = numba.config
        config.CACHE_DIR = str(Path(tempfile.gettempdir(), f"galbatch-kernels-{getpass.getuser()}"))
        return jit(function)


@intrinsic
def bits_of(typingctx: Any, x: Any) -> Any:
    """The 64 bits of a float as an integer."""

    def code(context: Any, builder: Any, signature: Any, args: tuple[Any, ...]) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), code


@intrinsic
def float_of(typingctx: Any, x: Any) -> Any:
    """The float whose 64 bits are those of an integer."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), code


@intrinsic
def bits_of_single(typingctx: Any, x: Any) -> Any:
    """The 32 bits of a float, rounded to single precision, as a signed integer."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fptrunc(args[0], ir.FloatType()), ir.IntType(32))
        return builder.sext(bits, ir.IntType(64))

    return types.int64(types.float64), code


@intrinsic
def single_of(typingctx: Any, x: Any) -> Any:
    """The float whose single precision has the bits of an integer."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.trunc(args[0], ir.IntType(32))
        return builder.fpext(builder.bitcast(bits, ir.FloatType()), ir.DoubleType())

    return types.float64(types.int64), code
