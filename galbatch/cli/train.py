"""``galbatch train``: a prior from galaxy images, described by a TOML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from galbatch.cli.options import FILE, FOLDER
from galbatch.cli.progress import counted


@click.command(name="train")
@click.argument("config", type=FILE, required=False)
@click.option(
    "--from-run",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="In place of CONFIG: adapt the prior of this finished run to its own galaxies.",
)
@click.option("--steps", type=click.IntRange(1), default=400, help="With --from-run: steps of 48 stamps.")
@click.option(
    "--quality",
    type=click.IntRange(0, 2),
    default=0,
    help="With --from-run: the worst grade that is trained on.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Training folder; without it, <stem>.train beside the configuration or the run.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder that the file patterns are relative to; without it, that of the configuration.",
)
@click.option(
    "--stop-after",
    type=click.IntRange(1),
    help="Stop after this many more steps; repeat the command to go on.",
)
@click.option(
    "--stamps",
    "n_stamps",
    type=click.IntRange(16),
    default=512,
    help="Held-out stamps for the measurements on the card.",
)
def command(
    config: Path | None,
    from_run: Path | None,
    steps: int,
    quality: int,
    out: Path | None,
    data: Path | None,
    stop_after: int | None,
    n_stamps: int,
) -> None:
    """Train a prior from TNG/SKIRT files or simulated galaxies, as CONFIG (TOML) says.

    Repeating the command goes on from the last checkpoint. Several GPUs: torchrun --nproc-per-node N -m
    galbatch train CONFIG. A configuration to start from is galbatch/training/configs/small-quick.toml.

    With --from-run RUN the prior of a finished run is trained further on the draws of that run. It is written
    only if it is better on galaxies that it was not trained on: if it predicts one half of their exposure
    from the other better than before. The model folder is OUT/model.
    """
    if (config is None) == (from_run is None):
        raise click.UsageError("Give a configuration (TOML), or a run with --from-run.")
    if from_run is not None:
        _adapt(from_run, out, steps, quality, stop_after)
    elif config is not None:
        _train(config, out, data, stop_after, n_stamps)


def _adapt(run: Path, out: Path | None, steps: int, quality: int, stop_after: int | None) -> None:
    from galbatch.validate.adapt import adapt_to_run

    out = out or run.with_suffix(".train")
    with counted(steps, "steps") as done:
        found = adapt_to_run(run, out, steps, quality, _telling(done), stop_after)
    if found is None:
        click.echo(f"stopped; go on with: galbatch train --from-run {run} --steps {steps} --out {out}")
        return
    click.echo(
        f"halves of the exposure of {found['sources']} held-out galaxies: log density {found['gain']:+.4f} "
        f"+- {found['error']:.4f} per pixel; loss on held-out draws {found['loss']:.3f} times the old one"
    )
    click.echo(
        f"{out / 'model'}: written. Its intervals have no calibration yet: galbatch model calibrate "
        f"{out / 'model'}; then galbatch process ... --model {out / 'model'}"
    )


def _train(config: Path, out: Path | None, data: Path | None, stop_after: int | None, n_stamps: int) -> None:
    from galbatch.training.finish import finish, finish_joint
    from galbatch.training.fit import fit, load_config

    settings = load_config(config, data)
    out = out or config.with_suffix(".train")
    with counted(settings.training.steps, "steps") as done:
        trainer = fit(settings, out, _telling(done), stop_after)
    if trainer.rank:
        return
    if trainer.progress() < 1:
        click.echo(
            f"stopped at step {trainer.step} of {settings.training.steps}; "
            f"go on with: galbatch train {config} --out {out}"
        )
        return
    click.echo("measuring the card on held-out stamps ...")
    make = finish_joint if settings.training.bands else finish
    card = make(settings, out, out / "model", n_stamps=n_stamps)
    click.echo(f"{out / 'model'}: {trainer.step} steps, max_sd {card.max_sd:.2f}, sha256 {card.sha256[:12]}")


def _telling(done: Callable[..., None]) -> Callable[[dict], None]:
    """What a training calls after each step: it is counted, and held-out losses are printed."""
    at = 0
    told: dict = {}

    def tell(entry: dict) -> None:
        nonlocal at
        told.update(entry)  # the loss is looked at every few steps
        loss = f", loss {told['edm']:.4f}" if "edm" in told else ""
        done(entry["step"] - at, f"{loss}, {entry['elapsed_s']:.0f} s")
        at = entry["step"]
        if "held_out" in entry:
            losses = ", ".join(f"{s}: {v:.4f}" for s, v in entry["held_out"].items())
            click.echo(f"step {at}: held-out error / sigma^2 by sigma: {losses}", err=True)

    return tell
