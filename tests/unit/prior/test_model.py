"""Model folders: round trip, refusals, and what ``Prior.denoise`` promises."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import CARD as MEASURED
from tiny import NETWORK, network

import galbatch
from galbatch.errors import ModelError
from galbatch.prior import load_prior
from galbatch.prior.card import Card
from galbatch.prior.compile import write_export
from galbatch.prior.folder import SHIPPED, load_weights, save_model
from galbatch.prior.model import Prior
from galbatch.prior.network import Denoiser, NetworkConfig, is_joint


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "tiny", network(), MEASURED)
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def noisy():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(11, 2, 24, 32, generator=generator), torch.rand(11, generator=generator) + 0.05


def test_round_trip_and_card_fields(folder, noisy):
    prior = load_prior(folder, device="cpu", backend="eager", precision="float32")
    x, sigma = noisy
    expected = network()(x[:, 1:], sigma)
    torch.testing.assert_close(prior.denoise(x, sigma)[:, 1:], expected, atol=1e-5, rtol=1e-5)
    spec = prior.spec
    assert spec.target_fwhm_pix == 2.0 and spec.flux_convention == "smoothed_peak" and spec.channels == 1
    assert spec.sha256 == prior.card.sha256 and spec.sha256 and spec.multiple_of == 4


CROSS = {"k": [0.0, 0.25], "ceiling": [0.99, 0.8], "length": [2.0, 1.0], "power": 1.0}


@pytest.fixture
def joint_folder(tmp_path):
    save_model(tmp_path / "joint", network(joint=True), MEASURED | {"joint": 7, "cross": CROSS})
    return tmp_path / "joint"


@pytest.mark.parametrize("backend", ["eager", "torchscript"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bands_together_and_one_band_as_ever(joint_folder, tmp_path, noisy, backend, precision):
    joint = load_prior(joint_folder, device="cpu", backend=backend, precision=precision)
    x, sigma = noisy
    bands = torch.tensor([0.1, 0.9])
    together = joint.denoise(x, sigma, bands)
    for n in (1, 3, 10):
        apart = [joint.denoise(a, s, bands) for a, s in zip(x.split(n), sigma.split(n), strict=True)]
        assert torch.equal(torch.cat(apart), together), f"bits differ in batches of {n}"
    assert torch.equal(joint.denoise(x, sigma[:, None].expand(11, 2), bands.expand(11, 2)), together)
    single = joint.denoise(x, sigma)
    assert not torch.allclose(single, together, atol=1e-3)
    assert torch.equal(joint.denoise(x[:, :1], sigma, bands[:1]), single[:, :1])
    expected = joint.model(x, sigma[:, None].expand(11, 2), bands.expand(11, 2))
    tolerance = 1e-5 if precision == "float32" else 0.1
    torch.testing.assert_close(together, expected, atol=tolerance, rtol=tolerance)


def test_single_band_weights_keep_their_bytes_in_a_joint_folder(joint_folder, tmp_path, noisy):
    x, sigma = noisy
    model = network(joint=True)
    alone = Denoiser(NETWORK)
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not is_joint(k)})
    save_model(tmp_path / "alone", alone, MEASURED)
    name = "model.safetensors"
    assert (tmp_path / "alone" / name).read_bytes() == (joint_folder / name).read_bytes()
    single = load_prior(tmp_path / "alone", device="cpu")
    assert torch.equal(single.denoise(x, sigma), load_prior(joint_folder, device="cpu").denoise(x, sigma))
    with pytest.raises(ModelError, match="one by one"):
        single.denoise(x, sigma, torch.zeros(2))
    with pytest.raises(ModelError, match="single bands"):
        single.cross_correlation([0.0, 1.0])


def test_levels_of_each_band(joint_folder, noisy):
    prior, (x, sigma) = load_prior(joint_folder, device="cpu"), noisy
    levels = torch.stack([sigma, 2 * sigma], dim=1)
    apart = torch.cat([prior.denoise(x[:, i : i + 1], levels[:, i]) for i in (0, 1)], dim=1)
    assert torch.equal(prior.denoise(x, levels), apart)
    assert torch.equal(prior.denoise(x, torch.tensor(0.3)), prior.denoise(x, torch.full((11,), 0.3)))
    with pytest.raises(ModelError, match="one per band"):
        prior.denoise(x, sigma, torch.zeros(3))
    with pytest.raises(ModelError, match=r"sigma \(b,\), \(b, c\) or one number"):
        prior.denoise(x, sigma[:3])


def test_joint_weights_of_another_card_are_refused(joint_folder):
    (joint_folder / "joint.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="do not belong together"):
        load_prior(joint_folder, device="cpu")


def test_correlation_of_bands_is_a_correlation(joint_folder):
    prior = load_prior(joint_folder, device="cpu")
    log = np.log([0.9, 1.15, 2.0, 4.4, 4.4])
    rho = prior.cross_correlation(log, k=np.linspace(0, 0.7, 6))
    assert rho.shape == (6, 5, 5) and np.linalg.eigvalsh(rho).min() > 0
    assert rho[0, 0, 2] == pytest.approx(0.99 * np.exp(-np.log(2.0 / 0.9) / 2.0))
    np.testing.assert_allclose(rho[-1], prior.cross_correlation(log, k=0.25))  # flat beyond the table
    assert (np.diagonal(prior.cross_correlation(log)) == 1).all() and prior.spec.joint == 7
    with pytest.raises(ModelError, match="positive lengths"):
        Card(**MEASURED, sha256="", joint=7, cross=CROSS | {"length": [1.0, -1.0]})


def test_few_shapes_reach_the_network():
    """Each is compiled once, which takes half a minute on a GPU."""
    on = lambda device: SimpleNamespace(device=torch.device(device), micro_batch=1024)  # noqa: E731
    groups = [Prior._group(on("cuda"), n) for n in range(1, 3000)]
    assert sorted(set(groups)) == [256, 512, 768, 1024]
    assert all(g >= min(n, 1024) for n, g in enumerate(groups, 1))
    assert {Prior._group(on("cpu"), n) for n in (1, 30, 3000)} == {1024}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_an_image_does_not_know_its_neighbours(folder, noisy, backend, precision):
    prior = load_prior(folder, device="cpu", backend=backend, precision=precision)
    x, sigma = noisy
    together = prior.denoise(x, sigma)
    for n in (1, 2, 3, 10):
        apart = torch.cat([prior.denoise(a, s) for a, s in zip(x.split(n), sigma.split(n), strict=True)])
        assert torch.equal(together, apart), f"bits differ in batches of {n}"
    assert torch.equal(together, prior.denoise(x.flip(0), sigma.flip(0)).flip(0))


@pytest.mark.parametrize("sigma", [0.005, 0.1, 1.0])
def test_bfloat16_stays_inside_the_network(sigma):
    """The shipped prior on a core 200 times brighter than the lowest noise: rounding is a hundredth of it."""
    full, low = (load_prior(device="cpu", precision=p) for p in ("float32", "bfloat16"))
    y, x = np.mgrid[:64, :64] - 31.5
    galaxy = torch.from_numpy(np.exp(-np.hypot(y / 3, x / 5)).astype(np.float32))[None, None]
    noisy = galaxy + sigma * torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    level = torch.full((4,), sigma)
    difference = (low.denoise(noisy, level) - full.denoise(noisy, level)) / sigma
    assert 0 < difference.square().mean().sqrt() < 0.015
    assert low.precision == "bfloat16" and full.precision == "float32"


def test_threads_do_not_change_bits(folder, noisy):
    prior = load_prior(folder, device="cpu")
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(prior.denoise(*noisy))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_backends_agree_at_every_size(folder):
    eager, other = (load_prior(folder, device="cpu", backend=b) for b in ("eager", "torchscript"))
    for size in (16, 40):
        x, sigma = torch.randn(3, 1, size, size + 8), torch.tensor([0.01, 0.3, 4.0])
        torch.testing.assert_close(other.denoise(x, sigma), eager.denoise(x, sigma), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
def test_exports_run_without_the_package(folder, tmp_path, kind):
    model = load_prior(folder, device="cpu", backend="eager").model
    path = tmp_path / ("m.ts" if kind == "torchscript" else "m.pt2")
    write_export(model, kind, path)
    x, sigma = torch.randn(5, 1, 32, 24), torch.rand(5) + 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(path)) if kind == "torchscript" else torch.export.load(str(path)).module()
        out = loaded(x, sigma)
    torch.testing.assert_close(out, model(x, sigma), atol=2e-5, rtol=1e-5)


def test_sigma_map_and_limits(tmp_path):
    shift = float(np.log(1.25))
    save_model(tmp_path / "a", network(), MEASURED)
    save_model(tmp_path / "b", network(), MEASURED | {"sigma_map": (shift, 0.0)})
    plain, mapped = (load_prior(tmp_path / n, device="cpu", backend="eager") for n in "ab")
    x = torch.randn(2, 1, 16, 16)
    level = torch.tensor([0.2, 0.4])
    torch.testing.assert_close(mapped.denoise(x, level), plain.denoise(x, 1.25 * level), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        plain.denoise(x, torch.full((2,), 1e-9)), plain.denoise(x, torch.full((2,), 0.002))
    )


def damaged_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def other_weights(folder):
    from galbatch.prior.card import save_state

    save_state(folder / "model.safetensors", network(seed=5).state_dict(), {})


def edit(**changes):
    def change(folder):
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | changes))

    return change


@pytest.mark.parametrize(("harm", "words"), [
    (damaged_weights, "weights and card do not belong together"),
    (other_weights, "weights and card do not belong together"),
    (lambda f: (f / "card.json").unlink(), "card.json: no such file"),
    (lambda f: (f / "model.safetensors").unlink(), "model folder is incomplete"),
    (lambda f: (f / "card.json").write_text("{broken"), "not a model card"),
    (edit(format=9), "format 9, this version reads 1"),
    (edit(flux_convention="sum"), "flux convention 'sum'"),
    (edit(surprise=1), "unknown entries"),
    (edit(max_sd=0), "max_sd is 0: it must be positive"),
    (edit(spectrum={"k": [0.0], "power": [1.0, 2.0]}), "do not match their grids"),
    (edit(network=NetworkConfig(widths=(8, 16), blocks=(1, 1), embedding=16).to_dict()),
        "do not fit the network"),
])  # fmt: skip
def test_bad_folders_get_one_clear_line(folder, harm, words):
    harm(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load_prior(folder, device="cpu", backend="eager")
    assert "\n" not in str(caught.value)


def test_missing_folder_and_wrong_calls(folder, tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        load_prior(tmp_path / "nothing")
    with pytest.raises(ModelError, match="backend 'magic' is unknown"):
        load_prior(folder, backend="magic")
    with pytest.raises(ModelError, match="precision 'half' is unknown: use auto or one of float32, bfloat16"):
        load_prior(folder, precision="half")
    prior = load_prior(folder, device="cpu", backend="eager")
    with pytest.raises(ModelError, match="multiples of 4"):
        prior.denoise(torch.zeros(1, 1, 30, 32), torch.ones(1))
    with pytest.raises(ModelError, match=r"sigma must be|sigma \(b,\)"):
        prior.denoise(torch.zeros(2, 1, 32, 32), torch.ones(1))


needs_shipped = pytest.mark.skipif(
    not (SHIPPED / "card.json").is_file(), reason="no shipped model in this checkout"
)


@needs_shipped
def test_shipped_prior_removes_noise_and_keeps_flux():
    prior = galbatch.load_prior(device="cpu")
    grid = torch.arange(72.0) - 36
    clean = torch.exp(-0.5 * (grid[:, None] ** 2 + 2 * grid[None] ** 2) / 5**2).reshape(1, 1, 72, 72)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    for sigma in (0.02, 0.1, 0.3):
        out = prior.denoise(clean + sigma * noise, torch.tensor([sigma]))
        assert float((out - clean).square().mean()) < 0.1 * sigma**2
        assert float(out.sum()) == pytest.approx(float(clean.sum()), rel=0.03 + 0.5 * sigma)


def test_weights_kept_as_float16_are_loaded_to_float32(tmp_path):
    """Rounding is the only difference, and buffers are not rounded."""
    save_model(tmp_path / "half", network(), MEASURED, half=True)
    save_model(tmp_path / "whole", network(), MEASURED)
    half, whole = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "whole"))
    assert half < 0.6 * whole
    found, model = load_weights(tmp_path / "half", Card.load(tmp_path / "half" / "card.json")), network()
    for (name, a), b in zip(found.state_dict().items(), model.state_dict().values(), strict=True):
        assert a.dtype == torch.float32, name
        torch.testing.assert_close(a, b.half().float() if name in dict(model.named_parameters()) else b)
