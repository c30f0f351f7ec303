"""What a survey will take: rates times work, and refusals where nothing was measured."""

import dataclasses
import json

import pytest
import toys
from runs import OPTIONS

from galbatch.bench import cost as module
from galbatch.bench.cost import Prices, Rates, Survey, cost, find_rates, rates_of_run, save_rates
from galbatch.cli.main import main
from galbatch.errors import InputError, RunError
from galbatch.run import process

RATES = Rates(
    "cpu", "small", "default", 16, 64, {"cut": 0.4, "sample": 3.0, "measure": 0.6}, 2e5, 5e4, 1e3, "toy"
)
WORK = Survey(10_000, 2, 3, 64, 64, 16, 64, 7)


def test_cost_is_rates_times_images():
    found = cost(RATES, WORK, devices=4)
    assert found["device_hours"] == pytest.approx(20_000 * 4.0 / 3600)
    assert found["wall_hours"] == pytest.approx(found["device_hours"] / 4)
    assert found["written_bytes"] == pytest.approx(20_000 * (2e5 + 5e4 + 1e3))
    assert found["read_bytes"] == 20_000 * 3 * 64 * 64 * 4 and found["read_requests"] == 60_000
    assert found["write_requests"] == 157 * 9


def test_draws_and_pixels_scale_what_they_cost():
    """Half the draws: sampling and measuring halve, cutting stays. Twice the side: four times everything."""
    half = cost(RATES, dataclasses.replace(WORK, draws=8))
    assert half["device_hours"] == pytest.approx(20_000 * (0.4 + 1.8) / 3600)
    assert half["written_bytes"] == pytest.approx(20_000 * (1e5 + 5e4 + 1e3))
    large = cost(RATES, dataclasses.replace(WORK, fine_pix=128))
    assert large["device_hours"] == pytest.approx(4 * cost(RATES, WORK)["device_hours"])
    none = cost(RATES, dataclasses.replace(WORK, samples="none"))
    assert none["written_bytes"] == pytest.approx(20_000 * (5e4 + 1e3))
    again = cost(dataclasses.replace(RATES, kept_bytes=2e4), dataclasses.replace(WORK, samples="regenerate"))
    assert again["written_bytes"] == pytest.approx(20_000 * (2e4 + 1e3))


def test_one_scheduler_bounds_the_wall_clock():
    found = cost(RATES, dataclasses.replace(WORK, sources=10**8), devices=10**9)
    assert found["wall_hours"] == pytest.approx(1_562_500 / module.BATCHES_PER_S / 3600)


def test_money_is_devices_storage_and_requests():
    found = cost(RATES, WORK, prices=Prices(2.0, 10.0, 5.0))
    requests = found["read_requests"] + found["write_requests"]
    hoped = 2 * found["device_hours"] + 10 * found["written_bytes"] / 1e12 + 5 * requests / 1e6
    assert found["money"] == pytest.approx(hoped)


def test_the_smallest_cluster_meets_the_deadline_and_one_less_does_not():
    hours = cost(RATES, WORK)["device_hours"]
    n = module.smallest_cluster(hours, 1.5)
    assert hours / n <= 1.5 < hours / (n - 1)


@pytest.mark.parametrize(
    "on, device, devices", [("cpu64", "cpu", 64), ("cpu", "cpu", 1), ("h200x8", "h200", 8)]
)
def test_rates_of_the_package(on, device, devices):
    rates, n = find_rates(on, "default", "small")
    assert n == devices and rates.device == device
    assert 0.001 < rates.seconds_for(16, 64) < 60 and rates.source


def test_what_was_not_measured_is_refused(tmp_path):
    for on, mode, model in (("h100x8", "default", None), ("cpu4", "default", "mine"), ("tpu4", "fast", None)):
        with pytest.raises(InputError, match=r"rates|measured"):
            find_rates(on, mode, model)
    (tmp_path / "f.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="not a file of rates"):
        find_rates(str(tmp_path / "f.json"), "default")


def test_saved_rates_are_found_again(tmp_path):
    path = tmp_path / "rates.json"
    save_rates(path, RATES)
    save_rates(path, dataclasses.replace(RATES, mode="fast"))
    save_rates(path, dataclasses.replace(RATES, draws=8))
    assert find_rates(f"{path}:12", "default", "small") == (dataclasses.replace(RATES, draws=8), 12)
    assert find_rates(str(path), "fast")[0].draws == 16


def test_rates_need_a_run_that_went_through(tmp_path, monkeypatch):
    for found in (
        {"state": "stopped", "summary": None},
        {"state": "finished", "summary": {"resumed_from": 3}},
    ):
        monkeypatch.setattr(module, "status", lambda run, found=found: found)
        with pytest.raises(RunError, match="in one piece"):
            rates_of_run(tmp_path)


def test_rates_of_runs_on_cpus_and_on_cards(tmp_path, monkeypatch):
    """CPU time by stage on CPUs, whatever the wall clock says; wall clock times cards on cards; no mix."""
    run = process(toys.write_survey(tmp_path), out=tmp_path / "a.run", prior=toys.GaussianPrior(), **OPTIONS)
    found = module.status(run.paths.root)
    images = found["summary"]["draws"] / OPTIONS["draws"]
    true = rates_of_run(run.paths.root)
    assert true.device == "cpu" and found["summary"]["devices"] == {"cpu": 1}
    assert sum(true.seconds.values()) == pytest.approx(found["summary"]["cpu_s"] / images, rel=1e-3)
    assert true.draws_bytes > 0 and true.store_bytes > 0 and true.catalogue_bytes > 0

    def rates(**more):
        summary = found["summary"] | more
        monkeypatch.setattr(module, "status", lambda _: found | {"summary": summary})
        return rates_of_run(run.paths.root)

    cpu = rates(cpu_s=5.0, elapsed_s=100.0, stage_seconds={"cut": 1.0, "sample": 9.0, "merge": 3.0})
    assert cpu.seconds == pytest.approx({"cut": 0.5 / images, "sample": 4.5 / images})
    card = rates(elapsed_s=100.0, devices={"NVIDIA H200": 4})
    assert card.device == "NVIDIA H200" and card.seconds == pytest.approx({"run": 400 / images})
    with pytest.raises(RunError, match="one kind"):
        rates(devices={"cpu": 1, "NVIDIA H200": 1})


def test_plan_of_the_demo(tmp_path, capsys):
    said = ["plan", "catalogs/demo.parquet", "--on", "cpu64", "--deadline", "0.01", "--price", "0.04"]
    assert main(said) == 0
    out = capsys.readouterr().out
    assert "48 sources in 2 bands" in out and "core-hours" in out and "cores for 0.6 min" in out
    assert "money" in out
    survey = ["--sources", "2300000", "--deadline", "1e5"]
    assert main([*said[:4], *survey]) == 0
    out = capsys.readouterr().out
    assert "2,060 core-hours" in out and "1 core for 4,170 days" in out
    assert main([*said, "--json", "--sources", "1000", "--sources", "2000"]) == 0
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert two["device_hours"] == pytest.approx(2 * one["device_hours"]) and one["devices"] == 64
    assert main(["plan", "catalogs/demo.parquet", "--on", "abacus"]) == 1
    assert "neither a finished run" in capsys.readouterr().err
