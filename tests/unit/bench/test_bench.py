"""What the benchmarks count and compute is right; how fast things are is nobody's test."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from tiny import network
from torch import nn

from galbatch.bench.kernels import kernel_table, storage_table
from galbatch.bench.timing import arguments, keep
from galbatch.interfaces import PriorSpec

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
BENCH = "the peers are not installed: pip install -e '.[bench]'"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prior():
    """A small network with the fields that the tables read."""
    spec = PriorSpec(margin_pix=4, multiple_of=4, target_fwhm_pix=2.0)
    return SimpleNamespace(model=network(), spec=spec, device=CPU, backend="eager", precision="float32")


@pytest.fixture
def kernels(monkeypatch):
    """benchmarks/gpu/kernels.py"""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "gpu"))
    yield importlib.import_module("kernels")
    sys.modules.pop("kernels")


def test_operations_are_those_of_the_convolutions_and_linear_layers(prior, kernels):
    expected = []

    def convolution(layer, inputs, out):
        expected.append(
            2 * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] * out.numel() / len(out)
        )

    def linear(layer, inputs, out):
        expected.append(2 * layer.in_features * out.numel() / len(out))

    hooks = [m.register_forward_hook(convolution) for m in prior.model.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_hook(linear) for m in prior.model.modules() if isinstance(m, nn.Linear)]
    work = kernels.work_of(prior, size=32, batch=2)
    for hook in hooks:
        hook.remove()
    smooth = 2 * 32 * 32 * 5 * 2  # the separable high pass
    assert work.flops == pytest.approx(sum(expected) / 2 + smooth, rel=1e-3)  # counted in both passes
    pixels = 4 * 32 * 32
    assert 20 * pixels < work.nbytes < work.nbytes_unfused < 2000 * pixels


def test_the_roof_is_the_slower_of_its_lines(kernels):
    roof = kernels.Roof(gflops=100.0, gbytes=10.0)
    assert roof.seconds(2e11, 1e9) == pytest.approx(2.0) and roof.seconds(1e9, 5e10) == pytest.approx(5.0)
    rows = list(kernels.machine_table(CPU, 0.01))
    assert all(r["correct"] for r in rows) and kernels.roof_of(rows, CPU).gflops > 0.1


def test_options_of_a_script_are_of_the_kinds_of_their_defaults(monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["x", "--rows", "7", "--s3", "--sn", "1", "2", "--out", f"{tmp_path}/a/b"]
    )
    found = arguments("what", rows=3, s3=False, keep_it=True, sn=[5.0], model=str, draws=4)
    out = found.out
    assert vars(found) == dict(rows=7, s3=True, keep_it=True, sn=[1.0, 2.0], model=None, draws=4, out=out)
    keep({"a": 1}, out)
    keep({"a": 2}, out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [{"a": 1}, {"a": 2}]


def test_network_rows_compare_with_the_eager_result_and_name_what_is_missing(prior, kernels):
    found = kernels.network_table(prior, kernels.Roof(1e6, 1e6), ("eager", "no-such"), 0.01)
    rows = {r["kernel"]: r for r in found}
    assert rows["network, eager"]["correct"] and rows["network, eager"]["error"] == 0
    assert not rows["network, no-such"]["correct"] and "no-such" in rows["network, no-such"]["note"]
    assert rows["network, bfloat16"]["correct"] and rows["network, bfloat16"]["error"] > 0
    assert 0 < rows["network, batch 8"]["roofline"] < 1


def test_operators_and_stores_are_checked_before_they_are_timed(prior, tmp_path, kernels):
    rows = [*kernels.operator_table(prior, 0.01), *storage_table(0.01, tmp_path)]
    rows += kernel_table(prior, ("eager",), 0.01, ("network",))
    assert [r["kernel"] for r in rows if not r["correct"]] == []
    names = {r["kernel"] for r in rows}
    assert {"network, eager", "A", "A^T", "solve, correlated noise", "Zarr, read"} <= names
    assert "Parquet, catalogue merged" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["azula MMPS", "deepinv moment matching", "STARRED starlets", "scarlet2"])
def test_peers_are_given_the_problem_that_is_meant(peers, capsys, name):
    """Moment matching finds the exact Gaussian posterior through our adapters, and tools of one image a
    galaxy without noise."""
    import gaussian_check

    if missing := peers.PEERS[name].missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    gaussian_check.check([name])
    assert f"check, {name}" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_left_out_and_named(peers, monkeypatch, capsys):
    referee = pytest.importorskip("referee", reason=BENCH)
    absent = peers.Peer(("no_such_package",), (1,), None)
    monkeypatch.setitem(peers.PEERS, "absent", absent)
    assert referee.installed(["default", "absent:28", "DAPS:28"]) == ["default", "DAPS:28"]
    assert "absent:28, which needs no_such_package" in capsys.readouterr().out


def test_a_tool_is_given_the_blur_that_the_data_have(peers):
    """An image at the target PSF, blurred by ``narrow_psf``, is what the forward model says it is."""
    from gaussian_check import GaussianPrior, observation
    from problem import Problem

    prior = GaussianPrior()
    problem = Problem.of(prior, observation(prior))
    image = np.zeros((16, 16))
    image[5, 9], image[8, 7] = 3, 1
    psf = problem.narrow_psf()
    assert psf.shape == (15, 15)
    fine = torch.zeros(1, 1, 1, *problem.grid)
    fine[..., prior.margin_pix : prior.margin_pix + 16, prior.margin_pix : prior.margin_pix + 16] = (
        torch.from_numpy(image)
    )
    expected = problem.model.apply(fine)[0, 0, 0].numpy()
    inner = (slice(2, -2), slice(2, -2))  # the blur is given as far as the stamp is wide
    np.testing.assert_allclose(fftconvolve(image, psf, "same")[inner], expected[inner], atol=2e-3)
    data, variance = problem.stamp(2)
    assert data.shape == variance.shape == (20, 20)
    assert data[2 + 3, 2 + 4] == 0 and variance[2 + 3, 2 + 4] > 1e6 * variance[10, 10]
    assert (variance[:2] > 1e6 * variance[10, 10]).all()


@pytest.fixture
def peers(monkeypatch):
    """The module of the peers, and its neighbours, importable for one test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    before = set(sys.modules)
    import peers

    yield peers
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and str(BENCHMARKS / "peers") in sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_frontier_lines_can_be_drawn(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import results

    found = results.lines("frontier")
    assert {row["method"] for row in found} >= {"galbatch default", "azula DiffPIR", "Wiener (oracle)"}
    results.draw_figure(found, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
