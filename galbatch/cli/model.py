"""``galbatch model``: list, describe, convert, evaluate or calibrate a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from galbatch.cli.options import FILE, FOLDER, KNOWN_FILE, MODE

WHICH = click.argument("model", metavar="[MODEL]", default="auto")


@click.group(name="model")
def command() -> None:
    """List the shipped models; describe, convert, evaluate or calibrate one.

    MODEL is small, base, a model folder, or auto: base with a CUDA card, else small.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per model.")
def list_models(as_json: bool) -> None:
    """The shipped models: size, what a draw costs on this machine (measured now), how often the truth was in
    the 68% intervals of galaxies never seen, and which is taken by itself here."""
    from galbatch.bench.models import model_rows

    rows = []
    for row in model_rows():
        rows.append(row)
        if as_json:
            click.echo(json.dumps(row))
    if not as_json:
        _print_list(rows)


def _print_list(rows: list[dict]) -> None:
    from rich.table import Table

    from galbatch.cli.progress import wide_console

    within = list(rows[0]["within_68"])
    table = Table("model", "parameters", "MB", "s per draw", "auto", *within, "calibrated (galaxies)")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            f"{row['seconds_per_draw']:.2g}",
            "here" if row["auto"] else "",
            *(f"{100 * share:.0f}" for share in row["within_68"].values()),
            ", ".join(f"{mode} ({n})" for mode, n in row["calibrated"].items()) or "no",
        )
    console = wide_console()
    console.print(table)
    tried = "; ".join(
        f"{row['name']}: {row['validated']:.0f} galaxies, {row['evaluations']:.0f} evaluations per draw"
        for row in rows
    )
    console.print(
        "s per draw: the network alone, for a stamp of 64 pixels in mode default, measured now on "
        f"{rows[0]['device']}, in seconds of one core or card. {', '.join(within)}: per cent of the truths "
        f"inside the 68% intervals of the draws ({tried}; more in "
        "validation.json beside the weights). calibrated: modes whose intervals p16 to p84 are calibrated.",
        highlight=False,
    )


@command.command("info")
@WHICH
@click.option("--json", "as_json", is_flag=True, help="The whole card as JSON.")
def info(model: str, as_json: bool) -> None:
    """Print what the card of a model says, after checking the weights against it."""
    from dataclasses import asdict

    from galbatch.prior import choose_model, load_prior

    prior = load_prior(choose_model(model), device="cpu", backend="eager")
    card = prior.card
    if as_json:
        click.echo(json.dumps(asdict(card), indent=1))
        return
    size = sum(p.numel() for p in prior.model.parameters())
    rows = {
        "name": card.name,
        "parameters": f"{size:,}",
        "network": card.network,
        "target PSF": f"{card.target_fwhm_pix} px FWHM",
        "flux convention": card.flux_convention,
        "sigma": f"{card.sigma_min} to {card.sigma_max}",
        "max sd": f"{card.max_sd:.3f}",
        "margin": f"{card.margin_pix} px",
        "sizes": f"multiples of {card.multiple_of}",
        "bands": f"one by one, or up to {card.joint} together" if card.joint else "one by one",
        "sha256": card.sha256,
        "training": card.training,
    }
    for name, value in rows.items():
        click.echo(f"{name:16} {value}")
    for entry in card.data:
        click.echo(f"data             {entry}")
    for limit in card.limits:
        click.echo(f"limit            {limit}")


@command.command("export")
@WHICH
@click.option(
    "--to",
    "kind",
    type=click.Choice(["torchscript", "pt2"]),
    default="torchscript",
    help="model.ts or model.pt2.",
)
@click.option("--out", type=FILE, help="File to write; without it, in the model folder.")
def export(model: str, kind: str, out: Path | None) -> None:
    """Write the network of a model folder as a file that runs without galbatch (float32, CPU).

    It maps (x (b, 1, H, W), sigma (b,)) to the denoised images. The sigma correction of the card is not in
    it.
    """
    from galbatch.prior.compile import write_export
    from galbatch.prior.folder import choose_model, model_folder
    from galbatch.prior.model import load_prior

    prior = load_prior(choose_model(model), device="cpu", backend="eager")
    target = out or model_folder(model) / {"torchscript": "model.ts", "pt2": "model.pt2"}[kind]
    write_export(prior.model, kind, target)
    click.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


