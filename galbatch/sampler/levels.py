"""The loop over noise levels, as one function of tensors per level that never asks the device for a value.

What is the same at every level (operator, data, spectra, keys of the random numbers) is a tree of objects
with tensors in it. On a GPU a level is recorded once, as a CUDA graph, and replayed: ``Replayed`` keeps such
recordings, with the tensors that they read and write, by the shapes of everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch

from galbatch.interfaces import Denoiser
from galbatch.prior.integrate import advance
from galbatch.sampler.guidance import PosteriorDenoiser
from galbatch.sampler.schedule import Kind, Level

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class LevelStep:
    """A level: (x, what was denoised, the errors of the solves (2, b, k)) from (x, what was denoised before)
    and the numbers of the level. ``first`` (b,): stage of a source's random numbers at its first level."""

    posterior: PosteriorDenoiser
    first: torch.Tensor

    @property
    def signature(self) -> tuple:
        """What besides tensors decides what a level does."""
        p, model, solver = self.posterior, self.posterior.model, self.posterior.solver
        grids = (model.oversample, model.margin, model.fine, model.stamp, model.grid)
        return (
            id(p.denoise.prior),
            p.products,
            solver.iterations,
            solver.tolerance,
            solver.bounded,
            *grids,
        )

    def __call__(
        self,
        kind: Kind,
        last: bool,
        x: torch.Tensor,
        previous: torch.Tensor,
        numbers: torch.Tensor,
        own: torch.Tensor,
    ) -> State:
        posterior, normals = self.posterior, self.posterior.normals
        normals.stage = self.first + own.clamp_min(0)
        posterior.solver.left = None
        d = posterior(x, previous, numbers[0], numbers[1], kind)
        x = advance(x, d, previous, numbers[2:], None if last else normals.draw(*x.shape[2:]))
        left = posterior.solver.left
        left = torch.zeros(2, *x.shape[:2], device=x.device) if left is None else left
        return x, torch.where((own >= 0)[:, None, None, None, None], d, previous), left


def one_by_one(step: LevelStep) -> Callable[..., State]:
    """Runs a level as it is."""
    return step


def run_levels(
    step: LevelStep, x: torch.Tensor, levels: Sequence[Level], replay: Callable = one_by_one
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (b, k, c, H, W) after all levels, and the errors that the last solves of each kind left (2, b, k)."""
    run, previous = replay(step), torch.zeros_like(x)
    errors: dict[Kind, torch.Tensor] = {}
    for level in levels:
        x, previous, left = run(level.kind, level.last, x, previous, level.numbers, level.own)
        errors[level.kind] = left
    return x, torch.stack(list(errors.values())).amax(0)


class Replayed:
    """Records a level at its first call and replays it for every batch of the same shapes.

    ``record(function, inputs)`` calls a function of tensors and returns (its outputs, what computes them
    again in place from what the inputs then hold): ``cuda_graph``, or a fake. What cannot be recorded is run
    as it is, and said once; of more than ``most`` recordings the oldest go.
    """

    def __init__(
        self, record: Callable[[Callable, list], tuple[State, Callable[[], None]]], most: int = 48
    ) -> None:
        self.record, self.most, self.able = record, most, True
        self._kept: dict[tuple, tuple] = {}

    def __call__(self, step: LevelStep) -> Callable[..., State]:
        tensors = tensors_of(step)
        shapes = (step.signature, *(t.shape for t in tensors))

        def run(kind: Kind, last: bool, *inputs: torch.Tensor) -> State:
            key = (kind, last, shapes, inputs[0].shape)
            if not self.able or not (key in self._kept or self._keep(key, step, tensors, inputs)):
                return step(kind, last, *inputs)
            own, mine, outputs, again, held = self._kept[key]
            if held[0] is not tensors:  # another batch
                _copy(own, tensors)
                held[0] = tensors
            _copy(mine, inputs)
            again()
            return tuple(t.clone() for t in outputs)

        return run

    def _keep(self, key: tuple, step: LevelStep, tensors: list, inputs: Sequence[torch.Tensor]) -> bool:
        """Record a level; whether it could be."""
        own, mine = [t.clone() for t in tensors], [t.clone() for t in inputs]

        def level(*given: torch.Tensor) -> State:
            return with_tensors(step, own)(key[0], key[1], *given)

        try:
            recording = self.record(level, mine)
        except torch.cuda.OutOfMemoryError:  # less will be asked for, and what is kept is in the way
            self._kept.clear()
            raise
        except RuntimeError as err:
            self.able = False
            self._kept.clear()
            warnings.warn(f"levels are not recorded as CUDA graphs: {err}"[:300], stacklevel=2)
            return False
        while len(self._kept) >= self.most:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (own, mine, *recording, [tensors])
        return True


_RECORDINGS: WeakKeyDictionary[Any, Replayed] = WeakKeyDictionary()


def by_itself(prior: Denoiser) -> Callable:
    """How the levels of a prior are run where nothing else is said: recorded, as long as it lives, where they
    may be (``recordable``), which the package's own on a CUDA card are; else one by one."""
    if not prior.spec.recordable:
        return one_by_one
    if prior not in _RECORDINGS:
        _RECORDINGS[prior] = Replayed(cuda_graph)
    return _RECORDINGS[prior]


def cuda_graph(function: Callable, inputs: list[torch.Tensor]) -> tuple[State, Callable[[], None]]:
    """A recording of ``function`` on the current CUDA device; all share their memory, as one is replayed at a
    time and its outputs are copied. Not measured on a GPU yet."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is compiled, planned or cached at a first call
        for _ in range(2):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool(torch.cuda.current_device())):
        outputs = function(*inputs)
    return outputs, graph.replay


@cache
def _pool(device: int) -> Any:
    return torch.cuda.graph_pool_handle()


def _copy(into: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> None:
    for old, new in zip(into, tensors, strict=True):
        old.copy_(new)


def tensors_of(thing: Any) -> list[torch.Tensor]:
    """All tensors of a tree of galbatch's objects, each once, in a fixed order. Priors are not looked into:
    their weights are the same for all."""
    found: dict[int, torch.Tensor] = {}
    _map(thing, lambda t: found.setdefault(id(t), t), {})
    return list(found.values())


def with_tensors(thing: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """A copy of a tree with other tensors in the places of its own, and nothing of what it had kept."""
    own = {id(old): new for old, new in zip(tensors_of(thing), tensors, strict=True)}
    return _map(thing, lambda t: own[id(t)], {})


def _map(thing: Any, change: Callable[[torch.Tensor], torch.Tensor], seen: dict[int, Any]) -> Any:
    if isinstance(thing, torch.Tensor):
        return change(thing)
    if isinstance(thing, tuple):
        return tuple(_map(part, change, seen) for part in thing)
    if not type(thing).__module__.startswith("galbatch.") or isinstance(thing, Kind):
        return thing
    if isinstance(thing, Denoiser):
        return thing
    if id(thing) not in seen:
        copy = seen[id(thing)] = object.__new__(type(thing))
        kind = type(thing)
        names = [n for n in sorted(vars(thing)) if not isinstance(getattr(kind, n, None), cached_property)]
        vars(copy).update({n: _map(vars(thing)[n], change, seen) for n in names})
    return seen[id(thing)]
