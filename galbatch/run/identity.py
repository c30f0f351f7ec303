"""What a run is made from, as its manifest holds it: files and model, each with a hash."""

from __future__ import annotations

from typing import Any

from galbatch.interfaces import Denoiser
from galbatch.run.context import model_files
from galbatch.store import fingerprint, hash_json


def input_files(survey: Any, catalog: str, before: dict[str, Any]) -> list[dict[str, Any]]:
    """Identity of the catalogue, of every plane and PSF, and of the files of noise correlation.
    ``before``: the manifest of the run that goes on. Catalogue, PSFs and small files are read through each
    time."""
    planes = survey.inputs()
    known = {i["path"]: i for i in before.get("inputs", [])}
    tiles = [t for band in survey.config.bands for t in band.tiles]
    small = {catalog, *(e["path"] for e in planes if e["role"] == "psf")}
    tables = [t.noise_acf for t in tiles if t.noise_acf not in ("none", "measure", "auto")]
    absent = {e["path"] for e in planes if e["size"] is None and "://" not in e["path"]}  # optional planes
    names = dict.fromkeys([catalog, *(e["path"] for e in planes), *tables])
    return [
        {"path": p, "size": None, "hash": None} if p in absent else fingerprint(p, p in small, known.get(p))
        for p in names
    ]


def model_identity(prior: Denoiser, path: str) -> dict[str, Any]:
    """Path, name, SHA-256 of the weights and calibration of a prior, and of a model folder each file's hash
    and one of all; an object without a hash is known by its type."""
    files = {} if path == "object" else model_files(path)
    return {
        "path": path,
        "name": prior.spec.name,
        "sha256": prior.spec.sha256,
        "calibration": hash_json(prior.spec.calibration),
        "folder": path,
        "files": files,
        "hash": hash_json(files) if files else "",
    }
