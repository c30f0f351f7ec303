"""``galbatch train``: a prior from galaxy images, described by a TOML file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click


@click.command(name="train")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Training folder; without it, <config stem>.train beside the configuration.",
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
    show_default=True,
    help="Held-out stamps for the measurements on the card.",
)
def command(config: Path, out: Path | None, data: Path | None, stop_after: int | None, n_stamps: int) -> None:
    """Train a prior from TNG/SKIRT files or simulated galaxies, as CONFIG (TOML) says.

    Repeating the command goes on from the last checkpoint. Several GPUs: torchrun --nproc-per-node N -m
    galbatch train CONFIG. The model folder is OUT/model. A configuration to start from is
    galbatch/training/configs/small-quick.toml.
    """
    from galbatch.training.finish import finish
    from galbatch.training.finish_joint import finish_joint
    from galbatch.training.fit import fit, load_config

    settings = load_config(config, data)
    out = out or config.with_suffix(".train")
    progress = Progress(settings.training.steps)
    trainer = fit(settings, out, progress, stop_after)
    if trainer.rank:
        return
    progress.close(trainer.step)
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


class Progress:
    """A live bar on a terminal; without one, a line every 30 s. Held-out losses are printed either way."""

    def __init__(self, steps: int) -> None:
        self.live = sys.stderr.isatty()
        self.bar = click.progressbar(length=steps, label="training", file=sys.stderr) if self.live else None
        self.steps, self.last, self.at = steps, time.monotonic(), 0

    def __call__(self, entry: dict) -> None:
        if self.bar is not None:
            self.bar.update(entry["step"] - self.at)
            self.at = entry["step"]
        elif time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            click.echo(
                f"step {entry['step']} of {self.steps}, loss {entry['edm']:.4f}, {entry['elapsed_s']:.0f} s",
                err=True,
            )
        if "held_out" in entry:
            losses = ", ".join(f"{s}: {v:.4f}" for s, v in entry["held_out"].items())
            click.echo(f"step {entry['step']}: held-out error / sigma^2 by sigma: {losses}", err=True)

    def close(self, step: int) -> None:
        """End the bar at ``step``."""
        if self.bar is not None:
            self.bar.update(step - self.at)
            self.bar.render_finish()
