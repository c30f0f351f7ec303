"""Files over HTTP: resumed where they stopped, compared with the server's checksum, retried, written whole.

A file is collected in ``.NAME.part`` and renamed when it is complete; ``.NAME.part.json`` keeps the entity
tag that a resumed download must still match. The key of the user goes into one header, to the host it was
given for and its subdomains only, and appears in no message, file or log.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3

from galbatch.errors import InputError

T = TypeVar("T")

PASSING = (408, 425, 429, 500, 502, 503, 504)
BLOCK = 1 << 18


@dataclass
class Client:
    """GET with a key. ``base``: the root of the API; ``retries``: attempts after the first; ``wait_s``:
    before the first retry, doubled each time."""

    base: str
    key: str = field(repr=False)
    retries: int = 5
    wait_s: float = 1.0
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key.strip():
            raise InputError(
                "no usable API key: copy yours from https://www.tng-project.org/users/profile/ and set it in "
                "TNG_API_KEY, or in a file given with --key-file."
            )
        self.key = self.key.strip()
        self.pool = urllib3.PoolManager(timeout=urllib3.Timeout(self.timeout_s), retries=False)

    def get(self, url: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """One response, redirects followed, its body not yet read. Raises ``InputError`` on a final
        refusal, and ``Passing`` on what another attempt may cure."""
        first = url = urljoin(self.base, url)
        for _ in range(6):
            sent = {**(headers or {}), **({"API-Key": self.key} if self._trusted(url) else {})}
            try:
                reply = self.pool.request("GET", url, headers=sent, preload_content=False, redirect=False)
            except urllib3.exceptions.HTTPError as err:
                raise Passing(f"{first}: no answer ({type(err).__name__})") from err
            if reply.status not in (301, 302, 303, 307, 308):
                return self._checked(reply, first)
            reply.drain_conn()
            url = urljoin(url, reply.headers.get("Location", ""))
        raise InputError(f"{first}: more than 5 redirects: check the address of the API.")

    def attempt(self, action: Callable[[], T]) -> T:
        """``action()``, repeated while it raises ``Passing``; then ``InputError``."""
        left = self.retries
        while True:
            try:
                return action()
            except Passing as err:
                if not left:
                    raise InputError(
                        f"{err}; gave up after {self.retries + 1} attempts: what has arrived is kept, "
                        "repeat the command to go on."
                    ) from err
                self.sleep(err.after_s or self.wait_s * 2 ** (self.retries - left))
                left -= 1

    def json(self, url: str) -> dict[str, list[str]] | None:
        """The JSON document at ``url``."""

        def once() -> dict[str, list[str]] | None:
            reply = self.get(url)
            try:
                return json.loads(reply.read())
            except ValueError as err:
                raise InputError(
                    f"{urljoin(self.base, url)}: the answer is not JSON "
                    f"({reply.headers.get('Content-Type', 'no type')}): is this the address of the API?"
                ) from err
            except urllib3.exceptions.HTTPError as err:
                raise Passing(f"{url}: the connection broke ({type(err).__name__})") from err

        return self.attempt(once)

    def _trusted(self, url: str) -> bool:
        """Whether the key may go there: the API's own host, or a subdomain of its domain, never
        downgraded."""
        home, there = urlsplit(self.base), urlsplit(url)
        if home.scheme == "https" and there.scheme != "https":
            return False
        domain = (home.hostname or "").removeprefix("www.")
        return there.netloc == home.netloc or (there.hostname or "").endswith("." + domain)

    @staticmethod
    def _checked(reply: Any, url: str) -> Any:
        status = reply.status
        if status in (200, 206, 416):
            return reply
        reply.drain_conn()
        if status in (401, 403):
            raise InputError(
                f"{url}: the server refuses the API key (HTTP {status}): check TNG_API_KEY against "
                "https://www.tng-project.org/users/profile/ ."
            )
        if status == 404:
            raise InputError(f"{url}: not found (HTTP 404): check simulation, snapshot, view and subhalo.")
        if status in PASSING:
            after = reply.headers.get("Retry-After", "")
            raise Passing(f"{url}: HTTP {status}", float(after) if after.isdigit() else None)
        raise InputError(f"{url}: HTTP {status}: try again later, or report it to the data's publisher.")


class Passing(Exception):
    """A failure that another attempt may cure; ``after_s``: what the server asked to wait."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


