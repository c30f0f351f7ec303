"""What a new user does wrong, and what galbatch answers: exit code 1, what is wrong, what to do."""

import shlex
from pathlib import Path

import pandas
import pytest
from fake_run import write_fake_run

from galbatch.cli.main import main

ROOT = Path(__file__).parents[3]
SURVEY = (ROOT / "catalogs" / "demo.toml").read_text().replace('"demo/', f'"{ROOT}/catalogs/demo/')


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a good catalogue and survey, a finished run, and many bad files."""
    folder = tmp_path_factory.mktemp("desk")
    good = pandas.read_parquet(ROOT / "catalogs" / "demo.parquet")
    good.to_parquet(folder / "good.parquet")
    good.to_parquet(folder / "alone.parquet")
    good.rename(columns={"ra": "RA", "dec": "DEC"}).assign(Ra=0.0).to_parquet(folder / "names.parquet")
    good.drop(columns="source_id").to_parquet(folder / "noid.parquet")
    good.to_csv(folder / "list.txt", index=False)
    image = ROOT / "catalogs" / "demo" / "f200w_sci.fits"
    (folder / "image.fits").symlink_to(image)
    (folder / "image.parquet").symlink_to(image)
    for name, old, new in (
        ("good", "", ""),
        ("broken", SURVEY, "name = \n"),
        ("typo", "err =", "eror ="),
        ("nopsf", "psf =", "# psf ="),
        ("moved", "_sci.fits", "_science.fits"),
        ("unit", 'unit = "nJy"', 'unit = "flux"'),
    ):
        (folder / f"{name}.toml").write_text(SURVEY.replace(old, new) if old else SURVEY)
    write_fake_run(folder / "done.run")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("years of work")
    (folder / "notamodel").mkdir()
    return folder


CHECK = "check good.parquet --survey"
MISTAKES = [
    ("process nothere.parquet", "nothere.parquet does not exist. Check the path"),
    ("process alone.parquet", "no survey file beside the catalogue. Write one, or name it with --survey"),
    ("check names.parquet --survey good.toml", "To do: rename one of RA, Ra to ra."),
    (
        "check noid.parquet --survey good.toml",
        "no column source_id. It has: ra, dec, psf_index, kind. To do: add",
    ),
    ("check image.parquet --survey good.toml", "cannot be read as a table"),
    ("check image.fits --survey good.toml", "No table found. Give a table of sources"),
    ("check list.txt --survey good.toml", "'.txt' is not known. Use .parquet"),
    (f"{CHECK} good.parquet", "good.parquet cannot be read as TOML"),
    (f"{CHECK} no.toml", "no.toml does not exist. Give it with --survey"),
    (f"{CHECK} broken.toml", "Invalid value (at line 1, column 8)"),
    (f"{CHECK} typo.toml", "unknown key 'eror' in bands.f200w. Allowed: sci, err"),
    (f"{CHECK} nopsf.toml", 'bands.f200w has no psf. Add psf = "file.fits"'),
    (f"{CHECK} moved.toml", "f200w_science.fits cannot be opened"),
    (f"{CHECK} unit.toml", 'Give unit = "nJy"'),
    (f"{CHECK} good.toml --bands f999w", "Bands f999w cannot be selected"),
    ("process good.parquet --mode best", "is not one of 'fast', 'default', 'accurate'"),
    ("process good.parquet --draws 0", "draws is 0: it must be an integer of at least 2"),
    (
        "process good.parquet --stamp-arcsec 500 --dry-run",
        "Choose another --out, fewer --draws, or --no-samples",
    ),
    (
        "process good.parquet --model nomodel --dry-run",
        "give auto, small, base, or a folder with model.safetensors",
    ),
    ("process good.parquet --model notamodel --dry-run", "card.json: no such file"),
    (
        "process good.parquet --out done.run",
        "(--resume), replace it (--overwrite), or name another folder (--out)",
    ),
    (
        "process good.parquet --out mine --overwrite",
        "is no run of galbatch (it holds 'thesis.tex'). Nothing in it was changed: name another folder",
    ),
    ("process good.parquet --out good.toml", "good.toml is a file: give a folder with --out"),
    ("process good.parquet --resume --overwrite", "exclude each other"),
    ("resume mine", "this is not a run folder. Give the folder that `galbatch process` made"),
    ("show done.run 5", "Take one from column source_id of the catalogue"),
    ("show done.run 1001 --band f090w", "it has f200w, f444w"),
    ("show done.run 1001 --png no/such/a.png", "no/such/a.png: No such file or directory. Check the path"),
    ("export done.run --to fits --ids abc", "Take one from column source_id"),
    ("export done.run --to votable --out good.toml", "is a file"),
    ("proces good.parquet", "Did you mean 'process'?"),
    ("process good.parquet --nsamples 3", "--no-samples"),
    ("flags banana", "give a whole number such as"),
]


@pytest.mark.parametrize("command, said", MISTAKES, ids=[c for c, _ in MISTAKES])
def test_mistake_is_answered_with_its_remedy(command, said, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setenv("COLUMNS", "400")
    assert main(shlex.split(command)) == 1
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).split())
    assert said in text
    assert "Traceback" not in text and "This is a bug" not in text
    assert (desk / "mine" / "thesis.tex").exists()


def test_no_permission_to_write(desk, monkeypatch, capsys):
    plain = Path.mkdir

    def refuse(self, *arguments, **options):
        if "locked" in str(self):
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *arguments, **options)

    monkeypatch.chdir(desk)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["process", "good.parquet", "--out", "locked.run"]) == 1
    assert "locked.run: Permission denied. Check the path" in capsys.readouterr().err
