"""What is settled before a run: which network 'auto' is, what is said of it, the side of the stamps."""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toys
from click.testing import CliRunner
from cutouts_field import simple_survey
from tiny import CARD, NETWORK

from galbatch.catalog import open_catalog
from galbatch.cli.main import cli
from galbatch.config import ExecutionSettings, RunSettings
from galbatch.cutouts import open_survey
from galbatch.errors import InputError, ModelError, RunError
from galbatch.interfaces import PriorSpec
from galbatch.prior import choose_model, folder, load_prior
from galbatch.prior.folder import MODELS, model_folder, save_model
from galbatch.prior.network import Denoiser
from galbatch.run import process, resume
from galbatch.run.findings import said_of_model
from galbatch.run.prepare import settle_model, stamp_size
from galbatch.run.start import preview
from galbatch.sampler.prior import as_denoiser
from galbatch.store import read_manifest


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two shipped models of tiny networks in place of the real ones."""
    for seed, name in enumerate(folder.NAMES):
        torch.manual_seed(seed)
        save_model(tmp_path / "models" / name, Denoiser(NETWORK), CARD | {"name": name})
        shutil.copy(MODELS / name / "validation.json", tmp_path / "models" / name)
    monkeypatch.setattr(folder, "MODELS", tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize(("cuda", "here"), [(True, "base"), (False, "small")])
def test_auto_takes_base_where_there_is_a_card(cuda, here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert choose_model() == choose_model(None) == choose_model("auto", "auto") == here
    assert choose_model("auto", "cpu") == "small" and choose_model("auto", "cuda:1") == "base"
    assert model_folder() == MODELS / here
    assert choose_model("small") == "small" and choose_model("base", "cpu") == "base"
    assert choose_model("./base") == "./base" and choose_model(Path("base")) == Path("base")


def test_a_name_is_not_a_folder_of_that_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "base", Denoiser(NETWORK), CARD | {"name": "mine"})
    assert load_prior("base", device="cpu", backend="eager").spec.name == "base"
    assert load_prior("./base", device="cpu", backend="eager").spec.name == "mine"
    with pytest.raises(ModelError, match="bass: no such model folder: give auto, small, base, or a folder"):
        load_prior("bass")


def test_a_run_settles_its_model_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    auto, begun = RunSettings("c", "s"), {"config": {"model": "small"}}
    assert auto.model == "auto"
    assert settle_model(auto, ExecutionSettings(), {}).model == "base"
    assert settle_model(auto, ExecutionSettings(cluster="local"), {}).model == "small"  # it computes on CPUs
    assert settle_model(auto, ExecutionSettings(), begun).model == "small"
    named = RunSettings("c", "s", model="base")
    assert settle_model(named, ExecutionSettings(cluster="local"), begun).model == "base"


class Fast:
    """A prior with a table for mode fast alone."""

    spec = PriorSpec(name="base", calibration={"fast": {"draws": 16}, "fast joint": {"bands": 4}})


@pytest.mark.parametrize(("asked", "going_on", "words"), [
    ("auto", False, "has a CUDA card"),
    ("auto", True, "with which the run began"),
    ("base", False, "model: base"),
])  # fmt: skip
def test_a_run_says_which_model_and_why(asked, going_on, words):
    settings = RunSettings("c", "s", model="base", mode="fast")
    (line,) = said_of_model(asked, settings, Fast(), going_on)
    assert line.startswith("model: base") and words in line
    assert ("auto" in line) == (asked == "auto" and not going_on)


def test_intervals_without_a_table_are_said_to_be_uncalibrated():
    _, line = said_of_model("base", RunSettings("c", "s", model="base"), Fast(), False)
    assert "no calibration for mode default" in line and "quality 1 (UNCALIBRATED)" in line
    assert line.endswith("galbatch model calibrate base --mode default")
    fast = RunSettings("c", "s", model="base", mode="fast")
    assert len(list(said_of_model("base", fast, Fast(), False, together=4))) == 1
    _, line = said_of_model("base", fast, Fast(), False, together=7)
    assert "mode fast of 7 bands together" in line and line.endswith("--separate.")
    own = as_denoiser(toys.GaussianPrior())
    _, line = said_of_model("object", RunSettings("c", "s", model="object"), own, False)
    assert "GaussianPrior has no calibration" in line and "galbatch model" not in line


def test_a_run_keeps_its_model(tiny, tmp_path, monkeypatch):
    """Begun without a card, gone on with where there is one: with the network it began with, by its name;
    another is refused."""
    survey, out, said = toys.write_survey(tmp_path / "s", n=2), tmp_path / "r.run", []
    how = {"cluster": "none", "batch": 1, "draws": 2, "mode": "fast", "out": out}
    first = process(
        survey, on_message=said.append, model="small" if torch.cuda.is_available() else None, **how
    )
    assert any(line.startswith("model: small") for line in said)
    assert any("no calibration for mode fast" in line for line in said)
    model = read_manifest(first.paths)["model"]
    assert (model["name"], model["path"]) == ("small", "small")
    monkeypatch.setattr("galbatch.prior.choose_model", lambda *_: "base")
    next(iter(first.paths.parts.iterdir())).unlink()
    said.clear()
    process(survey, resume=True, on_message=said.append, **how)
    assert "model: small, with which the run began" in said
    assert resume(out, cluster="none").manifest["model"]["name"] == "small"
    with pytest.raises(RunError, match=r"configuration model: .*small.*base"):
        process(survey, resume=True, model="base", **how)
    assert any(
        line.startswith("model: base")
        for line in preview(RunSettings(str(survey), "", mode="fast"), ExecutionSettings(), tmp_path / "n")
    )


def test_the_models_are_listed_with_their_cost_and_headline(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = CliRunner().invoke(cli, ["model", "list", "--json"])
    assert found.exit_code == 0, found.output
    small, base = (json.loads(line) for line in found.stdout.splitlines())
    assert (small["name"], small["auto"], base["name"], base["auto"]) == ("small", True, "base", False)
    assert small["parameters"] == sum(p.numel() for p in Denoiser(NETWORK).parameters())
    assert 0 < small["seconds_per_draw"] < 60 and small["calibrated"] == {}
    assert base["within_68"]["asymmetry"] == 0.5686 and small["within_68"]["asymmetry"] == 0.4039
    table = CliRunner().invoke(cli, ["model", "list"])
    assert table.exit_code == 0 and "base: 255 galaxies, 15 evaluations per draw" in " ".join(
        table.stdout.split()
    )


def test_every_setting_is_a_keyword_with_its_default():
    known = {name: p for name, p in inspect.signature(process).parameters.items()}
    for name, parameter in inspect.signature(resume).parameters.items():
        assert parameter.kind is not parameter.VAR_KEYWORD, name
    for settings in (RunSettings, ExecutionSettings):
        for field in dataclasses.fields(settings):
            if field.name not in ("catalog", "survey"):
                assert known[field.name].default == field.default, field.name
                assert known[field.name].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_largest_stamp_of_the_catalogue_is_that_of_the_run(tmp_path):
    survey = open_survey(simple_survey(tmp_path))
    table = {"source_id": [1, 2, 3], "ra": [150.0] * 3, "dec": [2.0] * 3}
    for name, sizes in (("good", [0.5, 1.9, 1.0]), ("open", [0.5, None]), ("wrong", [0.5, 1.9, 3600.0])):
        columns = {k: v[: len(sizes)] for k, v in table.items()}
        columns["stamp_arcsec"] = pa.array(sizes, pa.float64())
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    good, free, wrong = (open_catalog(tmp_path / f"{name}.parquet") for name in ("good", "open", "wrong"))
    assert stamp_size(survey, good) == 48 and stamp_size(survey, good, 0.8) == 20
    assert stamp_size(survey, free) == 128  # a row without a size gets what it needs
    with pytest.raises(InputError, match="largest stamp_arcsec is 3600"):
        stamp_size(survey, wrong)
