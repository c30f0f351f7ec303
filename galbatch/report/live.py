"""A page of a run while it goes, for the browsers of this machine; the folder is read and never written.

``/`` is the page, ``/state.json`` what it asks for every few seconds, ``/picture/BAND/POSITION`` a strip.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any

from galbatch.errors import GalbatchError
from galbatch.flags import Level, names_of, quality_of
from galbatch.report.read import RunReader
from galbatch.report.small import StripPlan, encode_strip
from galbatch.run.inspect import snapshot
from galbatch.store import open_run
from galbatch.store.selection import GRADES

HERE = ("127.0.0.1", "localhost")  # names of this machine that a request may come under
PICTURES = 60  # sources shown, the latest
PLAN = StripPlan(64, 2, 75)
RULES = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


class LivePage(ThreadingHTTPServer):
    """Serves the run in a folder at ``url``; ``serve_forever`` runs until it is interrupted."""

    daemon_threads = True

    def __init__(self, run: str | Path, port: int = 0) -> None:
        self.run = Path(run)
        self._reading = Lock()  # one picture at a time: the run needs the cores
        self.picture = lru_cache(maxsize=1000)(self._picture)
        super().__init__((HERE[0], port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HERE[0]}:{self.server_port}/"

    def state(self) -> dict[str, Any]:
        """What the page shows: ``snapshot`` without paths and people, and the latest sources."""
        found = snapshot(self.run)
        shown = ("state", "sources", "planned", "ok", "flagged", "failed", "grades", "draws_per_s", "eta_s")
        about = {name: found[name] for name in (*shown, "latest", "bands", "flags")}
        return about | {
            "name": self.run.resolve().name,
            "panels": PLAN.titles,
            "cards": self._cards(found["recent"]),
        }

    def _cards(self, batches: list[int]) -> list[dict[str, Any]]:
        """Position, id, grade and grave flags of the sources of these batches, as many as are shown."""
        run, cards = open_run(self.run), []
        for batch in batches[: 1 + PICTURES // run.layout.batch]:
            start = batch * run.layout.batch
            for offset, source_id in enumerate(run.ids[start : start + run.layout.batch].tolist()):
                if (status := run.status(source_id)) == "pending":
                    continue
                flags = run.flags(source_id)
                grade = int(Level.BAD) if status == "failed" else int(quality_of(flags))
                reasons = names_of(flags, Level.CAUTION)
                about = {"at": start + offset, "id": str(source_id), "failed": status == "failed"}
                cards.append(about | {"grade": GRADES[grade], "reasons": reasons})
        return cards[:PICTURES]

    def _picture(self, band: str, position: int) -> bytes:
        """WebP strip of the source at a position of the store."""
        with self._reading:
            run = open_run(self.run)
            view = RunReader(run).view(run.ids[position].item(), band, PLAN.draws, lean=True)
            return base64.b64decode(encode_strip(view, PLAN))


class _Handler(BaseHTTPRequestHandler):
    server: LivePage

    def do_GET(self) -> None:
        """Answer with the page, its state, or a picture; 404 for all else."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        try:
            if host not in HERE:  # a page elsewhere whose name leads here must not read the run
                self._answer(403, "text/plain", b"")
            elif self.path == "/":
                page = files("galbatch.report").joinpath("templates", "live.html").read_bytes()
                self._answer(200, "text/html; charset=utf-8", page)
            elif self.path == "/state.json":
                self._answer(200, "application/json", json.dumps(self.server.state()).encode())
            else:
                _, kind, band, position = self.path.split("/")
                if kind != "picture":
                    raise ValueError(kind)
                self._answer(200, "image/webp", self.server.picture(band, int(position)))
        except (GalbatchError, ValueError, IndexError, OSError):
            self._answer(404, "text/plain", b"")

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": RULES}
        for name, text in (
            headers | {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        ).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""
