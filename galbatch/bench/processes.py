"""Processes against threads: how the cores of a machine are best given to the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

_CODE = """
import sys, time
model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
import torch
torch.set_num_threads(threads)
from galbatch.prior import load_prior
prior = load_prior(model, device="cpu")
x, sigma = torch.randn(16, 1, 72, 72), torch.linspace(0.01, 1, 16)
prior.denoise(x, sigma)
print("ready", flush=True)
sys.stdin.readline()
done, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    prior.denoise(x, sigma)
    done += len(x)
print(done / (time.perf_counter() - start), time.process_time(), flush=True)
"""


def process_table(model: str | None = None, cores: int = 2, seconds: float = 5.0) -> Iterator[dict]:
    """Images per second of ``p`` processes of ``t`` threads each, for every p * t = ``cores``, all at work at
    the same time; and of one process with one thread. ``model``: name or folder of a model."""
    splits = [
        (1, 1),
        *((p, cores // p) for p in range(1, cores + 1) if cores % p == 0 and (p, cores // p) != (1, 1)),
    ]
    alone = 0.0
    for processes, threads in splits:
        rates = _measure(processes, threads, str(model or "auto"), seconds)
        alone = alone or sum(rates)
        yield {
            "kernel": f"network, {processes} processes x {threads} threads",
            "unit": "image",
            "rate": sum(rates),
            "best": sum(rates),
            "correct": all(r > 0 for r in rates),
            "median_s": processes / sum(rates),
            "times_one": sum(rates) / alone,
        }


def _measure(processes: int, threads: int, model: str, seconds: float) -> list[float]:
    command = [sys.executable, "-c", _CODE, model, str(threads), str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    try:
        for child in children:
            if child.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a benchmark process ended with code {child.wait()} before it began")
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        return [float(child.stdout.readline().split()[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
