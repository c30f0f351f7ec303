"""What is settled before the first batch: inputs, model, layout, disk space. Nothing is written."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.catalog import open_catalog, validate
from galbatch.config import ExecutionSettings, RunSettings, default_batch, survey_beside
from galbatch.cutouts import (
    check_footprint,
    check_noise,
    check_resolution,
    check_tile_names,
    classes,
    load_survey,
    open_survey,
)
from galbatch.errors import ConfigError, GalbatchError, InputError, RunError
from galbatch.forward import wavelength_um
from galbatch.interfaces import Denoiser
from galbatch.prior import choose_device, choose_precision
from galbatch.run import folder
from galbatch.run.context import load_model
from galbatch.run.findings import check_columns, said_once
from galbatch.store import BucketPath, RunPaths, StoreLayout, place_of
from galbatch.types import Finding

if TYPE_CHECKING:
    from galbatch.catalog import Catalog
    from galbatch.cutouts import Survey


def settle_model(settings: RunSettings, execution: ExecutionSettings, begun: dict[str, Any]) -> RunSettings:
    """The settings with the model 'auto' settled: the one that a run began with when it goes on (``begun``:
    its manifest), else the shipped one for this machine, whose card or lack of one decides for all workers.
    """
    if settings.model != "auto":
        return settings
    from galbatch.prior import choose_model

    here = choose_model("auto", "cpu" if execution.cluster == "local" else "auto")
    return dataclasses.replace(settings, model=begun.get("config", {}).get("model", here))


LARGEST_STAMP_PIX = 512
JOINT_IS_BETTER = False  # by itself where the model can: docs/decisions/0029 says what is missing


@dataclass
class Inputs:
    """The opened inputs of a run and what was found out about them; ``space``: what it will write, and what
    is free there, in words."""

    settings: RunSettings
    survey: Survey
    catalog: Catalog
    findings: list[Finding]
    row_flags: np.ndarray
    n_rows: int
    prior: Any = None
    layout: StoreLayout = field(init=False, repr=False)  # once the model is known
    space: str = ""


def preflight(
    settings: RunSettings,
    execution: ExecutionSettings,
    prior: Any = None,
    begun: dict[str, Any] | None = None,
    *,
    out: RunPaths | None = None,
    noise: bool | None = None,
    checking: bool = False,
) -> Inputs:
    """Inputs, model, layout and disk of a run, for ``process``, ``resume``, ``check``, ``plan`` and
    ``--dry-run``.

    ``begun``: the manifest of a run that goes on; ``out``: its folder, None if there will be none; ``noise``:
    whether the noise maps of all tiles are compared with the sky, or of one per band; None for none. Raises
    the error of the first that cannot be used; ``checking``: such errors are findings, too, and all else is
    looked at."""
    begun = begun or {}
    settings = settle_precision(settle_model(settings, execution, begun), execution)
    inputs = open_inputs(settings, begun.get("measured"))
    if not checking:
        refuse_errors(inputs)
    elif not _usable(inputs.findings):
        return inputs
    if noise is not None:
        inputs.findings += check_noise(inputs.survey, every_tile=noise)
    try:
        inputs.prior = open_model(settings, prior)
        inputs.settings = settle_joint(inputs.settings, inputs.prior, len(inputs.survey.band_names))
        inputs.layout = layout_of(inputs)
        if out is not None:
            refuse_inputs_inside(out, inputs)
            inputs.space = check_space(out, inputs.layout)
    except GalbatchError as error:
        if not checking:
            raise
        remedy = "Choose another --model, --draws, --stamp-pix or --out."
        inputs.findings.append(Finding("error", "run", "model and disk", str(error), remedy))
        return inputs
    inputs.findings += check_resolution(inputs.survey, target_fwhm_arcsec(inputs.layout))
    return inputs


def _usable(findings: list[Finding]) -> bool:
    """Whether the pixels of every band can be read, and go together."""
    return not any(f.level == "error" and f.code in ("band", "grid") for f in findings)


def settle_joint(settings: RunSettings, prior: Denoiser, bands: int) -> RunSettings:
    """The settings with ``joint`` settled. Raises ``ConfigError`` where the model cannot what is asked."""
    if settings.joint and not prior.spec.joint:
        raise ConfigError(
            f"--joint is asked for, but model {prior.spec.name or settings.model} sees one band at a time: "
            "use --separate, or a joint model."
        )
    joint = JOINT_IS_BETTER if settings.joint is None else settings.joint
    return dataclasses.replace(settings, joint=bool(joint and prior.spec.joint and bands > 1))


def wavelengths_of(survey: Survey) -> tuple[float, ...]:
    """Of the bands, in micrometres: what the survey file says, else their names. Raises ``InputError`` naming
    those that neither says."""
    given = {band.name: band.wavelength_um for band in survey.config.bands}
    unknown = [name for name in survey.band_names if given[name] is None and wavelength_um(name) is None]
    if unknown:
        raise InputError(
            f"{survey.config.path}: bands {', '.join(unknown)} are to be sampled together, and their names "
            "do not say their wavelengths. Add wavelength_um to each, or use --separate."
        )
    return tuple(float(given[name] or wavelength_um(name) or 0) for name in survey.band_names)


def settle_precision(settings: RunSettings, execution: ExecutionSettings) -> RunSettings:
    """The settings with 'auto' settled for this machine, so that a run that goes on elsewhere says so. For a
    scheduler's workers it stays: each settles it by itself."""
    if execution.scheduler or execution.scheduler_file or settings.model == "object":
        return settings
    device = choose_device("cpu" if execution.cluster == "local" else "auto")
    return dataclasses.replace(settings, precision=choose_precision(device, settings.precision))


