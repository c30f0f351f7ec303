"""Networks side by side: held-out loss against FLOP, for the same stamps in the same order.

    python benchmarks/science/loss_flop.py --out FOLDER [--galaxies 2000] [--steps 1200] [--networks NAME ...]

Each of ``NETWORKS`` is trained from scratch on simulated galaxies (made in the folder at the first call) as
`galbatch train` does it, all on the same ``--steps`` batches of 48 stamps: enough to rank shapes of one cost,
not to know what they end at. One JSON line each: GFLOP of a pass over 64 x 64 pixels; parameters; CPU seconds
of a pass in float32; held-out loss (mean squared error over sigma^2) by noise level; and the geometric mean
of its ratio to the first network's over the levels at which galaxies are made (0.015 to 0.5).
"""

import argparse
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from galbatch.prior.network import Denoiser, NetworkConfig
from galbatch.training.fit import fit, load_config

CONFIG = Path("galbatch/training/configs/small-quick.toml")
NETWORKS = {
    "small": ([32, 96, 144], [1, 1, 2]),
    "shallow": ([32, 104, 168], [1, 1, 1]),
    "deep": ([28, 72, 104], [1, 2, 4]),
    "more at an eighth": ([24, 80, 160], [1, 1, 3]),
    "more at a half": ([46, 84, 112], [1, 1, 2]),
    "middle": ([48, 144, 216], [1, 1, 2]),
}
LEVELS = ("0.015", "0.05", "0.15", "0.5")


def cost(config: NetworkConfig) -> dict[str, float]:
    """GFLOP and seconds of a pass over one image of 64 x 64 pixels, and parameters."""
    network = Denoiser(config).eval()
    x, sigma = torch.randn(8, 1, 64, 64), torch.full((8,), 0.3)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, sigma)
    spent = []
    with torch.inference_mode():
        for _ in range(12):
            start = time.process_time()
            network(x, sigma)
            spent.append(time.process_time() - start)
    return {
        "gflop": round(counter.get_total_flops() / 8e9, 3),
        "millions": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
        "seconds": round(sorted(spent)[6] / 8, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--galaxies", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulated = options.out / "simulated"
    if not simulated.is_dir():
        call = [
            "simulate",
            "galaxies",
            "--n",
            str(options.galaxies),
            "--seed",
            "103",
            "--out",
            str(simulated),
        ]
        subprocess.run([sys.executable, "-m", "galbatch", *call], check=True)
    plan = load_config(CONFIG, options.out)
    plan = replace(plan, data=plan.data[:1])  # simulated ones alone
    training = replace(plan.training, steps=options.steps, batch=48, validate_every=options.steps)
    first: dict[str, float] = {}
    for name in options.networks:
        widths, blocks = NETWORKS[name]
        network = replace(plan.network, widths=widths, blocks=blocks)
        row = {"benchmark": "loss_flop", "network": name, "widths": widths, "blocks": blocks, **cost(network)}
        trainer = fit(replace(plan, network=network, training=training), options.out / name.replace(" ", "-"))
        found = json.loads((trainer.folder / "log.jsonl").read_text().splitlines()[-1])
        loss = found["held_out"]
        first = first or loss
        ratio = math.exp(sum(math.log(loss[s] / first[s]) for s in LEVELS) / len(LEVELS))
        stamps = options.steps * training.batch
        row |= {"stamps": stamps, "loss": {s: round(v, 6) for s, v in loss.items()}, "ratio": round(ratio, 3)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
