"""Training: resumable to the bit, learning something, and refusing bad configurations."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import CARD, training_toml

from galbatch.errors import ConfigError, ModelError
from galbatch.prior.network import Denoiser, NetworkConfig
from galbatch.training.finish import describe_training
from galbatch.training.fit import fit, load_config
from galbatch.training.library import Library, SourceImage
from galbatch.training.optimiser import MuonAdam, orthogonalise
from galbatch.training.plan import bins_of
from galbatch.training.stamps import StampSource
from galbatch.training.trainer import TrainConfig, Trainer, draw_sigma, ema_exponent

NETWORK = NetworkConfig(widths=(8, 12, 16), blocks=(1, 1, 1), embedding=16, sigma_data=0.2)
SHORT = TrainConfig(steps=8, batch=4, sizes=(32,), size_shares=(1.0,), warmup=2, checkpoint_every_s=1e9)


def galaxy(i, n=64):
    y, x = np.indices((n, n)) - n / 2
    return np.exp(-np.hypot(x, y * (1 + 0.3 * (i % 3))) / (3 + i % 5))


@pytest.fixture(scope="module")
def source():
    return StampSource(Library((SourceImage(galaxy(i), f"g{i}", "test") for i in range(6)), npix=64))


def test_killed_and_resumed_training_has_the_same_curve(tmp_path, source):
    whole = Trainer(NETWORK, SHORT, source, tmp_path)
    straight = [whole.train_step()["loss"] for _ in range(8)]
    first = Trainer(NETWORK, SHORT, source, tmp_path)
    curve = [first.train_step()["loss"] for _ in range(3)]
    first.save()
    second = Trainer(NETWORK, SHORT, source, tmp_path)
    second.load()
    curve += [second.train_step()["loss"] for _ in range(5)]
    assert curve == straight
    for a, b in zip(whole.ema["0.05"], second.ema["0.05"], strict=True):
        assert torch.equal(a, b)


def test_the_loss_is_one_graph(tmp_path, source):
    trainer = Trainer(NETWORK, SHORT, source, tmp_path)
    explained = torch._dynamo.explain(trainer.loss)(*trainer.batch(0))
    assert explained.graph_break_count == 0, explained.break_reasons


def test_a_card_is_waited_for_every_twentieth_step(tmp_path, source):
    """Between looks nothing of a step is read, and a training that diverged is noticed at the next one."""
    trainer = Trainer(NETWORK, SHORT, source, tmp_path)
    trainer.look_every = 3
    told = [trainer.train_step() for _ in range(3)]
    assert ["loss" in entry for entry in told] == [False, False, True]
    with torch.no_grad():
        trainer.params[0].fill_(torch.nan)
    trainer.train_step()
    with pytest.raises(ModelError, match="diverged"):
        trainer.save()
    with pytest.raises(ModelError, match="diverged by step"):
        [trainer.train_step() for _ in range(2)]


def test_training_starts_from_the_weights_of_a_model_folder(tmp_path, config):
    from galbatch.prior.folder import save_model

    first = Denoiser(NETWORK)
    with torch.no_grad():
        for p in first.parameters():
            p.add_(0.01)
    values = {"name": "first", "network": NETWORK.to_dict(), "multiple_of": NETWORK.multiple_of}
    card = save_model(tmp_path / "first", first, CARD | values)
    config.write_text(
        config.read_text().replace(
            "[training]", 'sigma_data = 0.2\n[training]\nstart = "first"\nlearning_rate = 0.0'
        )
    )
    settings = load_config(config)
    trainer = fit(settings, tmp_path / "out", stop_after=2)
    for p, q in zip(trainer.params, first.parameters(), strict=True):
        assert torch.equal(p, q)
    assert (
        describe_training(settings, {"step": 2, "elapsed_s": 1.0}, 0.05)["started_from"]["sha256"]
        == card.sha256
    )
    config.write_text(config.read_text().replace("    16,", "    20,"))
    with pytest.raises(ModelError, match="same network"):
        fit(load_config(config), tmp_path / "other", stop_after=1)


def test_checkpoint_of_another_network_is_refused(tmp_path, source):
    Trainer(NETWORK, SHORT, source, tmp_path).save()
    other = Trainer(NetworkConfig(widths=(8, 12), blocks=(1, 1), embedding=16), SHORT, source, tmp_path)
    with pytest.raises(ModelError, match="made by network"):
        other.load()


def test_loss_falls(tmp_path, source):
    config = TrainConfig(steps=40, batch=6, sizes=(32,), size_shares=(1.0,), warmup=5, learning_rate=5e-3)
    trainer = Trainer(NETWORK, config, source, tmp_path)
    edm = [trainer.train_step()["edm"] for _ in range(40)]
    assert np.mean(edm[-10:]) < 0.75 * np.mean(edm[:5])  # batches of six: the mean of ten scatters by a tenth
    assert trainer.learning_rate() == 0.0 and trainer.progress() == 1.0


def test_an_image_counts_in_units_of_what_is_usual_for_its_noise_and_its_light(tmp_path, source):
    trainer = Trainer(NETWORK, SHORT, source, tmp_path)
    trainer.bin_loss.copy_(torch.linspace(0.1, 4, len(trainer.bin_loss)))
    loss, (edm, relative), bins = trainer.loss(*trainer.batch(0))
    noise, light = trainer.bin_loss[bins[0]], trainer.bin_loss[bins[1]]
    torch.testing.assert_close(loss, (edm / (noise * light)).mean())
    torch.testing.assert_close(relative, edm / noise)
    for trainer.step in range(1, 501):
        trainer._update_averages(trainer._bin_sums(bins, torch.stack([edm, relative])))
    for index, values in ((bins[0], edm), (bins[1], relative)):
        means = torch.stack([values[index == i].mean() for i in index])
        torch.testing.assert_close(trainer.bin_loss[index], means, rtol=1e-3, atol=1e-4)


def test_what_is_usual_for_an_image_is_known_from_its_noisy_one(tmp_path, source):
    """A weight that followed the clean image would teach another law of galaxies."""
    trainer = Trainer(NETWORK, SHORT, source, tmp_path)
    clean, sigma, noise = trainer.batch(0)
    other = 30 * clean.flip(0)
    step = sigma.reshape(-1, 1, 1, 1)
    bins, same = (
        trainer.loss(x, sigma, e)[2] for x, e in ((clean, noise), (other, noise + (clean - other) / step))
    )
    assert torch.equal(bins, same) and len(bins[1].unique()) > 1


def test_learning_rate_warms_up_stays_and_falls(tmp_path, source):
    trainer = Trainer(
        NETWORK, TrainConfig(steps=100, warmup=10, decay=0.5, learning_rate=1.0), source, tmp_path
    )
    rates = []
    for trainer.step in range(100):
        rates.append(trainer.learning_rate())
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[49] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)


def test_time_budget_ends_training(tmp_path, source):
    trainer = Trainer(NETWORK, TrainConfig(steps=10**9, hours=1.0), source, tmp_path)
    trainer.elapsed_s = 3600.0
    assert trainer.progress() == 1.0


def test_noise_levels_cover_their_ranges():
    sigma = draw_sigma(4000, TrainConfig(), (1, 2)).numpy()
    assert sigma.min() < 0.0025 and sigma.max() > 45
    core = np.mean((sigma > 0.004) & (sigma < 6.0))
    assert 0.88 < core < 0.97


def test_bins_of_noise_and_of_light():
    light = torch.tensor([0.0, 1e-3, -0.29, 9.0]).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    found = bins_of(torch.tensor([1e-9, 0.002, 80.0, 1e9]), light)
    assert found.tolist() == [[0, 0, 23, 23], [24, 24, 35, 35]]


def test_orthogonalise_evens_out_singular_values():
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(orthogonalise(matrix.T), orthogonalise(matrix).T)


def test_matrices_of_one_shape_go_together():
    """As one by one, within rounding; Adam's parameters as torch's Adam takes them."""
    made = torch.Generator().manual_seed(1)
    shapes = [(6, 4, 3, 3), (5,), (6, 4, 3, 3), (8, 6, 1, 1), (3, 2)]
    params = [torch.randn(s, generator=made).requires_grad_() for s in shapes]
    alone = [p.detach().clone() for p in params]
    plain = [alone[i].clone().requires_grad_() for i in (1, 4)]
    mine, adam = MuonAdam(params, {0, 2, 3}), torch.optim.Adam(plain, 0.02, (0.9, 0.99), eps=1e-9)
    assert sorted(mine.groups.values()) == [[0, 2], [3]]
    momenta = [torch.zeros_like(p) for p in alone]
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=made)
        for p, q in zip(plain, (params[1], params[4]), strict=True):
            p.grad = q.grad.clone()
        mine.step(0.02)
        adam.step()
        for i in (0, 2, 3):
            momenta[i].mul_(0.95).add_(params[i].grad)
            update = orthogonalise((params[i].grad + 0.95 * momenta[i]).reshape(len(params[i]), -1))
            alone[i] -= update.reshape(alone[i].shape) * (0.2 * max(update.shape) ** 0.5 * 0.02)
    for i in (0, 2, 3):
        torch.testing.assert_close(params[i].detach(), alone[i], rtol=1e-5, atol=1e-6)
    for p, q in zip(plain, (params[1], params[4]), strict=True):
        torch.testing.assert_close(q.detach(), p.detach(), rtol=1e-5, atol=1e-6)


def test_ema_exponent_reproduces_the_relative_width():
    gamma = ema_exponent(0.10)
    assert gamma == pytest.approx(6.94, abs=0.01)
    assert np.sqrt(gamma + 1) / ((gamma + 2) * np.sqrt(gamma + 3)) == pytest.approx(0.10, rel=1e-6)


@pytest.fixture
def config(tmp_path):
    from astropy.io import fits

    (tmp_path / "galaxies").mkdir()
    for i in range(12):
        fits.writeto(tmp_path / "galaxies" / f"broadband_{i}.fits", galaxy(i).astype(np.float32))
    path = tmp_path / "tiny.toml"
    path.write_text(
        training_toml(
            {"files": "galaxies", "credit": "nobody", "licence": "CC0"},
            {"widths": [8, 12, 16], "blocks": [1, 1, 1]},
        )
    )
    return path


def test_train_command_from_files_to_a_model_folder(config, tmp_path):
    from galbatch.cli.train import command
    from galbatch.prior import load_prior

    stopped = CliRunner().invoke(
        command, [str(config), "--stop-after", "3", "--stamps", "16"], catch_exceptions=False
    )
    assert "stopped at step 3 of 4" in stopped.output
    done = CliRunner().invoke(command, [str(config), "--stamps", "16"], catch_exceptions=False)
    assert done.exit_code == 0 and "held-out error" in done.output
    folder = tmp_path / "tiny.train"
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert (folder / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert [line["step"] for line in lines] == [2, 4] and set(lines[0]["held_out"]) >= {"0.05", "1.5"}
    train, held = (Library.load(folder / f"library-{n}.npz") for n in ("train", "held-out"))
    assert set(train.groups).isdisjoint(held.groups) and len(train) + len(held) == 12
    prior = load_prior(folder / "model", device="cpu", backend="eager")
    assert prior.card.data[0]["origin"] == "mine" and prior.card.data[0]["licence"] == "CC0"
    assert prior.denoise(torch.zeros(1, 1, 40, 40), torch.ones(1)).shape == (1, 1, 40, 40)
    from galbatch.cli.model import command as model

    shown = CliRunner().invoke(model, ["info", str(folder / "model")], catch_exceptions=False)
    assert "tiny" in shown.output and prior.card.sha256 in shown.output
    exported = CliRunner().invoke(model, ["export", str(folder / "model")], catch_exceptions=False)
    assert exported.exit_code == 0 and (folder / "model" / "model.ts").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("steps = 4", "stepz = 4"), r"unknown keys \['stepz'\]"),
        (("[training]", "[trainning]"), r"unknown tables \['trainning'\]"),
        (("[network]", "[network"), "not valid TOML"),
        (('files = "galaxies", ', ""), "files"),
        (('files = "galaxies"', 'files = "elsewhere/*.fits"'), "no file matches"),
    ],
)
def test_bad_configurations(config, tmp_path, change, words):
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(ConfigError, match=words):
        fit(load_config(config), tmp_path / "out", stop_after=1)
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "missing.toml")
