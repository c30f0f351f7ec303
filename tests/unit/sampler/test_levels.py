"""The loop over levels as a GPU runs it, on a CPU: nothing asks for a value, sources of any number of levels
go together, a level is one graph and can be recorded and replayed."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import galbatch
from galbatch.forward import noise
from galbatch.interfaces import PriorSpec
from galbatch.sampler import draw, guidance, levels, random
from galbatch.sampler.schedule import MODES, Kind, schedule
from galbatch.sampler.solve import Solver
from galbatch.types import Observation

N = 16
ACF = np.outer([0.1, 0.45, 1, 0.45, 0.1], [0.1, 0.45, 1, 0.45, 0.1])[None]
LOOKS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal")


class Smooth:
    """The exact denoiser of a smooth Gaussian field on a torus, with the spectra of a model card."""

    def __init__(self, lowest=0.005):
        k = np.hypot(np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N))
        self.power = torch.tensor(0.3 / (1 + (12 * k) ** 4), dtype=torch.float32)
        radius = np.linspace(0, 0.75, 40)
        power, sigma = 0.3 / (1 + (12 * radius) ** 4), np.geomspace(lowest, 20, 24)
        rows = [power * s**2 / (power + s**2) for s in sigma]
        self.calls, self.tf32 = [], set()
        self.spec = PriorSpec(
            sigma_min=lowest,
            spectrum={"k": radius, "power": power},
            residual_spectrum={"k": radius, "sigma": sigma, "power": rows},
        )

    def denoise(self, x, sigma):
        gain = self.power / (self.power + sigma[:, None, None, None] ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=x.shape[-2:])


def observation(snr=(3.0, 20.0, 60.0), correlated=False, psf_error=None):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:N, :N] - 7.5
    psf = np.exp(-0.5 * (np.mgrid[-4:5, -4:5] ** 2).sum(0) / 1.2**2)
    sigma = np.ones((len(snr), 1, N, N)) / np.array(snr)[:, None, None, None]
    data = np.exp(-np.hypot(y, x) / 3) + sigma * rng.standard_normal(sigma.shape)
    mask = rng.random(sigma.shape) < 0.05
    psf = np.repeat(psf[None, None] / psf.sum(), len(snr), 0)
    white = 0.5 * sigma if correlated else None
    return Observation(
        data, sigma, psf, mask, noise_acf=ACF if correlated else None, sigma_white=white, psf_error=psf_error
    )


class Refuse(TorchDispatchMode):
    """Raises for every operation that brings a value from the device to the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.__name__.split(".")[0] in LOOKS:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Solves do not look, pieces are filled up, random numbers are torch's; the loop may not look either."""
    run, loops = draw.run_levels, []

    def watched(*args):
        loops.append(args)
        with Refuse() if args[0].posterior.solver.bounded else nullcontext():
            return run(*args)

    for place in (draw, noise):
        monkeypatch.setattr(place, "waits", lambda device: True)
    monkeypatch.setattr(draw, "run_levels", watched)
    monkeypatch.setattr(random, "standard_normals", random.torch_normals)
    return loops


CASES = {
    "white": {},
    "correlated": {"correlated": True},
    "error of the PSF": {"psf_error": np.array([[0.05, 0.1, 0.03, 0.03, 0.01]])},
    "bright and faint": {"snr": (5.0, 20000.0, 30000.0)},  # float32 holds a few more digits
}


@pytest.mark.parametrize("case", CASES)
def test_no_value_leaves_the_device_in_the_loop_and_draws_are_those_of_a_cpu(case, monkeypatch, request):
    """Three sources with different numbers of levels, in one piece of four, against one by one."""
    obs, prior = observation(**CASES[case]), Smooth()
    alone = galbatch.sample_posterior(prior, obs, draws=2, mode="default", seed=5)
    loops = request.getfixturevalue("as_on_a_gpu")
    together = galbatch.sample_posterior(prior, obs, draws=2, mode="default", seed=5, batch=4)
    assert len({float(n) for n in together.n_evaluations}) > 1 and loops
    np.testing.assert_array_equal(together.n_evaluations, alone.n_evaluations)
    off = np.abs(together.samples - alone.samples) / alone.std[:, None].mean((-1, -2), keepdims=True)
    assert np.sqrt((off**2).mean((1, 2, 3, 4))).max() < (0.35 if case == "bright and faint" else 0.02)
    np.testing.assert_array_equal(together.flags, alone.flags)


