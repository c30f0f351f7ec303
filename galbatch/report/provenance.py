"""From what and with what a run was made, in words: PSFs, noise as found, floors of the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from galbatch.report.read import RunReader
from galbatch.store import Run


def warnings_of(run: Run) -> tuple[str, ...]:
    """What the preflight of a run warned of, one line each."""
    return tuple(str(line) for line in run.manifest.get("warnings", ()))


def provenance(reader: RunReader) -> tuple[tuple[str, dict[str, str]], ...]:
    """(what, text by band) of images, PSFs and noise; empty texts where a run does not say."""
    run = reader.run
    resolved = run.manifest.get("config", {}).get("survey_resolved", {})
    tiles = {band["name"]: band["tiles"] for band in resolved.get("bands", ())}
    noise = {band: list(run.manifest.get("measured", {}).get(band, {}).values()) for band in run.bands}
    rows = {
        "images": {band: _files(tiles.get(band, ()), "sci") for band in run.bands},
        "PSF": {band: _files(tiles.get(band, ()), "psf") for band in run.bands},
        "FWHM of the PSF": {band: _width(reader, band) for band in run.bands},
        "noise against its map": {
            band: _span(noise[band], "err_scale", "{:.3g} times") for band in run.bands
        },
        "correlation of neighbouring pixels": {
            band: _span([{"r": _neighbour(n)} for n in noise[band]], "r", "{:.2f}") for band in run.bands
        },
        "blank sky used": {
            band: _span(noise[band], "blank_frac", "{:.0%} of the image") for band in run.bands
        },
        "error floor (median)": {band: _floor(reader, band) for band in run.bands},
    }
    return tuple((what, by_band) for what, by_band in rows.items() if any(by_band.values()))


def _files(tiles: Any, role: str) -> str:
    names = list(dict.fromkeys(Path(t[role]["path"]).name for t in tiles if t.get(role)))
    return "" if not names else names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _span(found: list[dict[str, Any]], key: str, form: str) -> str:
    """A value, or the range of the tiles'."""
    values = [float(f[key]) for f in found if f.get(key) is not None and np.isfinite(f[key])]
    ends = [form.format(x) for x in (min(values), max(values))] if values else [""]
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]} ({len(values)} tiles)"


def _neighbour(found: dict[str, Any]) -> float | None:
    """Mean correlation at a lag of one pixel."""
    acf = np.asarray(found.get("noise_acf") or (), float)
    if acf.ndim != 2 or min(acf.shape) < 3:
        return None
    y, x = acf.shape[0] // 2, acf.shape[1] // 2
    return float(np.mean([acf[y - 1, x], acf[y + 1, x], acf[y, x - 1], acf[y, x + 1]]))


def _width(reader: RunReader, band: str) -> str:
    """FWHM at the first source whose files are still there."""
    from galbatch.cutouts.psf_check import fwhm_pix

    for source_id in reader.columns["source_id"][:1].tolist():
        stamp, _ = reader.stamp(source_id, band)
        if stamp is not None and np.isfinite(stamp.psf[0]).all():
            scale = stamp.psf_scale_arcsec or stamp.pixel_scale_arcsec
            return f'{fwhm_pix(stamp.psf[0]) * scale:.3f}"'
    return ""


def _floor(reader: RunReader, band: str) -> str:
    values = reader.column(f"error_floor_{band}")
    values = np.array([]) if values is None else np.asarray(values, float)
    values = values[np.isfinite(values)]
    return f"{np.median(values):.1%} of the light" if values.size else ""
