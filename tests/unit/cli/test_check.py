"""``galbatch check``: a table with what to do, exit code 1 where a run must not start."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from cutouts_field import simple_survey, sources

from galbatch.cli.main import main

pytestmark = pytest.mark.usefixtures("no_model")


def catalogue(tmp_path, shift=0.0, **columns):
    rows = sources(np.linspace(20, 240, 30), np.linspace(20, 280, 30))
    rows["ra"] = rows["ra"] + shift
    pq.write_table(pa.table({**rows, **columns}), tmp_path / "c.parquet")
    return str(tmp_path / "c.parquet")


def check(capsys, *arguments):
    code = main(["check", *arguments])
    return code, capsys.readouterr()


def test_a_sound_survey(tmp_path, capsys):
    path = simple_survey(tmp_path, extra='err_scale = "measure"')
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out = check(capsys, catalogue(tmp_path), "--survey", str(path), "--noise")
    assert code == 0 and "A run can start" in out.out and "30 of 30 sources lie on the images" in out.out
    assert "blank sky scatters by" in out.out
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "c.parquet"])


def test_draws_blunter_than_the_data_are_a_warning(tmp_path, capsys, monkeypatch, no_model):
    """A PSF of 3 pixels and a target of 2; then a target of 4, and of 4 fine pixels of half the size."""
    path, where = simple_survey(tmp_path), catalogue(tmp_path)

    def level(*options):
        _, out = check(capsys, where, "--survey", str(path), "--json", *options)
        return [(f["level"], f["what"]) for f in json.loads(out.out) if f["code"] == "resolution"]

    assert level() == [("info", "from a PSF of FWHM 0.120 arcsec, draws have 0.080 arcsec")]
    monkeypatch.setattr(no_model, "target_fwhm_pix", 4.0)
    assert [one[0] for one in level()] == ["warn"]
    assert [one[0] for one in level("--oversample", "2")] == ["info"]


def test_a_flipped_bit_is_seen_with_checksums(tmp_path, capsys):
    path, where = simple_survey(tmp_path), catalogue(tmp_path)
    for name in ("sci", "err"):
        data, header = fits.getdata(tmp_path / f"{name}.fits", header=True)
        fits.PrimaryHDU(data, header).writeto(tmp_path / f"{name}.fits", overwrite=True, checksum=True)
    arguments = (where, "--survey", str(path), "--checksums", "--json")
    assert check(capsys, *arguments)[0] == 0
    content = bytearray((tmp_path / "sci.fits").read_bytes())
    content[100_000] ^= 64
    (tmp_path / "sci.fits").write_bytes(content)
    assert check(capsys, *arguments[:3], "--json")[0] == 0
    code, out = check(capsys, *arguments)
    wrong = [f for f in json.loads(out.out) if f["code"] == "checksum" and f["level"] == "error"]
    assert code == 1 and len(wrong) == 1 and wrong[0]["subject"].endswith("sci.fits")


def test_a_remedy_is_said_once_and_the_next_command_is_given(tmp_path, capsys):
    """Two bands of one kind share their remedy; a note without one has no arrow."""
    path = simple_survey(tmp_path)
    band = path.read_text().split("[bands.")[1]
    path.write_text(path.read_text() + "\n[bands." + band.replace(band.split("]")[0], "second", 1))
    code, out = check(capsys, catalogue(tmp_path), "--survey", str(path))
    assert code == 0 and out.out.count("If that is not right, set") == 1
    assert not [line for line in out.out.splitlines() if "Nothing to do:" in line]
    assert f"A run can start:\n  galbatch process {tmp_path}/c.parquet --survey {path}" in out.out


def test_an_image_without_a_value_is_an_error(tmp_path, capsys, monkeypatch):
    """And a warning where not all of it was looked at."""
    path, where = simple_survey(tmp_path), catalogue(tmp_path)
    with fits.open(tmp_path / "sci.fits", mode="update") as hdus:
        hdus[0].data[:] = np.nan
    for looked_at, level in ((256, "warn"), (300, "error")):
        monkeypatch.setattr("galbatch.cutouts.check.planes.SAMPLE_PIX", looked_at)
        _, out = check(capsys, where, "--survey", str(path), "--json")
        assert [f["level"] for f in json.loads(out.out) if f["code"] == "no_data"] == [level]
