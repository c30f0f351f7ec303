"""How the kernels are compiled fast: what an entry calls is optimised once, with the entry, not again at
every level.

numba optimises and assembles each function with everything below it, so that a function four calls deep is
optimised five times. Here the functions called by an entry are only translated while it is compiled
(``_Draft`` in place of the code generator); all of them are linked into the entry and optimised there, which
is also what runs. The results are the same; the compilation costs a third.

What is left is mostly numba's own Python, which is spared four things: the cyclic garbage collector, which
finds next to nothing among millions of objects (``_no_collection``), new stack chunks for its deep recursion
(``_with_roomy_frame``), gathering all options anew whenever two sets of flags are compared
(``_QuickFlags``), and passes for parts of Python that no kernel uses (``KernelCompiler``).

The details used are private to numba: where one is missing, it compiles in its own way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numba.core import options, registry
from numba.core.compiler import Compiler, Flags

_FRAME_WORDS = 140_000
_NEEDLESS_PASSES = (  # for closures, comprehensions, array expressions, literals, exceptions, ...
    "WithLifting",
    "InlineClosureLikes",
    "RewriteSemanticConstants",
    "DeadBranchPrune",
    "RewriteDynamicRaises",
    "MakeFunctionToJitFunction",
    "FindLiterallyCalls",
    "LiteralUnroll",
    "LiteralPropagationSubPipelinePass",
    "NopythonRewrites",
    "NoPythonSupportedFeatureValidation",
    "DumpParforDiagnostics",
)


class _NoPass:
    """A pass manager of LLVM that does nothing."""

    def run(self, *_args: Any) -> None:
        return None


class _NoEngine:
    """An execution engine that has nothing to run."""

    def is_symbol_defined(self, _name: str) -> bool:
        return False

    def finalize_object(self) -> None:
        return None


class _Draft:
    """A code generator whose libraries are linked elsewhere: neither optimised nor turned into machine
    code."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._engine = _NoEngine()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_library(self, name: str, **options: Any) -> Any:
        return self._real._library_class(self, name, **options)

    def _module_pass_manager(self, **options: Any) -> Any:
        return _NoPass(), self._real._pass_builder()

    def _add_module(self, _module: Any) -> None:
        return None

    def _scan_and_fix_unresolved_refs(self, _module: Any) -> None:
        return None

    def set_env(self, _name: str, _env: Any) -> None:
        return None


@contextmanager
def _drafting(contexts: Any) -> Iterator[None]:
    real = [context._internal_codegen for context in contexts]
    try:
        for context, codegen in zip(contexts, real, strict=True):
            context._internal_codegen = _Draft(codegen)
        yield
    finally:
        for context, codegen in zip(contexts, real, strict=True):
            context._internal_codegen = codegen


class _QuickFlags(Flags):
    """Flags that gather their values once, when first compared; numba changes them before that only."""

    __slots__ = ("_gathered",)

    def values(self) -> dict[str, bool]:
        try:
            return self._gathered
        except AttributeError:
            self._gathered = super().values()
            return self._gathered

    __hash__ = Flags.__hash__

    def __eq__(self, other: Any) -> bool:
        return self is other or super().__eq__(other)


class KernelCompiler(Compiler):
    """numba's compiler of one function, with quick flags and without the passes that no kernel needs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags = _QuickFlags(self.state.flags)

    def define_pipelines(self) -> Any:
        managers = super().define_pipelines()
        for manager in managers:
            manager.passes = [p for p in manager.passes if p[0].__name__ not in _NEEDLESS_PASSES]
            manager.finalize()
        return managers


class EntryCompiler(KernelCompiler):
    """Compiles one function for real and, meanwhile, what it calls as drafts. numba's own lock is held."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        state, base = self.state, registry.cpu_target.target_context
        state.library = state.targetctx.codegen().create_library(func.__qualname__)
        state.library.enable_object_caching()
        with _drafting((base, state.targetctx)):
            return super().compile_extra(func)


def compile_once(dispatcher: Callable[..., Any], cache_path: str) -> None:
    """Let one process at a time compile ``dispatcher``: the next finds the result in the cache under
    ``cache_path``."""
    compile_now = dispatcher.compile

    def compile_in_turn(signature: Any) -> Callable[..., Any]:
        with _turn(Path(cache_path)), _no_collection():
            return compile_now(signature)

    dispatcher.compile = _with_roomy_frame(compile_in_turn)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the cyclic garbage collector off: a fifth of the time of a compilation, for 170 MB at its peak."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _with_roomy_frame(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with a frame of a megabyte, in which those of all the calls below it find room.

    CPython keeps frames in chunks of 16 KiB, and a call at the end of one maps a chunk and unmaps it when it
    returns: 600,000 times in a compilation, a seventh of its time. A chunk is as large as its first frame
    needs, rounded up to a power of two, and the rest of it is free for the next calls.
    """
    function.__code__ = function.__code__.replace(co_stacksize=_FRAME_WORDS)
    return function


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


def _options() -> tuple[dict[str, Any], dict[str, bool], dict[str, Any]]:
    kernel, entry = {}, {}
    leaf = {"_nrt": False} if hasattr(options.DefaultOptions, "_nrt") else {}
    if hasattr(registry.cpu_target.target_context, "_internal_codegen"):
        kernel = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": KernelCompiler}
        entry = {"no_cfunc_wrapper": True, "pipeline_class": EntryCompiler}
    return kernel, leaf, entry


KERNEL_OPTIONS, LEAF_OPTIONS, ENTRY_OPTIONS = _options()
