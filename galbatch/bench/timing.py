"""Timing that can be trusted: warm-up, repeats, the median, and what the machine was."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import galbatch


def repeat(
    work: Callable[[], object], least_s: float = 0.5, fewest: int = 3, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Median, minimum and maximum wall seconds of ``work()`` after one warm-up, its CPU seconds, and CPU
    seconds per wall second. On a machine that others use too, ``min_s`` and ``cpu_s`` are what the work
    itself takes."""
    work()
    _wait(device)
    times: list[float] = []
    start, cpu = time.perf_counter(), time.process_time()
    while len(times) < fewest or time.perf_counter() - start < least_s:
        begin = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - begin)
    used, took = time.process_time() - cpu, time.perf_counter() - start
    return {
        "median_s": float(np.median(times)),
        "min_s": min(times),
        "max_s": max(times),
        "cpu_s": used / len(times),
        "cores_used": used / took,
    }


def row(kernel: str, unit: str, count: float, timing: dict[str, float], correct: bool, **more: Any) -> dict:
    """One line of a table: ``count`` units per call; ``rate`` per second by the median call, ``best`` by the
    fastest, ``per_core`` per second of CPU time, which other people's work on the machine does not change."""
    rates = {
        "rate": count / timing["median_s"],
        "best": count / timing["min_s"],
        "per_core": count / max(timing["cpu_s"], 1e-9),
    }
    return {"kernel": kernel, "unit": unit, **rates, "correct": bool(correct), **timing, **more}


def _wait(device: torch.device | str) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def environment(device: torch.device | str = "cpu") -> dict:
    """Versions, device, threads, load and commit: what a figure must be read with."""
    name = platform.processor() or platform.machine()
    if str(device).startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        except (OSError, StopIteration):
            pass
    return {
        "galbatch": galbatch.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
    }


def arguments(doc: str | None, out: Path | type[Path] = Path, **defaults: Any) -> argparse.Namespace:
    """Options of a script that measures: ``--name`` for each keyword, of the kind of its default. False is a
    switch, True one that can be switched off, a list several values; a type has no default. ``--out``: the
    file to which ``keep`` appends."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (defaults | {"out": out}).items():
        many = isinstance(default, list)
        one = default[0] if many else default
        how: dict[str, Any] = (
            {"type": one} if isinstance(one, type) else {"type": type(one), "default": default}
        )
        if isinstance(default, bool):
            how = {"action": argparse.BooleanOptionalAction, "default": default}
        if many:
            how["nargs"] = "*"
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    return parser.parse_args()


def keep(found: dict, out: Path | None) -> None:
    """Print what was measured; append it to the file ``out``, a line of JSON, if there is one."""
    print(json.dumps(found), flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
