"""Where the time of a draw goes: torch's profiler over one call of ``sample_posterior``.

python benchmarks/throughput/profile_draw.py [--device cpu] [--mode default] [--noise white]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from galbatch.bench.operators import DRAWS, example
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--noise", default="white", choices=["white", "correlated"])
    parser.add_argument("--rows", type=int, default=25)
    options = parser.parse_args()
    prior = load_prior(device=options.device)
    obs = example(np.random.default_rng(0), options.noise == "correlated")
    sample_posterior(prior, obs, draws=DRAWS, mode=options.mode)  # compile and allocate
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (prior.device.type == "cuda")
    with profile(activities=kinds) as watch:
        sample_posterior(prior, obs, draws=DRAWS, mode=options.mode)
        if prior.device.type == "cuda":
            torch.cuda.synchronize()
    by = "self_cuda_time_total" if prior.device.type == "cuda" else "self_cpu_time_total"
    print(watch.key_averages().table(sort_by=by, row_limit=options.rows, max_name_column_width=50))


if __name__ == "__main__":
    main()