def open_inputs(settings: RunSettings, measured: dict[str, Any] | None = None) -> Inputs:
    """Open and check survey and catalogue, for ``check`` too. Raises where one cannot be read at all."""
    survey_path = settings.survey or str(survey_beside(settings.catalog))
    place = place_of(settings.catalog).absolute()
    settings = dataclasses.replace(settings, survey=str(Path(survey_path).absolute()), catalog=str(place))
    survey = open_survey(load_survey(settings.survey, settings.bands or None), measured=measured)
    catalog = open_catalog(place, pixel_columns=survey.config.pixel_columns)
    checked = validate(catalog, survey.config.pixel_columns)
    findings = [*survey.check(catalog.columns), *checked.findings, *check_columns(catalog, survey.band_names)]
    n_rows = min(catalog.n_rows, settings.limit) if settings.limit else catalog.n_rows
    if _usable(findings):
        findings += check_tile_names(survey, _first(catalog, n_rows))
        findings += check_footprint(survey, _first(catalog, n_rows))
    return Inputs(settings, survey, catalog, findings, checked.flags, n_rows)


def stamp_size(survey: Survey, catalog: Catalog, stamp_arcsec: float = 0.0) -> int:
    """Largest side of the stamps of a run in pixels of the finest band: that of ``stamp_arcsec``, else of the
    largest ``stamp_arcsec`` in the catalogue, else the survey's, else that of the largest class. Raises
    ``InputError`` where the largest of the catalogue is beyond ``LARGEST_STAMP_PIX``."""
    if stamp_arcsec:
        return survey.stamp_pix(stamp_arcsec)
    stated, open_rows = 0.0, "stamp_arcsec" not in catalog.columns
    if not open_rows:
        for _, rows in catalog.batches(["stamp_arcsec"]):
            known = np.isfinite(rows["stamp_arcsec"]) & (rows["stamp_arcsec"] > 0)
            open_rows |= not known.all()
            stated = max(stated, float(rows["stamp_arcsec"][known].max(initial=0.0)))
    size = survey.stamp_pix(stated) if stated else 0
    if size > LARGEST_STAMP_PIX:
        raise InputError(
            f"{catalog.path}: the largest stamp_arcsec is {stated:g}, {size} pixels; more than "
            f"{LARGEST_STAMP_PIX} must be asked for. Correct that row, or give --stamp-arcsec."
        )
    if not open_rows:
        return size
    return max(size, _classes(survey)[-1] if survey.config.stamp_auto else survey.stamp_pix())


def stamp_sides(survey: Survey, catalog: Catalog, settings: RunSettings, largest: int) -> tuple[int, ...]:
    """The classes of stamps of a run; () where all have one size."""
    chosen = settings.stamp_pix or settings.stamp_arcsec
    if chosen or not (survey.config.stamp_auto or "stamp_arcsec" in catalog.columns):
        return ()
    sides = _classes(survey, largest)
    return sides if len(sides) > 1 else ()


