"""Bands together: aligned stamps, a training of the mixing alone, and the model folder that it makes."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import CARD, NETWORK, training_toml

from galbatch.errors import ConfigError, InputError, ModelError
from galbatch.prior import load_prior
from galbatch.prior.folder import save_model
from galbatch.prior.network import Denoiser
from galbatch.training.cubes import Cube, CubeLibrary, CubeSource, read_cubes
from galbatch.training.finish import measure_cross
from galbatch.training.sources import DataConfig, build_libraries
from galbatch.training.spectra import RadialBins, band_correlation
from galbatch.training.stamps import StampConfig
from galbatch.training.trainer import TrainConfig, Trainer

SHORT = TrainConfig(
    steps=8, batch=6, sizes=(32,), size_shares=(1.0,), warmup=2, start="shipped", bands=(2, 3),
    band_shares=(0.5, 0.5),
)  # fmt: skip


def planes(i, bands=4, n=64):
    """A galaxy that shrinks and turns round to the red."""
    y, x = np.indices((n, n)) - n / 2
    return np.stack([np.exp(-np.hypot(x, y * (2 - 0.2 * b)) / (3 + i % 4 - 0.3 * b)) for b in range(bands)])


def library(flux=planes, bands=4, n=6):
    um = np.array([0.3, 0.5, 0.8, 1.6])[:bands]
    return CubeLibrary((Cube(flux(i)[:bands], um, f"g{i}", "test") for i in range(n)), npix=64)


def test_bands_of_a_stamp_are_one_view():
    alike = CubeSource(library(lambda i: np.repeat(planes(i)[:1], 4, axis=0)), StampConfig(scatter=0.0))
    stamps, bands = alike.draw_bands(40, 3, 32, (5,))
    assert stamps.shape == (40, 3, 32, 32) and bands.shape == (40, 3)
    unlike = (stamps / stamps.sum((2, 3), keepdim=True)).std(dim=1).amax(dim=(1, 2))
    # nuclei and companions have colours of their own, so the rest is alike
    assert (unlike < 1e-4).float().mean() > 0.5
    values = torch.from_numpy(np.log([0.3, 0.5, 0.8, 1.6]).astype(np.float32))
    assert torch.isin(bands, values).all() and (bands.diff(dim=1) != 0).all()
    assert (bands[:, 1] > bands[:, 0]).float().mean() < 0.8, "bands come in random order"
    again, same = alike.draw_bands(40, 3, 32, (5,))
    assert torch.equal(stamps, again) and torch.equal(bands, same)
    there, of_them = CubeSource(library(), device="meta").draw_bands(40, 3, 32, (5,))
    assert there.device.type == "meta" and torch.equal(of_them, bands), "made on a device, views drawn here"


def test_galaxies_with_too_few_bands_wait():
    both = [Cube(planes(i)[:2], np.array([0.6, 0.8]), f"two{i}", "test") for i in range(3)]
    both += [Cube(planes(i), np.array([0.3, 0.5, 0.8, 1.6]), f"four{i}", "test") for i in range(3)]
    source = CubeSource(CubeLibrary(both, npix=64))
    assert torch.isin(source.draw_bands(30, 3, 32, (1,))[1], torch.tensor(np.log(0.6)).float()).sum() == 0
    assert torch.isin(source.draw_bands(30, 2, 32, (1,))[1], torch.tensor(np.log(0.6)).float()).sum() > 3
    with pytest.raises(InputError, match="no galaxy of the library has 5 bands"):
        source.draw_bands(4, 5, 32, (1,))


def test_library_survives_a_file_and_splits_by_galaxy(tmp_path):
    lib = library()
    lib.save(tmp_path / "cubes.npz")
    kept = CubeLibrary.load(tmp_path / "cubes.npz")
    one, two = (CubeSource(each).draw_bands(5, 2, 32, (3,))[0] for each in (lib, kept))
    assert torch.equal(one, two)
    np.savez(tmp_path / "g.npz", images=np.stack([planes(i) for i in range(12)]))
    config = DataConfig("mine", ("g.npz",), held_out=0.3, wavelengths_um=(0.3, 0.5, 0.8, 1.6))
    train, held = build_libraries([config], tmp_path, 64, read_cubes, CubeLibrary)
    assert set(train.groups).isdisjoint(held.groups) and len(train.start) + len(held.start) - 2 == 12
    with pytest.raises(ConfigError, match="4 bands and 0 known wavelengths"):
        list(read_cubes(DataConfig("mine", ("g.npz",)), tmp_path))


def test_only_the_mixing_is_trained_and_it_resumes(tmp_path):
    start, source = Denoiser(NETWORK), CubeSource(library())
    with torch.no_grad():
        for p in start.parameters():
            p.add_(0.02)

    def trainer():
        made = Trainer(NETWORK, SHORT, source, tmp_path)
        made.start_from(start)
        return made

    whole, first = trainer(), trainer()
    straight = [whole.train_step()["loss"] for _ in range(6)]
    curve = [first.train_step()["loss"] for _ in range(2)]
    first.save()
    second = trainer()
    second.load()
    curve += [second.train_step()["loss"] for _ in range(4)]
    assert curve == straight
    after = whole.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in start.state_dict().items())
    assert any(p.abs().max() > 0 for name, p in after.items() if "mixes.0.out" in name)
    with pytest.raises(ModelError, match="made for several bands"):
        Trainer(NETWORK, TrainConfig(), source, tmp_path).load()
    with pytest.raises(ConfigError, match="one share for each"):
        TrainConfig(bands=(2, 3), start="shipped")


def test_correlation_of_bands_finds_what_is_there():
    generator = torch.Generator().manual_seed(1)
    common, own = (torch.randn(400, c, 16, 16, generator=generator) for c in (1, 3))
    share = torch.tensor([1.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
    bands = torch.tensor([0.0, 0.5, 1.5]).expand(400, 3)
    edges = np.array([0.3, 0.7, 1.2, 1.7])
    apart, rho = band_correlation(share * common + own, bands, edges, RadialBins(16, 4))
    np.testing.assert_allclose(apart, [0.5, 1.0, 1.5])
    expected = np.array([1 / 2, 0.5 / np.sqrt(2 * 1.25), 0.5 / np.sqrt(2 * 1.25)])
    # 400 stamps of at least 8 modes: a standard error below 0.02
    np.testing.assert_allclose(rho[:, 1:], np.repeat(expected[:, None], 3, axis=1), atol=0.06)


def test_train_command_makes_the_first_model_joint(tmp_path):
    from galbatch.cli.train import command

    np.savez(tmp_path / "g.npz", images=np.stack([planes(i) for i in range(16)]))
    torch.manual_seed(0)
    save_model(tmp_path / "first", Denoiser(NETWORK), CARD | {"name": "first"})
    (tmp_path / "tiny.toml").write_text(
        training_toml(
            {"files": "g.npz", "wavelengths_um": [0.3, 0.5, 0.8, 1.6]},
            {"sigma_data": 0.2},
            start="first",
            bands=[2, 4],
            band_shares=[0.5, 0.5],
            batch=8,
        )
    )
    done = CliRunner().invoke(
        command, [str(tmp_path / "tiny.toml"), "--stamps", "16"], catch_exceptions=False
    )
    assert done.exit_code == 0 and "4 bands, 0.15" in done.output
    made = tmp_path / "tiny.train" / "model"
    name = "model.safetensors"
    assert (made / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    card = json.loads((made / "card.json").read_text())
    assert card["joint"] == 4 and card["training"]["joint"]["steps"] == 4
    assert set(card["metrics"]["joint"]["alone"]) == set(card["metrics"]["joint"]["together"])
    first, joint = (load_prior(folder, device="cpu") for folder in (tmp_path / "first", made))
    x, sigma = torch.randn(2, 4, 32, 32), torch.tensor([0.1, 1.0])
    assert torch.equal(first.denoise(x, sigma), joint.denoise(x, sigma))
    bands = np.log([0.3, 0.5, 0.8, 1.6])
    assert torch.isfinite(joint.denoise(x, sigma, torch.tensor(bands))).all()
    assert np.linalg.eigvalsh(joint.cross_correlation(bands)).min() > 0


def test_neighbouring_bands_are_more_alike():
    table = measure_cross(CubeSource(library()), 4, 48, size=32)
    assert len(table["k"]) == len(table["length"]) == 8
    assert 0 < table["power"] <= 2 and max(table["ceiling"]) <= 1 and min(table["length"]) > 0
