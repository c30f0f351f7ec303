"""``galbatch validate``: calibration and accuracy of a model on held-out truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from galbatch.cli.options import MODE, MODEL, PRECISION
from galbatch.cli.progress import counted, wide_console

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@MODEL
@click.option(
    "--galaxies",
    "-n",
    type=click.IntRange(min=1),
    help="Held-out galaxies, or real images  [default: 256, or all real ones].",
)
@click.option(
    "--truth",
    type=click.Choice(["simulated", "real"]),
    default="simulated",
    help="Galaxies of the simulator, or TNG50 and HST images that never train.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    help="For --truth real: the folder of the real images (tng/, hst_galaxies/).",
)
@click.option("--draws", default=15, help="Posterior draws of each.")
@MODE
@PRECISION
@click.option("--correlated", is_flag=True, help="Drizzle-like correlated noise instead of white.")
@click.option("--seed", default=0, help="Seed of all random numbers.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("validation"),
    help="Folder for validation.json and calibration.png.",
)
def command(
    model: str,
    galaxies: int,
    truth: str,
    data: Path,
    draws: int,
    mode: str,
    precision: str,
    correlated: bool,
    seed: int,
    out: Path,
) -> None:
    """Test calibration and accuracy on held-out truth.

    Simulated galaxies that no prior was trained on are observed with different PSFs, sizes and S/N of 3 to
    300 and sampled; the table says how often the truth lies in the 50, 68, 90 and 95% intervals of pixels,
    Fourier modes, flux and morphology, with errors from a bootstrap over galaxies. With --truth real the
    galaxies are TNG50 and HST images that the shipped models were not trained on, each at S/N 10, 50 and 300,
    compared inside their segment. Exit code 3 when a target is missed.
    """
    import json

    from galbatch.prior import load_prior
    from galbatch.validate import make_mocks, make_real, run_study, verdict
    from galbatch.validate.verdict import calibration_figure

    console = wide_console()
    prior = load_prior(model, precision=precision)
    if truth == "real":
        mocks = make_real(prior, data, galaxies, correlated=correlated)
    else:
        mocks = make_mocks(prior, galaxies or 256, correlated=correlated)
    with counted(len(mocks.image), "galaxies") as done:
        study = run_study(prior, mocks, draws, mode, seed, lambda n, total: done())
    checks = verdict(study)
    out.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {
        "model": prior.spec.name,
        "sha256": prior.spec.sha256,
        "mode": mode,
        "precision": prior.precision,
    }
    how |= {"truth": truth, "correlated": correlated}
    (out / "validation.json").write_text(json.dumps({**study.to_dict(), "checks": checks, **how}, indent=1))
    calibration_figure(study, out / "calibration.png")
    console.print(f"model {prior.spec.name}, mode {mode}, {prior.precision}", highlight=False)
    _print(console, study, checks)
    console.print(f"wrote {out / 'validation.json'} and {out / 'calibration.png'}")
    raise SystemExit(0 if all(c["passed"] for c in checks) else 3)


def _print(console: Console, study: Any, checks: Any) -> None:
    from rich.table import Table

    table = Table("what", "bin", "galaxies", *(f"{level:.0%}" for level in study.numbers["levels"]))
    for row in study.rows:
        cells = [f"{100 * v:.1f} ± {100 * e:.1f}" for v, e in zip(row["coverage"], row["error"], strict=True)]
        table.add_row(row["what"], row["bin"], str(row["n"]), *cells)
    console.print(table)
    if study.intervals:
        _print_intervals(console, study.intervals)
    for name, value in study.numbers.items():
        if isinstance(value, float):
            console.print(f"{name} = {value:.4g}", highlight=False)
    missed = [c for c in checks if not c["passed"]]
    outside = [c for c in checks if not c["inside"]]
    console.print(
        f"[bold]{'PASS' if not missed else 'FAIL'}[/]: {len(checks) - len(missed)} of {len(checks)} "
        "checks passed; "
        f"{len(outside)} outside the target before their error bar is allowed for"
    )
    for check in missed:
        console.print(
            f"  missed: {check['name']} = {check['value']:.3f} ± {check['error']:.3f}, "
            f"target {check['target']}",
            highlight=False,
            markup=False,
        )


def _print_intervals(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("column", "galaxies", "raw16 to raw84", "p16 to p84", "below p50")
    for row in rows:
        cells = [
            f"{100 * v:.1f} ± {100 * e:.1f}" for v, e in (row["draws"], row["calibrated"], row["below_p50"])
        ]
        table.add_row(row["what"], str(row["n"]), *cells)
    console.print(table)
