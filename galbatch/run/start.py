"""What is called on a run: ``process``, ``resume``, and ``preview``, which says what ``process`` would do."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from galbatch.config import ExecutionSettings, RunSettings
from galbatch.display import count
from galbatch.errors import ConfigError, RunError
from galbatch.run import folder, mend, prepare
from galbatch.run.events import Progress, Reporter
from galbatch.run.execute import execute
from galbatch.run.findings import said_of_model, said_once
from galbatch.store import Run, RunPaths, place_of, read_manifest


def process(
    catalog: str | Path,
    survey: str | Path | None = None,
    out: str | Path | None = None,
    *,
    bands: Sequence[str] = RunSettings.bands,
    draws: int = RunSettings.draws,
    mode: str = RunSettings.mode,
    oversample: int = RunSettings.oversample,
    stamp_arcsec: float = RunSettings.stamp_arcsec,
    stamp_pix: int = RunSettings.stamp_pix,
    model: str | Path | None = RunSettings.model,
    seed: int = RunSettings.seed,
    limit: int = RunSettings.limit,
    batch: int = RunSettings.batch,
    samples: str = RunSettings.samples,
    draw_columns: bool = RunSettings.draw_columns,
    precision: str = RunSettings.precision,
    joint: bool | None = RunSettings.joint,
    cluster: str = ExecutionSettings.cluster,
    scheduler: str = ExecutionSettings.scheduler,
    scheduler_file: str = ExecutionSettings.scheduler_file,
    workers: int = ExecutionSettings.workers,
    max_workers: int = ExecutionSettings.max_workers,
    threads: int = ExecutionSettings.threads,
    retries: int = ExecutionSettings.retries,
    allowed_failures: int = ExecutionSettings.allowed_failures,
    grace_s: float = ExecutionSettings.grace_s,
    dashboard: str = ExecutionSettings.dashboard,
    report: bool = ExecutionSettings.report,
    update: str | Path = ExecutionSettings.update,
    prior: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Sample the posterior of every source of a catalogue and measure it; what ``galbatch process`` calls.

    With a cluster of processes, call it under ``if __name__ == "__main__":``.

    Parameters
    ----------
    catalog : str or Path
        Parquet, FITS, ECSV, VOTable, CSV or HATS, with an id and a position (deg, ICRS).
    survey : str or Path, optional
        Survey file; ``<catalogue stem>.toml`` beside the catalogue when None.
    out : str or Path, optional
        Run folder; ``<catalogue stem>.run`` when None.
    bands : sequence of str
        Bands of the survey file; () for all.
    draws : int
        Draws per source, at least 2.
    mode : str
        "fast", "default" or "accurate".
    oversample : int
        Fine pixels along the side of a detector pixel of the finest band.
    stamp_arcsec, stamp_pix : float, int
        Side of a stamp in arcsec, or in detector pixels of the finest band; 0: the survey file's.
    model : str or Path
        "small", "base", a model folder, or "auto": base with a CUDA card, else small.
    seed : int
        Key of the random numbers, with the source's id and the band.
    limit : int
        First rows only; 0: all.
    batch : int
        Sources per batch; 0: by the size of the catalogue.
    samples : str
        The draws are "stored", made again from their seeds ("regenerate"; a hash is kept), or "none".
    draw_columns : bool
        List columns with the statistics of every draw.
    precision : str
        What the network computes in: "float32", "bfloat16", or "auto".
    joint : bool, optional
        All bands of a source sampled together; None: where the model can and is better so.
    cluster : str
        "auto", "none" (in this process), "local" or "cuda".
    scheduler, scheduler_file : str
        A Dask scheduler's address or file, to join it.
    workers, max_workers, threads : int
        Worker processes (0: as many as fit), the most if Dask is to start and end them (0: their number is
        fixed), and threads of each.
    retries, allowed_failures : int
        Tries of a batch, and deaths of workers after which it is searched for the source that kills.
    grace_s : float
        Seconds that running batches may take to end after a signal.
    dashboard : str
        Address of Dask's dashboard.
    report : bool
        Write ``dask-report.html``.
    update : str or Path
        An earlier run, from which the sources are taken over of which nothing changed.
    prior : Denoiser, optional
        Any object with ``denoise(x, sigma)`` instead of a model.
    resume : bool
        Go on with the run in ``out`` if there is one.
    overwrite : bool
        Replace the run in ``out``.
    force : bool
        Go on although settings or inputs changed.
    on_progress : callable, optional
        Called with a ``Progress`` after each batch.
    on_message : callable, optional
        Called with each line that is worth reading.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    InputError, ConfigError, ModelError, RunError
        Before anything starts.
    Stopped
        It ended early and can be resumed.

    Examples
    --------
    >>> import galbatch
    >>> run = galbatch.process("catalogs/demo.parquet", out="try.run", limit=8, mode="fast")  # doctest: +SKIP
    >>> run.good()["source_id", "r_half_p50_f200w"]  # doctest: +SKIP
    """
    given = locals()
    sources = {"catalog": str(catalog), "survey": "" if survey is None else str(survey)}
    settings = _chosen(RunSettings, given, model=_model(model, prior), **sources)
    execution = _chosen(ExecutionSettings, given, update=str(update))
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: keep the run or replace it.")
    paths = RunPaths(place_of(out) if out is not None else Path(catalog).with_suffix(".run"))
    reporter = Reporter(on_progress, on_message)
    for line in folder.recover(paths):
        reporter.message(line)
    place = folder.settle(paths, resume, overwrite)
    return execute(settings, execution, place, reporter, prior, force)


