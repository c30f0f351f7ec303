"""Which Dask cluster a run uses, and why: the choice is said in one line and falls back instead of failing.

A number of workers of its own is fixed, or Dask's to choose between two (``adapt``): as many as there are
batches on their way, of which a run keeps two per worker, so that it doubles until the larger number."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from galbatch.config import ExecutionSettings
from galbatch.display import count
from galbatch.errors import ConfigError

DASK_SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.worker-ttl": "15 minutes",  # a long kernel may hold back heartbeats
    "distributed.scheduler.work-stealing": False,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Dask would end the nanny of a worker that is not back by then, while that nanny is starting it again
    "distributed.deploy.lost-worker-timeout": "1000 days",
}

HERE = "127.0.0.1"  # clusters of ours listen on this machine alone
CONNECT_TIMEOUT = "60s"
WORKERS_TIMEOUT_S = 600
COUNT_S = 2.0
REVIVE_S = 60.0
# Dask looks every 2 s; a worker goes after 30 s without a batch, so that a straggler finds it idle
ADAPTIVE: dict[str, Any] = {"interval": "2s", "target_duration": "10ms", "wait_count": 15}
# Batches of a GPU process: one reads ahead, one is on the device, one is measured and written.
GPU_THREADS = 3


@dataclass
class Cluster:
    """A connected client, the cluster behind it (None if it is not ours), and the line that says what was
    chosen; ``adapting``: how Dask scales it, {} where the number of its workers is fixed."""

    client: Client
    cluster: Any
    line: str
    adapting: dict[str, Any] = field(default_factory=dict)
    _counted: tuple[float, int] = (-math.inf, 0)

    @property
    def dashboard(self) -> str:
        return self.client.dashboard_link or ""

    @property
    def n_workers(self) -> int:
        """Computing threads connected, at least 1."""
        return max(1, self.connected())

    def connected(self) -> int:
        """Computing threads connected some seconds ago at most (asking a thousand workers' scheduler before
        every batch would load it more than the batches do)."""
        if time.monotonic() - self._counted[0] > COUNT_S:
            self._counted = time.monotonic(), sum(self.client.nthreads().values())
        return self._counted[1]

    def revive(self) -> None:
        """Let go of what is left of the workers of a cluster of ours, and start as many new ones."""
        wanted, until = dict(self.cluster.worker_spec), time.monotonic() + REVIVE_S
        if self.adapting:
            self.cluster.adapt(minimum=0, maximum=0)
        self.cluster.scale(0)
        while self.cluster.workers and time.monotonic() < until:
            time.sleep(0.1)
        if self.adapting:
            self.cluster.adapt(**self.adapting)
            return
        self.cluster.worker_spec.update(wanted)
        self.cluster.scale(len(wanted))

    def close(self) -> None:
        """Disconnect; end the cluster if it is ours."""
        with suppress(Exception):  # a scheduler that is gone already is what closing wants
            self.client.close()
        if self.cluster is not None:
            with suppress(Exception):
                self.cluster.close()


def open_cluster(settings: ExecutionSettings, n_batches: int) -> Cluster:
    """Start or join the cluster that ``settings`` ask for. Raises ``ConfigError`` when a scheduler does not
    answer."""
    dask.config.set(DASK_SETTINGS | {"distributed.scheduler.allowed-failures": settings.allowed_failures})
    if settings.scheduler or settings.scheduler_file:
        return _join(settings)
    dashboard = _dashboard_address(settings.dashboard)
    if settings.cluster in ("auto", "cuda"):
        gpus, why = _gpus()
        if gpus:
            if settings.max_workers:
                raise ConfigError(
                    f"--workers {settings.workers}:{settings.max_workers}, but the cards of a machine are "
                    "there all the time: give one number, or --cluster local."
                )
            mixed = _mixed_cuda()
            if mixed and settings.cluster == "cuda":
                raise ConfigError(f"--cluster cuda, but {mixed}")
            return _on_gpus(settings, gpus, dashboard, mixed)
        if settings.cluster == "cuda":
            raise ConfigError(f"--cluster cuda, but {why}. Use --cluster local for the CPU.")
    else:
        why = "as asked"
    return _on_cpu(settings, n_batches, dashboard, why)


def _join(settings: ExecutionSettings) -> Cluster:
    where, client = settings.scheduler or settings.scheduler_file, None
    try:
        if settings.scheduler:
            client = Client(settings.scheduler, timeout=CONNECT_TIMEOUT)
        else:
            client = Client(scheduler_file=settings.scheduler_file, timeout=CONNECT_TIMEOUT)
        wake = client.submit(int, pure=False)  # an adaptive cluster starts workers for work alone
        client.wait_for_workers(max(1, settings.workers), timeout=WORKERS_TIMEOUT_S)
        wake.release()
    except (OSError, TimeoutError, ValueError) as err:
        if client is not None:
            client.close()
        raise ConfigError(
            f"Scheduler {where}: {err or type(err).__name__}. Check that it runs, that this machine "
            "reaches it, and that its workers have started."
        ) from err
    found = client.scheduler_info(n_workers=-1)
    line = f"cluster: {len(found['workers'])} workers of the scheduler at {found['address']} (given)"
    return Cluster(client, None, line)


def _on_gpus(settings: ExecutionSettings, gpus: int, dashboard: str, mixed: str = "") -> Cluster:
    n = min(settings.workers or gpus, gpus)
    try:
        if mixed:
            raise ConfigError(mixed)
        from dask_cuda import LocalCUDACluster

        cluster = LocalCUDACluster(
            n_workers=n,
            threads_per_worker=GPU_THREADS,
            host=HERE,
            dashboard_address=dashboard,
            worker_dashboard_address=_of_workers(dashboard),
        )
        return Cluster(Client(cluster), cluster, f"cluster: LocalCUDACluster, {n} GPUs, one process each")
    except Exception as err:  # it fails in many ways (not installed, no NVML, ...) with one remedy
        reason = f"dask-cuda is not usable: {type(err).__name__}: {err}".splitlines()[0][:150]
    cluster = SpecCluster(
        scheduler={"cls": Scheduler, "options": {"host": HERE, "dashboard_address": dashboard}},
        workers={
            i: {
                "cls": Nanny,
                "options": {
                    "nthreads": GPU_THREADS,
                    "host": HERE,
                    "dashboard_address": _of_workers(dashboard),
                    "env": {"CUDA_VISIBLE_DEVICES": _visible(i)},
                },
            }
            for i in range(n)
        },
    )
    return Cluster(Client(cluster), cluster, f"cluster: {n} GPUs, one pinned process each ({reason})")


def _on_cpu(settings: ExecutionSettings, n_batches: int, dashboard: str, why: str) -> Cluster:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n = settings.workers or (1 if settings.max_workers else max(1, min(cores // settings.threads, n_batches)))
    cluster = LocalCluster(
        n_workers=n,
        silence_logs=logging.ERROR,
        threads_per_worker=1,
        processes=True,
        host=HERE,
        dashboard_address=dashboard,
        worker_dashboard_address=_of_workers(dashboard),
    )
    threads = count(settings.threads, "compute thread")
    if settings.max_workers:
        how = ADAPTIVE | {"minimum": n, "maximum": settings.max_workers}
        cluster.adapt(**how)
        text = f"cluster: local, {n} to {settings.max_workers} CPU processes as there is work, with {threads}"
        return Cluster(Client(cluster), cluster, f"{text} each ({why})", how)
    text = f"cluster: local, {count(n, 'CPU process')} with {threads} each ({why})"
    return Cluster(Client(cluster), cluster, text)


def _gpus() -> tuple[int, str]:
    """Number of usable GPUs, or 0 and why."""
    if not torch.backends.cuda.is_built():
        return 0, "this PyTorch is built without CUDA"
    try:
        count = torch.cuda.device_count()
    except RuntimeError as err:
        return 0, f"CUDA does not work: {err}"
    return (count, "") if count else (0, "no GPU is visible")


def _mixed_cuda() -> str:
    """What to do about a dask-cuda of another CUDA than PyTorch's; '' where there is no such mix."""
    torch_has = (torch.version.cuda or "").split(".")[0]
    try:
        other = version("cuda-bindings").split(".")[0]
    except PackageNotFoundError:
        return ""
    if not torch_has or other == torch_has:
        return ""
    extra = {"12": "cuda12", "13": "cuda"}.get(torch_has)
    remedy = f'`pip install "galbatch[{extra}]"`' if extra else "Install a PyTorch of CUDA 12 or 13"
    return f"PyTorch is built for CUDA {torch_has} and dask-cuda for CUDA {other}. {remedy} mends it."


def _visible(number: int) -> str:
    """The name of the n-th GPU that this process may use."""
    names = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n]
    return names[number] if number < len(names) else str(number)


def _dashboard_address(asked: str) -> str:
    """HOST:PORT of the dashboard: of this machine alone unless another host is named, Dask's usual port if
    nobody has it and none is named."""
    host, _, port = asked.rpartition(":")
    host = host or HERE
    if port not in ("", "0"):
        return f"{host}:{port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, 8787))
        except OSError:
            return f"{host}:0"
    return f"{host}:8787"


def _of_workers(dashboard: str) -> str:
    """Where workers serve their metrics: the host of the dashboard, any port."""
    return f"{dashboard.rpartition(':')[0]}:0"
