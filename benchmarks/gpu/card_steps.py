"""What card.sh measures.

tests: pytest -m gpu. table: draws per second by model, sources, noise, mode and size. roofline: both
networks. profile: where the time goes and how long the card is busy. process: a run of 2,000 sources in 2
bands under --cluster cuda, and its first sources on the CPU. train: stamps per second. joint: what lets base
see bands together, trained for two minutes; its model folder stays in the scratch folder.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from card_mocks import SOURCES, mocks, simulate_field

ROOT = Path(__file__).resolve().parents[2]
REPLAY = ("one by one", "CUDA graphs")


@dataclass
class Card:
    """Where and how large: everything that a step must know."""

    scratch: Path
    dry: bool
    device: str = field(init=False)
    ahead: subprocess.Popen | None = None  # the field of ``process``, made while the card does other things

    def __post_init__(self):
        self.device = "cpu" if self.dry else "cuda"

    def prior(self, name: str, **options):
        """A model on the card; the dry run has the small one for both."""
        from galbatch.prior import load_prior

        return load_prior("small" if self.dry else name, device=self.device, **options)

    def wait(self) -> None:
        """Until the card has done all that it was given."""
        if not self.dry:
            import torch

            torch.cuda.synchronize()

    def seconds(self, work, repeats: int = 1) -> float:
        """Per call of ``work``, which has run before."""
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - start) / repeats


def tests(card: Card) -> dict:
    """pytest -m gpu: passed, failed and skipped."""
    environment = os.environ | ({"GALBATCH_CARD": "cpu"} if card.dry else {})
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        "tests/gpu",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr[-300:]]
    return {
        "passed": done.returncode == 0,
        "said": lines[-1],
        "failures": [x for x in lines if "FAILED" in x],
    }


def combinations(card: Card) -> Iterator[tuple]:
    """(model, sources, noise, mode, pixels, replay) of the table, the most telling first."""
    noises, modes = ("white", "correlated", "mixed"), ("default", "fast")
    if card.dry:
        yield from [
            ("small", 2, "mixed", "fast", 24, REPLAY[0]),
            ("small", 1, "correlated", "fast", 24, REPLAY[1]),
        ]
        return
    for model in ("small", "base"):
        yield from ((model, 64, "white", "default", 64, replay) for replay in REPLAY)
        every = itertools.product((64, 16, 256), noises, modes)
        yield from ((model, *c, 64, REPLAY[1]) for c in every if c != (64, "white", "default"))
        yield from ((model, 64, *c, 128, REPLAY[1]) for c in itertools.product(noises, modes))
        yield from ((model, n, "mixed", "default", 64, REPLAY[0]) for n in (16, 64))


def table(card: Card) -> dict:
    """Draws per second; rows are kept in the scratch folder one by one, and not measured twice."""
    from galbatch.sampler.levels import Replayed, cuda_graph, one_by_one

    kept, priors, replays = card.scratch / "table.jsonl", {}, {}
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for name, n, noise, mode, size, replay in combinations(card):
        key = {"model": name, "sources": n, "noise": noise, "mode": mode, "pixels": size, "levels": replay}
        if any(row.items() >= key.items() for row in rows):
            continue
        if name not in priors:
            priors[name] = card.prior(name)
        prior, k = priors[name], 2 if card.dry else 16
        if replay == REPLAY[1] and name not in replays:
            replays[name] = Replayed(as_it_is if card.dry else cuda_graph)
        options = {"draws": k, "mode": mode, "replay": replays[name] if replay == REPLAY[1] else one_by_one}
        try:
            row = key | rate(card, prior, mocks(n, noise, size), options)
        except RuntimeError as err:  # a row that fails costs the others nothing
            row = key | {"failed": f"{type(err).__name__}: {err}"[:200]}
        rows.append(row)
        with kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return {"rows": rows}


def rate(card: Card, prior, obs, options: dict) -> dict:
    """Draws per second of the second call, which has nothing to compile, and what they are."""
    from galbatch.sampler import sample_posterior

    found = []
    first = card.seconds(lambda: sample_posterior(prior, obs, **options))
    took = card.seconds(lambda: found.append(sample_posterior(prior, obs, seed=1, **options)))
    return {
        "draws_per_s": len(obs.data) * options["draws"] / took,
        "first_s": first,
        "evaluations": float(found[0].n_evaluations.mean()),
        "chi2": float(np.median(found[0].chi2)),
    }


def as_it_is(function, inputs):
    """In the place of a CUDA graph."""
    outputs = function(*inputs)

    def again():
        for old, new in zip(outputs, function(*inputs), strict=True):
            old.copy_(new)

    return outputs, again


def roofline(card: Card) -> dict:
    """Images per second of both networks by backend, and the share of what the machine allows."""
    import torch
    from kernels import machine_table, roof_of, work_of

    out = {}
    for name in ("small", "base")[: 1 if card.dry else 2]:
        prior = card.prior(name, backend="eager")
        roof = roof_of(
            list(machine_table(prior.device, 0.02 if card.dry else 0.5, getattr(torch, prior.precision))),
            prior.device,
        )
        work, out[name] = work_of(prior, batch=2), {"gflops": roof.gflops, "gbytes": roof.gbytes}
        for backend in ("eager",) if card.dry else ("compile", "torchscript", "eager"):
            prior = card.prior(name, backend=backend)
            n, first, took = evaluated(card, prior)
            least = roof.seconds(work.flops * n, work.nbytes * n)
            out[name][backend] = {"images_per_s": n / took, "of_the_roof": least / took, "first_s": first}
    return out


def evaluated(card: Card, prior) -> tuple[int, float, float]:
    """Images per call, seconds of the first call and of a later one."""
    import torch

    x = torch.randn(prior.micro_batch, 1, 64, 64, device=prior.device)
    sigma = torch.full((len(x),), 0.1, device=prior.device)
    first = card.seconds(lambda: prior.denoise(x, sigma))
    return len(x), first, card.seconds(lambda: prior.denoise(x, sigma), 1 if card.dry else 20)


def profile(card: Card) -> dict:
    """The share of the wall clock in which the card is busy, launches per draw, and the longest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from galbatch.sampler import sample_posterior

    prior, obs, k = (
        card.prior("small"),
        mocks(1 if card.dry else 64, "mixed", 24 if card.dry else 64),
        2 if card.dry else 16,
    )
    mode = "fast" if card.dry else "default"
    sample_posterior(prior, obs, draws=k, mode=mode)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (not card.dry)
    with profiled(activities=kinds) as watch:
        wall = card.seconds(lambda: sample_posterior(prior, obs, draws=k, mode=mode))
    events = watch.key_averages()
    time_of = "self_cpu_time_total" if card.dry else "self_device_time_total"
    longest = sorted(events, key=lambda e: -getattr(e, time_of))[:15]
    busy = sum(getattr(e, time_of) for e in events) / 1e6
    launches = sum(e.count for e in events if "LaunchKernel" in e.key or "GraphLaunch" in e.key)
    return {
        "wall_s": wall,
        "busy": busy / wall,
        "launches_per_draw": launches / (len(obs.data) * k),
        "longest_ms": {e.key[:60]: getattr(e, time_of) / 1e3 for e in longest},
    }