def test_the_watch_can_see_a_look(as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(noise, "waits", lambda device: False)
    with pytest.raises(AssertionError, match="waits for the device"):
        galbatch.sample_posterior(Smooth(), observation(correlated=True), draws=2, mode="fast")


def test_draws_do_not_depend_on_the_sources_of_the_piece(as_on_a_gpu):
    obs, prior = observation(), Smooth()
    whole = galbatch.sample_posterior(prior, obs, draws=2, mode="fast", source_ids=["a", "b", "c"], batch=4)
    for i, name in enumerate("abc"):
        part = Observation(*(a[i : i + 1] for a in (obs.data, obs.sigma, obs.psf, obs.mask)))
        alone = galbatch.sample_posterior(prior, part, draws=2, mode="fast", source_ids=[name], batch=4)
        np.testing.assert_allclose(alone.samples[0], whole.samples[i], atol=2e-5)
    shapes = {(args[1].shape[0], len(args[2])) for args in as_on_a_gpu}
    assert {b for b, _ in shapes} == {4, 1}, "three are filled up to four; one alone is not"


def test_a_solve_that_was_too_short_is_done_again(as_on_a_gpu, monkeypatch):
    obs, prior = observation(), Smooth()
    right = galbatch.sample_posterior(prior, obs, draws=2, mode="fast")
    monkeypatch.setattr(draw, "Solver", partial(Solver, tolerance=1e-6))
    monkeypatch.setattr(draw, "SHORT", 1e-4)
    monkeypatch.setattr(guidance, "BOUND", 1)
    found = galbatch.sample_posterior(prior, obs, draws=2, mode="fast")
    assert (found.n_evaluations > right.n_evaluations).all()
    assert found.info["solver_residual"].max() < right.info["solver_residual"].max()


def test_levels_of_sources_end_together_and_begin_in_their_turn():
    mode, rho = MODES["default"], torch.tensor([0.3, 0.02])
    guided = [mode.guided(float(r), 1.0) for r in rho]
    table = schedule(mode, guided, rho, 1.0, 0.001, False)
    late = max(guided) - min(guided)
    assert late > 0 and len(table) == max(guided) + mode.tail
    for i, level in enumerate(table):
        assert level.own.tolist() == [i - late, i] and level.last == (i == len(table) - 1)
        if i < late:  # a source that waits: kept as it is
            assert level.numbers[2:, 0].tolist() == [1, 0, 0, 0]
    alone = schedule(mode, guided[:1], rho[:1], 1.0, 0.001, False)
    for mine, level in zip(alone, table[late:], strict=True):
        assert torch.equal(mine.numbers[:, 0], level.numbers[:, 0]) and mine.kind is level.kind


def fake_graph(function, inputs):
    """What a CUDA graph does, without one: the outputs stay where they are."""
    outputs = function(*inputs)

    def again():
        for old, new in zip(outputs, function(*inputs), strict=True):
            old.copy_(new)

    return outputs, again


@pytest.mark.parametrize("case", ["white", "error of the PSF"])
def test_levels_recorded_once_are_replayed_for_other_batches(case, as_on_a_gpu):
    prior, recorded = Smooth(), []

    def record(function, inputs):
        recorded.append(inputs)
        return fake_graph(function, inputs)

    replay, options = levels.Replayed(record), {"draws": 2, "mode": "fast", "batch": 4}
    obs = observation(**CASES[case])
    other = replace(obs, data=obs.data * 0.7, sigma=obs.sigma * 1.05)
    for number, some in enumerate((obs, other)):
        plain = galbatch.sample_posterior(prior, some, seed=number, **options)
        replayed = galbatch.sample_posterior(prior, some, seed=number, replay=replay, **options)
        np.testing.assert_array_equal(replayed.samples, plain.samples)
        np.testing.assert_array_equal(
            replayed.info["solver_residual"], plain.info["solver_residual"], strict=True
        )
        if number == 0:
            once = len(recorded)
    assert 0 < once == len(recorded) <= 12, "kinds of levels, by the shapes of pieces"


class NothingFromPython(Refuse):
    """Raises as well where a tensor is made of numbers of Python, which on a card is a copy that waits."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "lift_fresh" not in function.__name__, "a tensor of Python's numbers in a level"
        return super().__torch_dispatch__(function, types, args, kwargs)


@pytest.mark.parametrize("mode", ["fast", "default"])
def test_on_a_card_levels_are_recorded_by_themselves(mode, as_on_a_gpu, monkeypatch):
    """The package's own priors, that is, and not where solves look at values, as of bright sources."""
    recorded = []

    def record(function, inputs):
        recorded.append(inputs)
        with NothingFromPython():
            return fake_graph(function, inputs)

    monkeypatch.setattr(levels, "cuda_graph", record)
    own, other, obs = Smooth(), Smooth(), observation((5.0, 20.0))
    own.spec = replace(own.spec, recordable=True)
    ask = partial(galbatch.sample_posterior, draws=2, mode=mode, batch=4)
    plain = ask(other, obs)
    assert not recorded
    np.testing.assert_array_equal(ask(own, obs).samples, plain.samples)
    once = len(recorded)
    np.testing.assert_array_equal(ask(own, obs, seed=1).samples, ask(other, obs, seed=1).samples)
    assert 0 < once == len(recorded)
    ask(own, observation((20000.0, 30000.0)))
    assert not any(args[0].posterior.solver.bounded for args in as_on_a_gpu[-1:]) and once == len(recorded)


def test_what_cannot_be_recorded_runs_as_it_is(as_on_a_gpu, monkeypatch):
    def refuse(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    def full(function, inputs):
        raise torch.cuda.OutOfMemoryError("out of memory")

    prior, obs, ask = Smooth(), observation((20.0,)), partial(galbatch.sample_posterior, draws=1, mode="fast")
    with pytest.warns(UserWarning, match="not recorded as CUDA graphs: operation not permitted"):
        found = ask(prior, obs, replay=levels.Replayed(refuse))
    np.testing.assert_array_equal(found.samples, ask(prior, obs).samples)
    with pytest.raises(torch.cuda.OutOfMemoryError):  # the run then asks for less at once
        ask(prior, obs, replay=levels.Replayed(full))


def test_old_recordings_make_room(as_on_a_gpu):
    replay = levels.Replayed(fake_graph, most=2)
    galbatch.sample_posterior(Smooth(), observation(), draws=1, mode="fast", batch=4, replay=replay)
    assert len(replay._kept) == 2


@pytest.mark.parametrize("kind", Kind)
def test_a_level_is_one_graph(kind, as_on_a_gpu, monkeypatch):
    steps = []

    def keep(step, x, table, replay):
        steps.append((step, x, table))
        return x, torch.zeros(2, *x.shape[:2])

    monkeypatch.setattr(draw, "run_levels", keep)
    monkeypatch.setattr(noise, "SOLVE_ITERATIONS", 2)
    for name in ("BOUND", "BOUND_ROUGH"):  # fewer nodes of the same kinds
        monkeypatch.setattr(guidance, name, 2)
    obs = observation((20.0,), correlated=True)
    galbatch.sample_posterior(Smooth(), obs, draws=1, mode=replace(MODES["fast"], products=1), batch=1)
    step, x, table = steps[0]
    arguments = (x, torch.zeros_like(x), table[0].numbers, table[0].own)
    with torch.no_grad():
        explained = torch._dynamo.explain(step)(kind, False, *arguments)
    assert explained.graph_break_count == 0, explained.break_reasons


def test_the_network_is_one_graph():
    prior = galbatch.load_prior(device="cpu", backend="eager", precision="bfloat16")
    with torch.no_grad():
        explained = torch._dynamo.explain(prior._forward)(torch.ones(2, 1, 16, 16), torch.ones(2))
    assert explained.graph_break_count == 0, explained.break_reasons


def test_float32_is_float32_while_sampling():
    prior, seen = Smooth(), []
    denoise = prior.denoise
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    prior.denoise = lambda x, sigma: seen.append([s.allow_tf32 for s in switches]) or denoise(x, sigma)
    before = [s.allow_tf32 for s in switches]
    galbatch.sample_posterior(prior, observation((20.0,)), draws=1, mode="fast")
    assert before[0] and seen and not np.any(seen)
    assert [s.allow_tf32 for s in switches] == before
