"""The learning curve of trainings: python docs/training_figure.py FOLDER/log.jsonl [more ...] FIGURE.png

Held-out mean square error in units of sigma^2, by noise level, against stamps seen; several logs are joined.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH = 48  # of the shipped configuration


def main(*logs: str, figure: str) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    seen = 0
    for log in logs:
        with open(log) as file:
            lines = [json.loads(line) for line in file]
        for line in lines:
            for sigma, loss in line.get("held_out", {}).items():
                curves.setdefault(sigma, []).append(((seen + line["step"]) * BATCH / 1e3, loss))
        seen += lines[-1]["step"]
    plot, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for sigma, points in curves.items():
        axis.semilogy(*zip(*points, strict=True), label=f"{float(sigma):g}", marker=".", lw=1)
    axis.set(xlabel="thousand stamps seen", ylabel="held-out error / $\\sigma^2$")
    axis.legend(title="$\\sigma$", fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.grid(alpha=0.3)
    plot.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:-1], figure=sys.argv[-1])