def process(card: Card) -> dict:
    """A run on the card, and its first sources on the CPU (in a dry run, itself)."""
    import pyarrow.parquet as pq

    n, first = (1, 1) if card.dry else (SOURCES, 4)
    folder = ROOT / "catalogs" if card.dry else card.scratch
    if not card.dry:
        (card.ahead or simulate_field(card.scratch)).wait()
    options = ["--model", "small", "--precision", "float32", "--overwrite", "--quiet", "--no-dask-report"]
    options += ["--mode", "fast", "--draws", 2, "--stamp-pix", 32] if card.dry else []
    paths, took = [], []
    for cluster, limit in (("cuda", n), ("none", first))[: 1 if card.dry else 2]:
        paths.append(card.scratch / f"{cluster}.run")
        start = time.perf_counter()
        where = ["--cluster", "none" if card.dry else cluster, "--limit", limit, "--out", paths[-1]]
        galbatch(card, "process", folder / "demo.parquet", *where, *options, on_card=cluster == "cuda")
        took.append(time.perf_counter() - start)
    rows = [pq.read_table(path / "catalog.parquet").to_pylist() for path in paths]
    summary = json.loads((paths[0] / "summary.json").read_text())
    return {
        "sources": n,
        "bands": 2,
        "seconds": took[0],
        "sources_per_s": n / took[0],
        "summary": {k: summary[k] for k in ("elapsed_s", "stage_seconds", "draws")},
        "against_the_cpu": compared(rows[0], rows[-1]),
    }


