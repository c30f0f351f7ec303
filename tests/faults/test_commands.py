"""What is wrong before a run begins: in the inputs, in the model, in what is typed. Nothing is written.

Of the faults that surveys are known for, the rows here are: WCS missing, not celestial, singular; shapes that
differ; no unit; files that are truncated, empty, missing or something else; PSFs that are not finite,
off-centre, even and between pixels, of another sum; ids twice or through floats; positions sexagesimal, in
radians, swapped, none; a model that is none, or not what its card says; too little disk. ``test_runs`` and
``test_processes`` have what befalls a run under way. Elsewhere: memory that runs out
(``unit/pipeline/test_batch``), a catalogue of a million rows (``unit/catalog/test_checks``).
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from cutouts_field import (
    add_galaxy,
    gaussian_psf,
    noise_field,
    simple_survey,
    sources,
    write_image,
    write_psf,
)
from fake_run import write_fake_run
from faults import Fault, judge
from toys import RedPrior

from galbatch.prior.folder import SHIPPED
from galbatch.sampler.prior import as_denoiser


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """A sound survey of six galaxies, a finished run, and files that are not what they seem."""
    folder = tmp_path_factory.mktemp("papers")
    image, x, y = noise_field(), 40.0 + 36 * np.arange(6), 60.0 + 30 * np.arange(6)
    for at in zip(y, x, strict=True):
        add_galaxy(image, *at)
    simple_survey(folder, image).rename(folder / "c.toml")
    table = pa.table(sources(x, y))
    for name, rows in {
        "c": table,
        "alone": table,
        "names": table.rename_columns(["source_id", "RA", "DEC"]).append_column("Ra", table["ra"]),
        "noid": table.drop_columns("source_id"),
    }.items():
        pq.write_table(rows, folder / f"{name}.parquet")
    (folder / "list.txt").write_text("source_id,ra,dec\n1,150,2\n")
    (folder / "image.parquet").symlink_to("sci.fits")
    write_fake_run(folder / "done.run")
    (folder / "notamodel").mkdir()
    return folder


@pytest.fixture
def desk(desk, papers):
    shutil.copytree(papers, desk.root, symlinks=True, dirs_exist_ok=True)
    return desk


def survey(old, new):
    path = Path("c.toml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def catalogue(**columns):
    known = pq.read_table("c.parquet")
    pq.write_table(pa.table({n: known[n] for n in known.column_names} | columns), "c.parquet")


def cards(remove=(), **change):
    with fits.open("sci.fits", mode="update") as hdus:
        for key in [k for k in hdus[0].header if k.startswith(tuple(remove))]:
            del hdus[0].header[key]
        hdus[0].header.update(change)


def cut_short(name, keep=0.5):
    raw = Path(name).read_bytes()
    Path(name).write_bytes(raw[: int(len(raw) * keep)])


def forbid(desk):
    desk.out = desk.root / "c.run"
    desk.refuse_writes(13)


def another_model(desk):
    weights = Path(shutil.copytree(SHIPPED, "other")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


WCS_CARDS = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "PC")
EVEN = gaussian_psf(16, dy=0.25, dx=0.25)  # its centre is neither on a pixel nor between two
INPUTS = {
    "no WCS": (lambda: cards(WCS_CARDS), r"sci\.fits.*pixel_columns = true"),
    "singular WCS": (lambda: cards(CDELT1=0.0), r"sci\.fits"),
    "WCS far away": (lambda: cards(CRVAL1=1e300), r"sci\.fits"),
    "galactic WCS": (lambda: cards(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"), r"sci\.fits"),
    "shapes that differ": (lambda: write_image("err.fits", np.ones((9, 9), "f4")), r"err\.fits.*\(9, 9\)"),
    "no unit": (lambda: cards(("BUNIT",)), r"zero_point_ab"),
    "truncated image": (lambda: cut_short("sci.fits"), r"sci\.fits is truncated"),
    "empty file": (lambda: cut_short("err.fits", 0), r"err\.fits is empty"),
    "no FITS file": (lambda: Path("sci.fits").write_text("PK" * 9999), r"sci\.fits is not a FITS file"),
    "missing file": (lambda: Path("err.fits").unlink(), r"err\.fits cannot be opened: No such file"),
    "PSF of NaN": (lambda: write_psf("psf.fits", gaussian_psf() * np.nan), "not finite"),
    "PSF off-centre": (lambda: write_psf("psf.fits", gaussian_psf(dx=0.4)), "off-centre by"),
    "PSF even and off-centre": (lambda: write_psf("psf.fits", EVEN), "off-centre by"),
    "PSF of another sum": (lambda: write_psf("psf.fits", 9 * gaussian_psf()), r'psf_norm = \\?"unit'),
    "ids twice": (lambda: catalogue(source_id=np.array([5, 2, 5, 4, 2, 6])), "share their source_id.*5, 2"),
    "ids through floats": (lambda: catalogue(source_id=np.arange(6.0)), "lose"),
    "sexagesimal": (lambda: catalogue(ra=["10:00:00"] * 6), "hours, minutes and seconds"),
    "ra and dec swapped": (lambda: catalogue(ra=np.full(6, 2.0), dec=np.full(6, 150.0)), "swapped"),
    "radians": (lambda: catalogue(ra=np.full(6, 2.618), dec=np.full(6, 0.0349)), "radians"),
    "no position at all": (lambda: catalogue(ra=np.full(6, np.nan)), "position"),
    "off the images": (lambda: catalogue(ra=np.full(6, 2.0) + np.arange(6) / 99, dec=np.full(6, 80.0)),
        "0 of 6 sources lie on the images"),
    "not a catalogue": (lambda: Path("c.parquet").write_text("PAR1 no"), r"c\.parquet"),
    "a survey file cut short": (lambda: Path("c.toml").write_text("[bands"), r"c\.toml"),
    "a value too few": (lambda: survey('sci = "sci.fits"', "sci ="),
        r"Invalid value \(at line 3, column 6\)"),
    "a key misspelt": (lambda: survey("err =", "eror ="),
        r"unknown key 'eror' in bands.f200w. Did you mean 'err'\? Allowed: sci, err"),
    "no PSF": (lambda: survey("psf =", "# psf ="), r'bands.f200w has no psf. Add psf = "file.fits"'),
    "a file that moved": (lambda: survey("sci.fits", "science.fits"), r"science.fits cannot be opened"),
    "an unknown unit": (lambda: survey("sci =", 'unit = "flux"\nsci ='), r'Give unit = \\?"nJy'),
}  # fmt: skip
RUN, LOOK = "process c.parquet --cluster none --draws 2", "check c.parquet --json"
BOTH = ("no WCS", "truncated image", "PSF of NaN", "ids twice", "no PSF")  # both ask one preflight
FAULTS = {
    name: Fault((RUN, LOOK) if name in BOTH else LOOK, said, plant=lambda desk, wrong=wrong: wrong())
    for name, (wrong, said) in INPUTS.items()
}


def little_room(desk):
    desk.patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))


with_other = tuple(f"{command} --model other" for command in (RUN, LOOK))
# fmt: off
FAULTS |= {
    "a model that is not what its card says":
        Fault(with_other, "weights and card do not belong together", plant=another_model),
    "a disk that is nearly full":
        Fault(RUN, r"needs about \S+ GB, \S+ has 0\.00 GB free", plant=little_room),
    "a folder that may not be written":
        Fault(RUN, r"c\.run: Permission denied\. Check the path", plant=forbid),
}
# fmt: on
MISTAKES = {
    "process nothere.parquet": r"nothere\.parquet does not exist\. Check the path",
    "process alone.parquet": "no survey file beside the catalogue. Write one, or name it with --survey",
    "check names.parquet --survey c.toml": r"To do: rename one of RA, Ra to ra\.",
    "check noid.parquet --survey c.toml": r"no column source_id\. It has: ra, dec\. To do: add",
    "check image.parquet --survey c.toml": "cannot be read as a table",
    "check sci.fits --survey c.toml": "No table found. Give a table of sources",
    "check list.txt --survey c.toml": r"'\.txt' is not known\. Use \.parquet",
    f"{LOOK} --survey c.parquet": r"c\.parquet cannot be read as TOML",
    f"{LOOK} --survey no.toml": r"no\.toml does not exist\. Give it with --survey",
    f"{LOOK} --bands f999w": "Bands f999w cannot be selected",
    "process c.parquet --mode best": "is not one of 'fast', 'default', 'accurate'",
    "process c.parquet --draws 0": "draws is 0: it must be an integer of at least 2",
    "process c.parquet --stamp-arcsec 9000 --dry-run": "fewer --draws, or --samples regenerate",
    "process c.parquet --model none --cluster none": "no such model",
    "process c.parquet --model no --dry-run": "give auto, small, base, or a folder with model.safetensors",
    "process c.parquet --model notamodel --dry-run": r"card\.json: no such file",
    "process c.parquet --out done.run": r"\(--resume\), replace it \(--overwrite\), or name another folder",
    "process c.parquet --out mine --overwrite": r"is no run of galbatch \(it holds 'thesis\.tex'\)\. Nothing "
    "in it was changed: name another folder",
    "process c.parquet --out c.toml": r"c\.toml is a file: give a folder with --out",
    "process c.parquet --resume --overwrite": "exclude each other",
    "resume mine": "this is not a run folder. Give the folder that `galbatch process` made",
    "show done.run 5": "Take one from column source_id of the catalogue",
    "show done.run 1001 --band f090w": "it has f200w, f444w",
    "show done.run 1001 --png no/such/a.png": r"no/such/a\.png: No such file or directory\. Check the path",
    "export done.run --to fits --ids abc": "Take one from column source_id",
    "export done.run --to votable --out c.toml": "is a file",
    "proces c.parquet": r"Did you mean 'process'\?",
    "process c.parquet --nsamples 3": "--samples",
    "flags banana": "a whole number such as",
}
FAULTS |= {command: Fault(command, said) for command, said in MISTAKES.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_begins(name, desk, capsys, monkeypatch):
    if "--model" not in f"{FAULTS[name].do}":  # a model is not what these rows are about
        monkeypatch.setattr("galbatch.run.prepare.load_model", lambda path, device: as_denoiser(RedPrior()))
    judge(FAULTS[name], desk, capsys)


def test_the_sound_survey_is_processed(desk, capsys, monkeypatch):
    """Without a fault the same commands go through; with ``--limit`` its rows decide."""
    prior = lambda *arguments, **more: as_denoiser(RedPrior())  # noqa: E731
    for module in ("prepare", "context"):
        monkeypatch.setattr(f"galbatch.run.{module}.load_model", prior)
    judge(Fault((LOOK, f"{RUN} --mode fast --out b.run", "verify b.run"), "", 0), desk, capsys)
    catalogue(ra=np.r_[2.0, pq.read_table("c.parquet")["ra"].to_numpy()[1:]])
    judge(Fault(f"{RUN} --limit 1", "0 of 1 sources lie on the images"), desk, capsys)
