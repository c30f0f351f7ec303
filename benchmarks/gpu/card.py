"""The steps of card.sh, in order of value: each leaves one JSON line in card.jsonl, and is skipped when it
has one. What they do is in ``card_steps``."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from card_mocks import simulate_field
from card_steps import ROOT, Card, joint, process, profile, roofline, table, tests, train

STEPS = {  # name: (what it does, the most seconds it may take)
    "tests": (tests, 120),
    "table": (table, 200),
    "roofline": (roofline, 80),
    "profile": (profile, 45),
    "process": (process, 220),
    "train": (train, 60),
    "joint": (joint, 280),
}


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises ``TimeoutError`` when the block takes longer."""

    def late(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)} [default: all]")
    options = parser.parse_args()
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}: there are {', '.join(STEPS)}")
    budget = options.budget or (math.inf if options.dry_run else 690.0)
    begun, card = time.monotonic(), Card(options.scratch, options.dry_run)
    card.scratch.mkdir(parents=True, exist_ok=True)
    if not card.dry and not has_card():
        print("no CUDA card is visible: run this on a machine with one, or with --dry-run.", file=sys.stderr)
        return 2
    out = card.scratch if card.dry else options.out or ROOT / "benchmarks" / "results"
    path, bad = out / "card.jsonl", 0
    out.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    good = {line["step"] for line in done if "failed" not in line}
    wanted = options.steps or list(STEPS)
    if "process" in wanted and "process" not in good and not card.dry:
        card.ahead = simulate_field(card.scratch)
    for name in wanted:
        step, most = STEPS[name]
        if name in good:
            print(f"{name}: done before", flush=True)
            continue
        if time.monotonic() - begun + most > budget:
            print(
                f"{name}: left out, {most} s do not fit into what is left of {budget:.0f} s",
                flush=True,
            )
            continue
        start = time.monotonic()
        try:
            with contextlib.nullcontext() if card.dry else at_most(most):
                found = step(card)
        except Exception as err:  # the steps after it are still worth their time
            found, bad = {"failed": f"{type(err).__name__}: {err}"[:500]}, 1
        line = {
            "benchmark": "card",
            "step": name,
            "seconds_taken": time.monotonic() - start,
            **found,
            **machine(card),
        }
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name}: {json.dumps(found)[:300]}", flush=True)
    return bad


def has_card() -> bool:
    import torch

    return torch.cuda.is_available()


def machine(card: Card) -> dict:
    """Names and versions that a number must be read with; a dry run says that it measured nothing."""
    from galbatch.bench.timing import environment

    return environment(card.device) | (
        {"note": "dry run on a CPU: not measured on a GPU"} if card.dry else {}
    )


if __name__ == "__main__":
    sys.exit(main())