def galbatch(card: Card, *arguments: object, on_card: bool = False) -> None:
    """The command, by itself, without the card unless it is meant to have it; in a dry run in this
    process."""
    words = [str(a) for a in arguments]
    if card.dry:
        from galbatch.cli.main import main as command

        code, said = command(words), ""
    else:
        environment = os.environ | ({} if on_card else {"CUDA_VISIBLE_DEVICES": ""})
        line = [sys.executable, "-m", "galbatch", *words]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        code, said = done.returncode, done.stderr[-400:]
    if code not in (0, 3):
        raise RuntimeError(f"galbatch {words[0]} ended with {code}: {said}")


def compared(card: list[dict], cpu: list[dict]) -> dict:
    """Of the medians of all statistics, in units of half the 68% interval: how far two runs are apart."""
    by_id, apart = {row["source_id"]: row for row in card}, []
    for row in cpu:
        other = by_id[row["source_id"]]
        for name in (n for n in row if "_p50_" in n and n.replace("p50", "p16") in row):
            low, high = (row[name.replace("p50", p)] for p in ("p16", "p84"))
            if None not in (low, high, other[name]) and high > low:
                apart.append(abs(row[name] - other[name]) / (0.5 * (high - low)))
    flags = sum(by_id[row["source_id"]]["flags"] == row["flags"] for row in cpu)
    apart = np.array(apart)[np.isfinite(apart)]
    return {"values": len(apart), "median": float(np.median(apart)), "p99": float(np.percentile(apart, 99)),
            "same_flags": flags / len(cpu)}  # fmt: skip


def train(card: Card) -> dict:
    """Stamps per second of the training of the small network, on simulated galaxies."""
    steps, batch, galaxies = (2, 2, 12) if card.dry else (60, 256, 64)
    config = (ROOT / "galbatch" / "training" / "configs" / "small-quick.toml").read_text()
    config = config.replace("batch = 32", f"batch = {batch}").replace("steps = 300", f"steps = {steps}")
    if card.dry:
        config = config.replace("[32, 96, 144]", "[8, 12, 16]").replace(
            "[72, 64, 80, 96]", "[32, 32, 32, 32]"
        )
    (card.scratch / "card.toml").write_text(config)
    if not list((card.scratch / "simulated").glob("*.fits")):
        where = card.scratch / "simulated"
        more = ["--npix", 64] if card.dry else []
        galbatch(card, "simulate", "galaxies", "--n", galaxies, "--seed", 101, "--out", where, *more)
    start = time.perf_counter()
    where = ["--data", card.scratch, "--out", card.scratch / "card.train", "--stop-after", steps - 1]
    galbatch(card, "train", card.scratch / "card.toml", *where, on_card=True)
    took = time.perf_counter() - start
    return {"steps": steps - 1, "seconds": took, "stamps_per_s_with_start": (steps - 1) * batch / took}


def joint(card: Card) -> dict:
    """Bands together on top of base (in a dry run, of small): losses beside those of each band by itself."""
    name, galaxies, stamps = ("small", 24, 16) if card.dry else ("base", 2000, 256)
    config = (ROOT / "galbatch" / "training" / "configs" / f"{name}-joint.toml").read_text()
    config = config.replace("../shared", str(ROOT / "shared")).replace("hours = 0.5", "hours = 0.033")
    if card.dry:
        config = config.replace("steps = 100000", "steps = 2").replace("[64, 48]", "[32, 32]")
        config = config[: config.index('origin = "tng50-sdss"')].rpartition("[[data]]")[0]
    (card.scratch / "joint.toml").write_text(config)
    out, more = card.scratch / "joint.train", ["--npix", 64] if card.dry else ["--jobs", os.cpu_count()]
    where = card.scratch / "simulated7"
    galbatch(
        card, "simulate", "galaxies", "--n", galaxies, "--seed", 201, "--bands", 7, "--out", where, *more
    )
    options = ["--data", card.scratch, "--out", out, "--stamps", stamps]
    galbatch(card, "train", card.scratch / "joint.toml", *options, on_card=True)
    told = json.loads((out / "model" / "card.json").read_text())
    alone, together = (told["metrics"]["joint"][key] for key in ("alone", "together"))
    done = told["training"]["joint"]
    return {
        "steps": done["steps"],
        "bands_per_s": done["stamps_seen"] / max(3600 * done["hours"], 1.0),
        "loss_over_separate": {key: together[key] / alone[key] for key in alone},
    }
