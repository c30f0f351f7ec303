"""The shipped models side by side: size, what a draw costs here, and how far their intervals hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from galbatch.bench.timing import repeat
from galbatch.prior import Prior, choose_model, load_prior
from galbatch.prior.folder import NAMES, model_folder

VALIDATION = "validation.json"
EVALUATIONS = 14  # per draw in mode default, about
HEADLINE = {
    "galaxy pixels": ("pixels", "footprint"),
    **{name: (name, "all") for name in ("flux", "r_half", "gini", "asymmetry")},
}
LEVEL = 0.68


def model_rows(seconds: float = 0.3) -> Iterator[dict]:
    """One row per shipped model.

    ``seconds_per_draw``: of the network alone, for a stamp of 64 pixels in mode default: its measured time
    per image (of one core, or of a card without compilation, where runs are faster) times ``EVALUATIONS``.
    ``within_68``: share of truths in the 68% interval, by quantity, of ``validated`` galaxies with
    ``evaluations`` per draw; ``calibrated``: mode -> galaxies of its table.
    """
    for name in NAMES:
        folder = model_folder(name)
        prior = load_prior(name, backend="auto" if not torch.cuda.is_available() else "eager")
        numbers, within = read_validation(folder)
        yield {
            "name": name,
            "auto": choose_model() == name,
            "parameters": sum(p.numel() for p in prior.model.parameters()),
            "megabytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6,
            "device": f"{prior.device}, {prior.precision}",
            "seconds_per_draw": seconds_per_image(prior, seconds) * EVALUATIONS,
            "validated": numbers["galaxies"],
            "evaluations": numbers["evaluations"],
            "within_68": within,
            "calibrated": {mode: table["galaxies"] for mode, table in prior.spec.calibration.items()},
        }


def seconds_per_image(prior: Prior, seconds: float) -> float:
    """What a full group of images of 64 pixels and their margin takes, over their number: seconds of a CPU
    core, which other people's work does not change, or of a card."""
    side = 64 + 2 * prior.spec.margin_pix
    side = -(-side // prior.spec.multiple_of) * prior.spec.multiple_of
    x = torch.ones(prior.micro_batch, 1, side, side, device=prior.device)
    sigma = torch.full((len(x),), 0.1, device=prior.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timing = repeat(lambda: prior.denoise(x, sigma), seconds, device=prior.device)
    finally:
        torch.set_num_threads(threads)
    return timing["cpu_s" if prior.device.type == "cpu" else "min_s"] / len(x)


def read_validation(folder: Path) -> tuple[dict, dict[str, float]]:
    """Numbers of a shipped model's ``validation.json``, and the share of truths within its 68% intervals by
    quantity."""
    study = json.loads((folder / VALIDATION).read_text())
    at = study["numbers"]["levels"].index(LEVEL)
    found = {(row["what"], row["bin"]): row["coverage"][at] for row in study["rows"]}
    return study["numbers"], {name: found[row] for name, row in HEADLINE.items()}