def _classes(survey: Survey, *largest: int) -> tuple[int, ...]:
    return classes([g.ratio for g in survey.geometry().values()], *largest)


def _first(catalog: Catalog, n_rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The batches of a catalogue up to ``n_rows`` rows."""
    for start, rows in catalog.batches():
        if start >= n_rows:
            return
        yield start, {name: column[: n_rows - start] for name, column in rows.items()}


def refuse_errors(inputs: Inputs) -> None:
    """Raise ``InputError`` with every error that the preflight found."""
    errors = [f for f in inputs.findings if f.level == "error"]
    if errors:
        raise InputError("\n".join(f.line for f in said_once(errors)))


def layout_of(inputs: Inputs) -> StoreLayout:
    """The store's layout. Needs the model, for its target PSF."""
    survey, settings = inputs.survey, inputs.settings
    geometry = survey.geometry()
    ratios = tuple(int(geometry[b].ratio) for b in survey.band_names)
    stamp_pix = settings.stamp_pix or stamp_size(survey, inputs.catalog, settings.stamp_arcsec)
    bad = [r for r in ratios if stamp_pix % r]
    if bad:
        raise InputError(
            f"stamp_pix is {stamp_pix}, but a band has pixels {bad[0]} times larger: "
            f"use a multiple of {bad[0]}."
        )
    sides = stamp_sides(survey, inputs.catalog, settings, stamp_pix)
    return StoreLayout(
        n_sources=inputs.n_rows,
        batch=settings.batch or default_batch(inputs.n_rows),
        draws=settings.draws,
        bands=tuple(survey.band_names),
        stamp_pix=max(sides, default=stamp_pix),
        sides=sides,
        oversample=settings.oversample,
        samples=settings.samples == "stored",
        regenerate=settings.samples == "regenerate",
        string_ids="int" not in str(inputs.catalog.schema.field("source_id").type),
        pixel_ratio=ratios,
        pixel_scale_arcsec=tuple(float(geometry[b].delivered_scale_arcsec) for b in survey.band_names),
        target_fwhm_pix=inputs.prior.spec.target_fwhm_pix,
        draw_columns=settings.draw_columns,
        wavelength_um=wavelengths_of(survey) if settings.joint else (),
    )


def target_fwhm_arcsec(layout: StoreLayout) -> float:
    """FWHM of the target PSF."""
    return layout.target_fwhm_pix / layout.oversample * min(layout.pixel_scale_arcsec)


def check_space(paths: RunPaths, layout: StoreLayout) -> str:
    """One line with the bytes needed and free. Raises ``RunError`` when they do not fit."""
    need = layout.predicted_bytes()
    size = f"{need / 1e9:.2f} GB" if need > 1e9 else f"{max(1, round(need / 1e6))} MB"
    if isinstance(paths.root, BucketPath):
        return f"about {size} to write"
    place = next(p for p in (paths.root, *paths.root.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if need > free:
        raise RunError(
            f"{paths.root} needs about {need / 1e9:.2f} GB, {place} has {free / 1e9:.2f} GB free. Choose "
            "another --out, fewer --draws, or --samples regenerate."
        )
    return f"about {size} to write, {free / 1e9:.0f} GB free"


def refuse_inputs_inside(paths: RunPaths, inputs: Inputs) -> None:
    """Raise ``ConfigError`` when catalogue, survey file, model or an image is in the folder of the run."""
    settings, entries = inputs.settings, inputs.survey.inputs()
    models = {settings.model} - {"", "object"}
    names = [settings.catalog, settings.survey, *models, *noise_tables(inputs.survey)]
    folder.refuse_inside(paths, [*names, *(entry["path"] for entry in entries)])


def noise_tables(survey: Survey) -> list[str]:
    """The files of noise correlation that a survey file names."""
    tiles = (tile for band in survey.config.bands for tile in band.tiles)
    return list(dict.fromkeys(t.noise_acf for t in tiles if t.noise_acf not in ("none", "measure", "auto")))


def open_model(settings: RunSettings, prior: Any) -> Denoiser:
    """The prior of a run: the object given, else the model folder of the settings."""
    if prior is None and settings.model == "object":
        raise ConfigError(
            "This run was made with a prior object of a Python program: give the same one to resume()."
        )
    # for its card: workers load their own
    return load_model(settings.model if prior is None else prior, "cpu")
