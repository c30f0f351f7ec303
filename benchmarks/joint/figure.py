"""The figure "four bands observed, truth, separate, joint" of one source of benchmarks/joint/run.py.

python benchmarks/joint/figure.py --simulated simulated7 --data ../shared/data --source 2 --out joint.png
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from run import STAMP, sources

import galbatch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--source", type=int, default=2)
    parser.add_argument("--n", type=int, default=10, help="as in run.py: the sources depend on it")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    prior = galbatch.load_prior("small")
    m = prior.spec.margin_pix
    i, _, truth, _, waves, obs, sn = next(
        found for found in sources(args, prior, "simulated 4") if found[0] == args.source
    )
    rows = {"observed": obs.data[0], "truth": truth[:, m : m + STAMP, m : m + STAMP]}
    for name, joint in (("separate", False), ("joint", True)):
        call = {"draws": 12, "mode": "default", "source_ids": [i], "joint": joint, "wavelengths": waves}
        rows[name] = galbatch.sample_posterior(prior, obs, **call).mean[0]
    fig, axes = plt.subplots(4, 4, figsize=(7, 7.2), layout="constrained")
    for axis_row, (name, images) in zip(axes, rows.items(), strict=True):
        for c, (axis, image) in enumerate(zip(axis_row, images, strict=True)):
            top = rows["truth"][c].max()
            axis.imshow(
                np.arcsinh(image / (0.03 * top)),
                origin="lower",
                cmap="inferno",
                vmin=-0.5,
                vmax=np.arcsinh(33),
            )
            axis.set(xticks=[], yticks=[])
            if name == "observed":
                axis.set_title(f"{waves[c]:.2f} µm, S/N {sn[c]:.0f}", fontsize=8)
            elif name != "truth":
                truth_c = rows["truth"][c]
                nmse = ((image - truth_c) ** 2).sum() / (truth_c**2).sum()
                axis.set_xlabel(f"NMSE {nmse:.4f}", fontsize=7)
        axis_row[0].set_ylabel(name, fontsize=9)
    fig.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