def resume(
    run: str | Path,
    *,
    prior: Any = None,
    force: bool = False,
    retry_failed: bool = False,
    redo: Iterable[int] = (),
    cluster: str = ExecutionSettings.cluster,
    scheduler: str = ExecutionSettings.scheduler,
    scheduler_file: str = ExecutionSettings.scheduler_file,
    workers: int = ExecutionSettings.workers,
    max_workers: int = ExecutionSettings.max_workers,
    threads: int = ExecutionSettings.threads,
    retries: int = ExecutionSettings.retries,
    allowed_failures: int = ExecutionSettings.allowed_failures,
    grace_s: float = ExecutionSettings.grace_s,
    dashboard: str = ExecutionSettings.dashboard,
    report: bool = ExecutionSettings.report,
    update: str | Path = ExecutionSettings.update,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Finish a run that was stopped, with the settings that it was started with.

    ``retry_failed``: compute batches again in which a source failed for a reason that may have passed, or was
    not read in a band; ``redo``: numbers of batches to compute again; ``cluster`` to ``update``: see
    ``ExecutionSettings``. A run that is to take the place of another (``OUT.new-ID``) does so when it is
    finished."""
    given = locals()
    paths, reporter = RunPaths(place_of(run)), Reporter(on_progress, on_message)
    for line in [*folder.recover(paths), *mend.mend_settings(paths)]:
        reporter.message(line)
    settings = saved_settings(paths)
    execution = _chosen(ExecutionSettings, given, update=str(update))
    place = folder.settle(paths, resuming=True, overwrite=False)
    return execute(settings, execution, place, reporter, prior, force, retry_failed, tuple(redo))


Settings = TypeVar("Settings", RunSettings, ExecutionSettings)


def _chosen(kind: type[Settings], given: dict[str, Any], **other: Any) -> Settings:
    """Settings from the keywords of a call, by name, but for those that are ``other`` than given."""
    return kind(**({f.name: given[f.name] for f in dataclasses.fields(kind)} | other))


def saved_settings(paths: RunPaths) -> RunSettings:
    """The settings that a run was started with. Raises ``RunError`` when the folder is not a run."""
    read_manifest(paths)
    try:
        return RunSettings.from_record(tomllib.loads(paths.config.read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError) as err:
        raise RunError(f"{paths.config}: cannot be read ({err}). Start again with --overwrite.") from err


def _model(model: str | Path | None, prior: Any) -> str:
    """The model of a run as its settings name it: a name or folder, 'object' for a prior that was given."""
    if prior is None:
        return str(model or RunSettings.model)
    if str(model or RunSettings.model) != RunSettings.model:
        raise ConfigError(f"model is {model} and a prior object is given: give one.")
    return "object"


def preview(settings: RunSettings, execution: ExecutionSettings, out: str | Path | None = None) -> list[str]:
    """Check inputs, model and disk as ``process`` does and say what it would do; nothing is written.

    Raises what ``process`` would raise before its first batch.
    """
    paths = RunPaths(Path(out) if out is not None else Path(settings.catalog).with_suffix(".run"))
    folder.settle(paths, resuming=True, overwrite=False)
    inputs = prepare.preflight(settings, execution, out=paths, noise=False)
    layout = inputs.layout
    lines = [f"{f.level}: {f.line}" for f in said_once(inputs.findings)]
    lines += [
        f"catalogue  {inputs.settings.catalog}: {count(inputs.n_rows, 'source')}",
        f"survey     {inputs.settings.survey}: bands {', '.join(layout.bands)}",
        f"stamps     {layout.said_of_stamps} of {min(layout.pixel_scale_arcsec):.4g} arcsec, oversample "
        f"{layout.oversample}, target PSF FWHM {prepare.target_fwhm_arcsec(layout):.4g} arcsec",
        f"sampling   {layout.draws} draws, mode {settings.mode}, seed {settings.seed}, precision "
        f"{inputs.settings.precision}",
        *said_of_model(settings.model, inputs.settings, inputs.prior, False, layout.together),
        f"batches    {layout.n_batches} of {count(layout.batch, 'source')}",
        f"cluster    {execution.cluster if not execution.scheduler else execution.scheduler}",
        f"output     {paths.root}: {inputs.space}",
    ]
    if paths.manifest.exists():
        lines.append(f"output     {paths.root} holds a run already: use --resume or --overwrite")
    return lines