@command.command("evaluate")
@WHICH
@click.option(
    "--library",
    type=KNOWN_FILE,
    required=True,
    help="Held-out images: library-held-out.npz of a training folder.",
)
@click.option("--train-library", type=KNOWN_FILE, help="library-train.npz, for the nearest-neighbour check.")
@click.option("--stamps", "n_stamps", type=click.IntRange(8), default=256, help="Stamps per noise level.")
@click.option("--samples", "n_samples", type=click.IntRange(0), default=64, help="Unconditional samples.")
@click.option(
    "--out", type=FOLDER, default=Path("evaluation"), help="Folder for evaluation.json and pictures."
)
def evaluate(
    model: str, library: Path, train_library: Path | None, n_stamps: int, n_samples: int, out: Path
) -> None:
    """Measure a model on galaxies it has never seen: loss by noise level against a Wiener filter and
    wavelets, bias, calibration of its sigma, and unconditional samples against held-out galaxies."""
    from galbatch.morphology import measure
    from galbatch.prior import load_prior
    from galbatch.training.evaluate import evaluate_prior

    result = evaluate_prior(load_prior(model), library, out, train_library, n_stamps, n_samples, measure)
    for row in result["denoising"]:
        click.echo("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
    click.echo(f"{out / 'evaluation.json'} and pictures written")


@command.command("calibrate")
@WHICH
@click.option("--galaxies", "-n", default=640, type=click.IntRange(64), help="Simulated galaxies.")
@click.option("--draws", default=16, type=click.IntRange(8), help="Draws of each.")
@MODE
@click.option("--joint", is_flag=True, help="Of bands together: galaxies in 2, 4 and 7 bands, and colours.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --joint: a folder for what is measured of each galaxy; the same command goes on there.",
)
@click.option("--out", type=FILE, help="File to write; without it, calibration.json in the model folder.")
def calibrate_model(
    model: str, galaxies: int, draws: int, mode: str, joint: bool, keep: Path | None, out: Path | None
) -> None:
    """Measure how far percentiles of draws are from those of the truth, for the columns p16, p50 and p84.

    Simulated galaxies that neither training nor `galbatch validate` uses are observed and sampled; runs with
    this model and mode then have calibrated percentiles beside those of the draws.
    """
    from galbatch.cli.progress import counted
    from galbatch.prior.folder import CALIBRATION, model_folder
    from galbatch.prior.model import load_prior
    from galbatch.validate.calibrate import calibrate, write_calibration
    from galbatch.validate.joint import calibrate_joint

    if keep is not None and not joint:
        raise click.UsageError("--keep goes with --joint.")
    prior = load_prior(model)
    if joint and not prior.spec.joint:
        raise click.UsageError(f"model {model} sees one band at a time: leave --joint out.")
    with counted(galaxies, "galaxies") as more:
        if joint:
            table = calibrate_joint(prior, galaxies, draws, mode, lambda done, total: more(), keep)
            mode = f"{mode} joint"
        else:
            table = calibrate(prior, galaxies, draws, mode, lambda done, total: more())
    for name, numbers in (table["quantities"] | table.get("color", {})).items():
        drawn, fitted = (
            "{:5.1f} +- {:.1f}%".format(*(100 * v for v in numbers[k]))
            for k in ("draws_coverage", "coverage")
        )
        click.echo(f"{name:18} truth within raw16 to raw84 {drawn}, within p16 to p84 {fitted}")
    target = out or model_folder(model) / CALIBRATION
    write_calibration(target, mode, table, prior.card.sha256)
    click.echo(f"{target} written")
