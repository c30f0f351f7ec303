"""What of the IllustrisTNG synthetic images to fetch, and fetching it: folders that ``galbatch train`` reads.

The addresses are those of the web API of the TNG project: lists of files per simulation, and single images
of one subhalo. A user's own key is needed (https://www.tng-project.org/users/register/).
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from galbatch.errors import ConfigError, InputError
from galbatch.training.download import Client, download

API = "https://www.tng-project.org/api/"
KINDS = ("hsc-idealized", "hsc-realistic", "jwst", "sdss")
ARCHIVES = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Request:
    """What to fetch. ``snapshot`` and ``view`` are for HSC (72 to 91, v0 to v3), ``snapshot`` 95 or 99 for
    SDSS, ``band`` (f200w, f356w) and ``redshift`` (3 to 6) for JWST. ``subhalos``: single galaxies, HSC
    realistic only."""

    kind: str
    sim: str = "TNG50-1"
    snapshot: int | None = None
    view: str = "v0"
    band: str = "f200w"
    redshift: int = 3
    subhalos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        allowed = {"hsc-idealized": range(72, 92), "hsc-realistic": range(72, 92), "sdss": (95, 99)}
        if self.kind not in KINDS:
            raise ConfigError(f"kind '{self.kind}': known are {', '.join(KINDS)}.")
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.sim):
            raise ConfigError(f"simulation '{self.sim}': a name such as TNG50-1 is expected.")
        if self.kind in allowed and self.number not in allowed[self.kind]:
            raise ConfigError(
                f"snapshot {self.number}: {self.kind} images exist for {_spell(allowed[self.kind])}; "
                "use --snapshot."
            )
        if self.subhalos and self.kind != "hsc-realistic":
            raise ConfigError(
                f"--subhalo: single galaxies are served for hsc-realistic only, not {self.kind}."
            )

    @property
    def number(self) -> int:
        """The snapshot asked for, or the latest of the kind."""
        return self.snapshot if self.snapshot is not None else {"sdss": 99}.get(self.kind, 91)


def _spell(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if len(numbers) > 2 else " and ".join(map(str, numbers))


def list_files(client: Client, request: Request, limit: int | None = None) -> list[str]:
    """Addresses of the files of a request, ``limit`` of them at most. Asks the server where it keeps
    lists."""
    r = request
    if r.subhalos:
        paths = [
            f"{r.sim}/snapshots/{r.number}/subhalos/{n}/skirt/skirt_images_hsc_realistic_{r.view}.fits"
            for n in r.subhalos
        ]
        return [client.base + path for path in paths][:limit]
    if r.kind == "jwst":
        return [f"{client.base}{r.sim}/files/skirt_images_jwst_{r.band}_z{r.redshift}.tar.gz"]
    if r.kind == "sdss":
        return [f"{client.base}{r.sim}/files/skirt_images_sdss.{r.number}.tar"]
    url = f"{client.base}{r.sim}/files/skirt_images_{r.kind.replace('-', '_')}_{r.view}_{r.number}/"
    listing = client.json(url)
    files = listing.get("files") if isinstance(listing, dict) else None
    if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
        raise InputError(
            f"{url}: no list of files in the answer: this API is not the one known; update galbatch."
        )
    return files[:limit]


def file_name(url: str, request: Request) -> str:
    """Where a file goes under the output folder; of one subhalo, with the number that its address holds."""
    name = unquote(urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1])
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"{url}: its file name '{name}' is not usable: fetch it by hand.")
    subhalo = re.search(r"/snapshots/(\d+)/subhalos/(\d+)/", url)
    if subhalo:
        return f"shalo_{int(subhalo[1]):03d}-{subhalo[2]}_{request.view}_HSC_GRIZY.fits"
    return name


def fetch(
    client: Client,
    request: Request,
    out: Path,
    limit: int | None = None,
    report: Callable[[str, int], None] | None = None,
) -> dict[str, int]:
    """Fetch everything of a request into ``out``; archives are unpacked into a folder of their name.

    ``report(file name, bytes)`` is called as data arrive. Returns how many files were ``fetched`` and how
    many were ``there``. Raises ``InputError`` at the first file that cannot be had; repeating goes on from
    there.
    """
    counts = {"fetched": 0, "there": 0}
    for url in list_files(client, request, limit):
        name = file_name(url, request)
        target = Path(out) / name
        folder = unpacked(target)
        if folder is not None and folder.is_dir():
            counts["there"] += 1
            continue
        new = download(client, url, target, partial(report, name) if report else None)
        if folder is not None:
            unpack(target, folder)
        elif new:
            check_fits(target)
        counts["fetched" if new or folder else "there"] += 1
    return counts


def unpacked(target: Path) -> Path | None:
    """The folder that an archive is unpacked to; None for a file that is no archive."""
    for suffix in sorted(ARCHIVES, key=len, reverse=True):
        if target.name.endswith(suffix):
            return target.with_name(target.name.removesuffix(suffix))
    return None


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One file into ``folder`` and nowhere else. Raises ``tarfile.TarError``."""
    if hasattr(tarfile, "data_filter"):
        tar.extract(member, folder, filter="data")
        return
    target = (folder / member.name).resolve()  # Python below 3.11.4
    content = tar.extractfile(member)
    if content is None or not target.is_relative_to(folder.resolve()):
        raise tarfile.ReadError(f"{member.name} is outside of the archive's folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, open(target, "wb") as file:
        shutil.copyfileobj(content, file)


def unpack(archive: Path, folder: Path) -> None:
    """FITS files of a tar archive into ``folder``, which appears when all are there; the archive then
    goes."""
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.isfile() and re.search(r"\.fits(\.gz)?$", m.name)]
            partial.mkdir(parents=True)
            for member in members:
                _extract(tar, member, partial)
    except (tarfile.TarError, EOFError, OSError, ValueError) as err:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(err, OSError) and err.errno is not None:
            raise InputError(
                f"{folder}: cannot be unpacked ({err.strerror}): free space; {archive.name} is kept, "
                "repeat the command."
            ) from err
        raise InputError(
            f"{archive}: not a whole tar archive ({err}): delete it and repeat the command."
        ) from err
    if not members:
        shutil.rmtree(partial)
        raise InputError(f"{archive}: holds no FITS file: look into it by hand.")
    os.replace(partial, folder)
    archive.unlink()


def check_fits(path: Path) -> None:
    """Raise ``InputError``, and remove the file, when it does not begin as FITS: a page that says no, for
    instance."""
    with path.open("rb") as file:
        begin = file.read(9)
    if begin[:2] == b"\x1f\x8b" or begin == b"SIMPLE  =":
        return
    path.unlink()
    raise InputError(
        f"{path}: what the server sent is not FITS (it begins with {begin!r}): check the request."
    )