def download(client: Client, url: str, target: Path, report: Callable[[int], None] | None = None) -> bool:
    """Fetch ``url`` to ``target``; False when it was there. ``report`` gets the bytes of each block. What
    has arrived when it fails stays beside ``target``, for the next attempt.

    Raises ``InputError`` when the server refuses, the checksum differs, or the disk is full.
    """
    target = Path(target)
    if target.exists():
        return False
    part = target.with_name(f".{target.name}.part")
    note = part.with_name(part.name + ".json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        client.attempt(lambda: _fetch(client, url, part, note, report))
        os.replace(part, target)
        note.unlink(missing_ok=True)
    except OSError as err:
        raise InputError(
            f"{target}: cannot be written ({err.strerror or err}): free space or choose another folder; "
            "what has arrived is kept, repeat the command to go on."
        ) from err
    return True


def _fetch(client: Client, url: str, part: Path, note: Path, report: Callable[..., Any] | None) -> None:
    """One attempt: ask for what is missing, append it, compare length and checksum."""
    have = part.stat().st_size if part.exists() and note.exists() else 0
    tag = json.loads(note.read_text()).get("tag", "") if have else ""
    headers = {"Range": f"bytes={have}-", **({"If-Range": tag} if tag else {})} if have and tag else {}
    reply = client.get(url, headers)
    if reply.status == 416 or not _continues(reply, have):
        part.unlink(missing_ok=True)
        if reply.status in (206, 416):  # not the piece that was asked for: begin again
            reply.drain_conn()
            raise Passing(f"{url}: the server cannot resume", 0.01)
        have = 0
    tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
    note.write_text(json.dumps({"tag": "" if tag.startswith("W/") else tag}))
    total = have + int(reply.headers["Content-Length"]) if "Content-Length" in reply.headers else None
    try:
        with part.open("ab" if have else "wb") as file:
            for block in reply.stream(BLOCK, decode_content=False):
                file.write(block)
                if report:
                    report(len(block))
    except urllib3.exceptions.HTTPError as err:
        raise Passing(f"{url}: the connection broke after {part.stat().st_size} bytes") from err
    _compare(reply, url, part, total)


def _continues(reply: Any, have: int) -> bool:
    """Whether the body is what follows the ``have`` bytes at hand (or everything, when there are none)."""
    if reply.status == 200:
        return have == 0
    return reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _compare(reply: Any, url: str, part: Path, total: int | None) -> None:
    size = part.stat().st_size
    if total is not None and size < total:
        raise Passing(f"{url}: {size} of {total} bytes arrived")
    for name, wanted in checksums(reply.headers):
        with part.open("rb") as file:
            found = hashlib.file_digest(file, name).digest()
        if found != wanted:
            part.unlink()
            raise Passing(
                f"{url}: {name} of the file is {found.hex()[:12]}..., the server says {wanted.hex()[:12]}..."
            )


def checksums(headers: Any) -> list[tuple[str, bytes]]:
    """(algorithm, digest) of the whole file that the headers state: Repr-Digest (RFC 9530), Digest (RFC
    3230) and, of a complete answer, Content-MD5 (RFC 1864)."""
    found = []
    stated = f"{headers.get('Repr-Digest', '')},{headers.get('Digest', '')}"
    if "Content-Range" not in headers and headers.get("Content-MD5"):
        stated += f",md5={headers['Content-MD5']}"
    for entry in stated.split(","):
        name, _, value = entry.strip().partition("=")
        algorithm = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}.get(name.lower())
        if algorithm and value:
            found.append((algorithm, base64.b64decode(value.strip(":"))))
    return found
