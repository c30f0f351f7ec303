"""What stops a run before its first batch, and what befalls its files while it goes on: each fault planted,
then the message or the ledger read. The faults of single sources are in test_cutouts_hostile_run.py."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from cutouts_field import (
    SCALE,
    add_galaxy,
    gaussian_psf,
    noise_field,
    simple_survey,
    wcs_of,
    write_image,
    write_psf,
)
from runs import same_rows
from toys import RedPrior

from galbatch.cli.main import main
from galbatch.errors import RunError
from galbatch.run import context, process, resume
from galbatch.sampler.prior import as_denoiser
from galbatch.types import Flag

OPTIONS = dict(cluster="none", draws=2, mode="fast", stamp_pix=24)


def field(folder, n=6, **survey):
    """A sound survey of one band with ``n`` galaxies."""
    image, places = noise_field(), [(40.0 + 36 * i, 60.0 + 30 * i) for i in range(n)]
    for x, y in places:
        add_galaxy(image, y, x)
    path = simple_survey(folder, image, **survey)
    x, y = np.array(places).T
    ra, dec = wcs_of().all_pix2world(x, y, 0)
    catalogue(folder, source_id=np.arange(n) + 1, ra=ra, dec=dec)
    return path


def catalogue(folder, **columns):
    path = folder / "c.parquet"
    known = {n: pq.read_table(path)[n] for n in pq.read_schema(path).names} if path.exists() else {}
    pq.write_table(pa.table({**known, **columns}), path)


def cards(folder, remove=(), **change):
    with fits.open(folder / "sci.fits", mode="update") as hdus:
        for key in list(hdus[0].header):
            if key.startswith(tuple(remove)):
                del hdus[0].header[key]
        hdus[0].header.update(change)


def cut_short(folder, name, keep=0.5):
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: int(len(raw) * keep)])


WCS_CARDS = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "PC")
BEFORE = {
    "no WCS": (lambda p: cards(p, WCS_CARDS), r"sci\.fits.*pixel_columns = true"),
    "singular WCS": (lambda p: cards(p, CDELT1=0.0), r"sci\.fits"),
    "galactic WCS": (lambda p: cards(p, CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"), r"sci\.fits"),
    "mismatched shapes": (
        lambda p: write_image(p / "err.fits", np.ones((9, 9), "f4")),
        r"err\.fits.*\(9, 9\)",
    ),
    "no unit": (lambda p: cards(p, ("BUNIT",)), r"zero_point_ab"),
    "truncated image": (lambda p: cut_short(p, "sci.fits"), r"sci\.fits is truncated"),
    "empty file": (lambda p: cut_short(p, "err.fits", 0), r"err\.fits is empty"),
    "no FITS file": (lambda p: (p / "sci.fits").write_text("PK" * 9999), r"sci\.fits is not a FITS file"),
    "missing file": (lambda p: (p / "err.fits").unlink(), r"err\.fits cannot be opened: No such file"),
    "PSF of NaN": (lambda p: write_psf(p / "psf.fits", gaussian_psf() * np.nan), "not finite"),
    "PSF off-centre": (lambda p: write_psf(p / "psf.fits", gaussian_psf(dx=0.4)), "off-centre by"),
    "duplicate ids": (
        lambda p: catalogue(p, source_id=np.array([5, 2, 5, 4, 2, 6])),
        "share their source_id.*5, 2",
    ),
    "float ids": (lambda p: catalogue(p, source_id=np.arange(6.0)), "lose"),
    "sexagesimal": (lambda p: catalogue(p, ra=["10:00:00"] * 6), "sexagesimal"),
    "ra and dec swapped": (lambda p: catalogue(p, ra=np.full(6, 2.0), dec=np.full(6, 150.0)), "swapped"),
    "radians": (lambda p: catalogue(p, ra=np.full(6, 2.618), dec=np.full(6, 0.0349)), "radians"),
    "no position at all": (lambda p: catalogue(p, ra=np.full(6, np.nan)), "position"),
    "not a catalogue": (lambda p: (p / "c.parquet").write_text("PAR1 no"), r"c\.parquet"),
    "broken survey file": (lambda p: (p / "survey.toml").write_text("[bands"), r"survey\.toml"),
}


@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_of_the_inputs_stops_the_run_before_its_first_batch(tmp_path, fault, capsys, monkeypatch):
    """Nothing is written, one message names the file or the rows, and both commands exit with 1."""
    monkeypatch.setattr("galbatch.run.prepare.load_model", lambda path, device: as_denoiser(RedPrior()))
    plant, message = BEFORE[fault]
    survey = field(tmp_path)
    plant(tmp_path)
    where = [str(tmp_path / "c.parquet"), "--survey", str(survey)]
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["process", *where, "--cluster", "none", "--draws", "2"]) == 1
    error = capsys.readouterr().err
    assert re.search(message, " ".join(error.split())), error
    assert "Traceback" not in error
    assert main(["check", *where]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_sound_survey_is_processed(tmp_path):
    run = process(field(tmp_path).parent / "c.parquet", tmp_path / "survey.toml", prior=RedPrior(), **OPTIONS)
    assert run.summary["failed"] == 0 and run.summary["planned"] == 6


def test_a_model_that_is_none_or_another_stops_the_run(tmp_path, capsys):
    survey = field(tmp_path)
    shipped = Path(__file__).resolve().parents[2] / "galbatch" / "prior" / "models" / "small"
    shutil.copytree(shipped, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for model, message in (("model", "weights and card do not belong together"), ("none", "no such model")):
        where = [str(tmp_path / "c.parquet"), "--survey", str(survey), "--model", str(tmp_path / model)]
        assert main(["process", *where, "--cluster", "none"]) == 1
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "c.run").exists()


def ledger(run):
    """{source id: (status, flags, code, message)} from catalogue and failures."""
    lost = {f["source_id"]: f for f in pq.read_table(run.paths.failures).to_pylist()}
    blank = {"code": "", "message": ""}
    return {
        int(row["source_id"]): (
            row["status"],
            Flag(int(row["flags"])),
            *(lost.get(str(row["source_id"]), blank)[k] for k in ("code", "message")),
        )
        for row in run.catalog
    }


def rewrite(path):
    path.write_bytes(path.read_bytes()[::-1])  # in place: the same file


def replace(path):
    write_image(path, noise_field(1), wcs_of(), BUNIT="nJy")  # another file of this name


CHANGES = {
    "rewritten": (rewrite, [4, 5, 6]),
    "cut short": (lambda path: cut_short(path.parent, path.name, 0.2), [4, 5, 6]),
    "emptied": (lambda path: path.write_bytes(b""), [4, 5, 6]),
    "replaced": (replace, []),  # this process has the old one open; another would refuse the new one
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_during_the_run_never_mixes_with_what_it_was(tmp_path, change):
    """Changed after the first batch of three: what comes after is in the ledger, and the accounts balance."""
    survey, touched = field(tmp_path), []
    harm, lost = CHANGES[change]

    def look(progress):
        if progress.done == 3 and not touched:
            touched.append(harm(tmp_path / "sci.fits"))

    run = process(tmp_path / "c.parquet", survey, prior=RedPrior(), batch=3, on_progress=look, **OPTIONS)
    rows = ledger(run)
    assert touched and [s for s, r in rows.items() if r[0] == "failed"] == lost
    assert run.summary["failed"] == len(lost) and len(rows) == 6
    for source in lost:
        _, flags, code, message = rows[source]
        assert code == "READ_ERROR" and Flag.READ_ERROR in flags
        assert "sci.fits changed during the run" in message
    if not lost:
        whole = process(
            field(tmp_path).parent / "c.parquet", survey, tmp_path / "w.run", prior=RedPrior(), **OPTIONS
        )
        same_rows(whole, run)


def test_bands_on_other_grids_are_flagged(tmp_path):
    """A band that is turned, and one whose pixels are 1.7 times larger: every source says so."""
    survey = field(tmp_path)
    for name, scale, angle in (("turned", SCALE, 20.0), ("coarse", 1.7 * SCALE, 0.0)):
        wcs = wcs_of(scale=scale, angle=angle)
        write_image(tmp_path / f"{name}.fits", noise_field(2), wcs, BUNIT="nJy")
        write_image(tmp_path / f"{name}_err.fits", np.full((300, 260), 0.5, "f4"), wcs)
        write_psf(tmp_path / f"{name}_psf.fits", scale=scale)
    text = survey.read_text()
    for name, flag in (("turned", Flag.GRID_MISMATCH), ("coarse", Flag.RESAMPLED)):
        extra = f'[bands.{name}]\nsci = "{name}.fits"\nerr = "{name}_err.fits"\npsf = "{name}_psf.fits"\n'
        survey.write_text(text + extra)
        said, out = [], tmp_path / f"{name}.run"
        run = process(
            tmp_path / "c.parquet", survey, out, prior=RedPrior(), on_message=said.append, **OPTIONS
        )
        assert all(flag in r[1] and r[0] != "failed" for r in ledger(run).values())
        assert any(m.startswith(name) and flag.name in m for m in said)


class Unsteady(RedPrior):
    """Not a number for the source whose stamp has the brightest pixel."""

    def denoise(self, x, sigma):
        out = super().denoise(x, sigma)
        return out * float("nan") if float(x.abs().max()) > 300 and float(sigma.max()) < 5 else out


def test_draws_that_are_not_finite_are_redrawn_and_then_in_the_ledger(tmp_path):
    image = noise_field()
    add_galaxy(image, 100, 100, 400.0)
    add_galaxy(image, 200, 150, 40_000.0)
    simple_survey(tmp_path, image)
    ra, dec = wcs_of().all_pix2world([100.0, 150.0], [100.0, 200.0], 0)
    catalogue(tmp_path, source_id=[1, 2], ra=ra, dec=dec)
    run = process(tmp_path / "c.parquet", tmp_path / "survey.toml", prior=Unsteady(), batch=1, **OPTIONS)
    rows = ledger(run)
    assert Flag.SAMPLER_NONFINITE in rows[2][1] and Flag.SAMPLER_NONFINITE not in rows[1][1]
    assert rows[2][0] in ("flagged", "failed") and run.row(1)["n_draws_ok"] == 2 > run.row(2)["n_draws_ok"]


def test_a_worker_that_lacks_what_the_run_needs_says_which_and_where(tmp_path, monkeypatch):
    """Files, model and version are looked at in the process that is to do the work."""
    survey = field(tmp_path)
    process(tmp_path / "c.parquet", survey, prior=RedPrior(), **OPTIONS)
    seen = []
    monkeypatch.setattr(sys.modules["galbatch.run.execute"], "run_serial", lambda spec, *a: seen.append(spec))
    (tmp_path / "c.run" / "parts" / "batch-000000.arrow").unlink()
    with pytest.raises(RunError, match="missing"):
        resume(tmp_path / "c.run", prior=RedPrior(), cluster="none")
    (spec,) = seen
    context.refuse_this_machine(spec, as_denoiser(RedPrior()))
    other = RedPrior()
    other.sha256 = "another"
    with pytest.raises(RunError, match=r"has sha256 another, that of the run is toy\. Put"):
        context.refuse_this_machine(spec, as_denoiser(other))
    monkeypatch.setattr(context, "__version__", "0.0.9")
    with pytest.raises(RunError, match=r"has galbatch 0\.0\.9, the run 0\.1\.0"):
        context.refuse_this_machine(spec, as_denoiser(RedPrior()))
    monkeypatch.undo()
    for name in ("err.fits", "psf.fits"):
        (tmp_path / name).unlink()
    with pytest.raises(
        RunError, match=r"Worker .* cannot read 2 files.*err\.fits: No such file.*psf\.fits: No such"
    ):
        context.refuse_this_machine(spec, as_denoiser(RedPrior()))
