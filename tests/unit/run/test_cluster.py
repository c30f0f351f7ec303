"""Which cluster is chosen and what is said about it; clusters are fakes that only remember how they were
asked for."""

import sys
import types
from dataclasses import replace

import pytest
import torch

from galbatch.config import ExecutionSettings, RunSettings, default_batch
from galbatch.errors import ConfigError
from galbatch.prior import choose_precision
from galbatch.run import cluster
from galbatch.run.prepare import settle_precision


class Fake:
    made = ()

    def __init__(self, *arguments, **options):
        self.made.append((type(self).__name__, arguments, options))
        self.scheduler = types.SimpleNamespace(address="tcp://here:1")
        self.dashboard_link = "http://here/status"

    def scheduler_info(self, n_workers):
        return {"workers": {1: {}, 2: {}}, "address": "tcp://head:8786"}

    def submit(self, function, pure):
        self.made.append(("submit", function))
        return self

    def release(self):
        self.made.append(("release",))

    def wait_for_workers(self, n, timeout):
        self.made.append(("wait", n))

    def nthreads(self):
        return {"a": 1, "b": 3}

    def close(self):
        self.made.append(("close",))


@pytest.fixture
def made(monkeypatch):
    Fake.made = []
    for name in ("Client", "LocalCluster", "SpecCluster"):
        monkeypatch.setattr(cluster, name, type(name, (Fake,), {}))
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Fake.made


def test_cpu_processes_where_there_is_no_gpu(made, monkeypatch):
    monkeypatch.setattr(cluster, "_gpus", lambda: (0, "no GPU is visible"))
    monkeypatch.setattr(cluster.os, "sched_getaffinity", lambda pid: set(range(8)))
    chosen = cluster.open_cluster(ExecutionSettings(threads=2), n_batches=3)
    assert "local, 3 CPU processes with 2 compute threads" in chosen.line
    assert "no GPU is visible" in chosen.line
    assert made[0][2]["n_workers"] == 3 and made[0][2]["threads_per_worker"] == 1
    assert chosen.n_workers == 4 and chosen.dashboard == "http://here/status"
    chosen.close()
    assert made[-2:] == [("close",), ("close",)]
    assert "8 CPU processes" in cluster.open_cluster(ExecutionSettings(workers=8), 3).line


def test_cuda_without_a_gpu_is_refused_with_the_reason(made, monkeypatch):
    monkeypatch.setattr(cluster, "_gpus", lambda: (0, "no GPU is visible"))
    with pytest.raises(ConfigError, match=r"no GPU is visible.*--cluster local"):
        cluster.open_cluster(ExecutionSettings(cluster="cuda"), 3)
    assert made == []


def test_gpus_without_dask_cuda_get_one_pinned_process_each(made, monkeypatch):
    monkeypatch.setattr(cluster, "_gpus", lambda: (4, ""))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    chosen = cluster.open_cluster(ExecutionSettings(workers=2), 9)
    assert "2 GPUs, one pinned process each" in chosen.line and "dask-cuda is not usable" in chosen.line
    workers, head = made[0][2]["workers"], made[0][2]["scheduler"]["options"]
    assert [w["options"]["env"]["CUDA_VISIBLE_DEVICES"] for w in workers.values()] == ["3", "5"]
    assert {head["host"], *(w["options"]["host"] for w in workers.values())} == {"127.0.0.1"}
    assert all(w["options"]["dashboard_address"] == "127.0.0.1:0" for w in workers.values())


def test_a_dashboard_is_of_this_machine_unless_an_address_is_named():
    assert cluster._dashboard_address("0.0.0.0:9999") == "0.0.0.0:9999"
    assert cluster._of_workers("0.0.0.0:9999") == "0.0.0.0:0"
    assert cluster._dashboard_address(":9998") == "127.0.0.1:9998"
    assert cluster._dashboard_address(":0").startswith("127.0.0.1:")


def test_gpus_with_dask_cuda_use_it_and_fall_back_when_it_breaks(made, monkeypatch):
    monkeypatch.setattr(cluster, "_gpus", lambda: (2, ""))
    module = types.SimpleNamespace(LocalCUDACluster=type("LocalCUDACluster", (Fake,), {}))
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    assert "LocalCUDACluster, 2 GPUs" in cluster.open_cluster(ExecutionSettings(), 9).line

    def broken(**options):
        raise RuntimeError("NVML library not found\nlong story")

    module.LocalCUDACluster = broken
    line = cluster.open_cluster(ExecutionSettings(), 9).line
    assert "pinned" in line and "NVML library not found" in line and "\n" not in line


