"""``galbatch fetch-tng``: simulated galaxy images of the IllustrisTNG project, with the user's own key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from galbatch.cli.options import FOLDER, KNOWN_FILE


@click.command(name="fetch-tng")
@click.argument("kind", type=click.Choice(["hsc-idealized", "hsc-realistic", "jwst", "sdss"]))
@click.option("--out", type=FOLDER, default=Path("tng"), help="Folder to fill; galbatch train reads it.")
@click.option("--sim", default="TNG50-1", help="Simulation.")
@click.option("--snapshot", type=int, help="72 to 91 for HSC, 95 or 99 for SDSS; without it, the latest.")
@click.option(
    "--view", type=click.Choice(["v0", "v1", "v2", "v3"]), default="v0", help="Camera of the HSC images."
)
@click.option(
    "--band", type=click.Choice(["f200w", "f356w"]), default="f200w", help="Band of the JWST images."
)
@click.option("--redshift", type=click.IntRange(3, 6), default=3, help="Redshift of the JWST images.")
@click.option(
    "--subhalo",
    "subhalos",
    type=click.IntRange(0),
    multiple=True,
    help="Only this galaxy (hsc-realistic; may be repeated).",
)
@click.option("--limit", type=click.IntRange(1), help="At most this many files.")
@click.option("--list", "list_only", is_flag=True, help="Print the addresses and fetch nothing.")
@click.option(
    "--key", envvar="TNG_API_KEY", show_envvar=True, help="Your API key; better in the environment."
)
@click.option("--key-file", type=KNOWN_FILE, help="File that holds your API key.")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=5,
    help="Further attempts when the server is busy or the connection breaks.",
)
@click.option("--api", default="https://www.tng-project.org/api/", help="Root of the API.")
def command(
    kind: str,
    out: Path,
    limit: int | None,
    list_only: bool,
    key: str | None,
    key_file: Path | None,
    retries: int,
    api: str,
    **which: Any,
) -> None:
    """Fetch noise-free TNG/SKIRT galaxy images for galbatch train.

    KIND is the survey that the images imitate. A stopped download goes on where it stopped: repeat the
    command. Archives are unpacked. The key is sent to the TNG project's servers only and is neither printed
    nor stored.
    """
    from galbatch.training.download import Client
    from galbatch.training.tng import Request, fetch, list_files

    request = Request(kind, **which)
    secret = key_file.read_text().strip() if key_file else key or ""
    client = Client(api.rstrip("/") + "/", secret, retries)
    if list_only:
        for url in list_files(client, request, limit):
            click.echo(url)
        return
    progress = _Progress()
    counts = fetch(client, request, out, limit, progress)
    progress.end()
    click.echo(f"{counts['fetched']} files fetched, {counts['there']} were there: {out}")


class _Progress:
    """The file at hand and its bytes on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self.live, self.name, self.bytes = sys.stderr.isatty(), "", 0

    def __call__(self, name: str, n: int) -> None:
        if name != self.name:
            self.end()
            self.name, self.bytes = name, 0
        self.bytes += n
        if self.live:
            click.echo(f"\r{name}: {self.bytes / 1e6:.1f} MB", nl=False, err=True)

    def end(self) -> None:
        if self.live and self.name:
            click.echo("", err=True)