@pytest.mark.parametrize(("torch_cuda", "bindings", "remedy"), [
    ("13.0", "12.9.4", "galbatch[cuda]"),
    ("12.8", "13.1.0", "galbatch[cuda12]"),
    ("11.8", "12.9", "CUDA 12 or 13"),
])  # fmt: skip
def test_a_mix_of_two_cudas_is_refused_with_the_remedy(made, monkeypatch, torch_cuda, bindings, remedy):
    monkeypatch.setattr(cluster, "_gpus", lambda: (2, ""))
    monkeypatch.setattr("torch.version.cuda", torch_cuda)
    monkeypatch.setattr(cluster, "version", {"cuda-bindings": bindings}.__getitem__)
    with pytest.raises(ConfigError, match="PyTorch is built for CUDA") as refused:
        cluster.open_cluster(ExecutionSettings(cluster="cuda"), 9)
    assert remedy in str(refused.value) and made == []
    line = cluster.open_cluster(ExecutionSettings(cluster="auto"), 9).line
    assert "one pinned process each" in line and "PyTorch is built for CUDA" in line
    monkeypatch.setattr(cluster, "version", {"cuda-bindings": torch_cuda}.__getitem__)
    assert cluster._mixed_cuda() == ""


def test_a_given_scheduler_wins_and_is_waited_for(made):
    chosen = cluster.open_cluster(ExecutionSettings(scheduler="tcp://head:8786", workers=5), 9)
    assert made[0][1] == ("tcp://head:8786",)
    assert made[1:4] == [("submit", int), ("wait", 5), ("release",)], "work first: a cluster may adapt"
    assert "2 workers of the scheduler" in chosen.line
    cluster.open_cluster(ExecutionSettings(scheduler_file="s.json"), 9)
    assert any(m[0] == "Client" and m[2].get("scheduler_file") == "s.json" for m in made)
    chosen.close()
    assert made[-1] == ("close",)  # the client only: the cluster is not ours


def test_a_scheduler_whose_workers_never_start_is_let_go_of(made, monkeypatch):
    def wait(self, n, timeout):
        raise TimeoutError(f"Only 0/{n} workers arrived after {timeout}")

    monkeypatch.setattr(cluster.Client, "wait_for_workers", wait)
    with pytest.raises(ConfigError, match=r"tcp://head:8786: Only 0/1 workers arrived after 600.*started"):
        cluster.open_cluster(ExecutionSettings(scheduler="tcp://head:8786"), 9)
    assert made[-1] == ("close",)


@pytest.mark.parametrize("wrong", [
    {"cluster": "gpu"},
    {"scheduler": "a", "scheduler_file": "b"},
    {"scheduler": "a", "cluster": "none"},
    {"workers": -1},
    {"threads": 0},
])  # fmt: skip
def test_wrong_execution_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        ExecutionSettings(**wrong)


@pytest.mark.parametrize("wrong", [
    {"mode": "hasty"},
    {"draws": 1},
    {"oversample": 0},
    {"seed": -1},
    {"seed": 2**47},
    {"stamp_arcsec": -1.0},
    {"stamp_arcsec": 1.0, "stamp_pix": 3},
    {"batch": -1},
])  # fmt: skip
def test_wrong_run_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        RunSettings("a", "b", **wrong)


def test_settings_survive_their_record_and_batches_follow_from_the_catalogue():
    settings = RunSettings("a", "b", ("x",), draws=7, stamp_pix=32)
    assert RunSettings.from_record(settings.record()) == settings
    with pytest.raises(ConfigError, match="another version"):
        RunSettings.from_record(settings.record() | {"colour": "blue"})
    assert [default_batch(n) for n in (0, 1, 12, 13, 48, 300, 10**6)] == [1, 1, 1, 2, 4, 32, 64]


def test_precision_of_a_run_is_settled_where_the_run_is():
    """A run that goes on at a machine of another kind says so; a scheduler's workers settle it themselves."""
    here = choose_precision(torch.device("cpu"))
    settings = RunSettings("c.parquet", "")
    assert settle_precision(settings, ExecutionSettings(cluster="local")).precision == here
    far = ExecutionSettings(scheduler="tcp://10.0.0.1:8786")
    assert settle_precision(settings, far).precision == "auto"
    asked = replace(settings, precision="float32")
    assert settle_precision(asked, ExecutionSettings(cluster="local")).precision == "float32"
    with pytest.raises(ConfigError, match="precision"):
        RunSettings("c.parquet", "", precision="half")
