"""``galbatch init`` on the folders of archives and on what it refuses; `check` accepts what it writes."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from cutouts_field import gaussian_psf, proposed, wcs_of, write_psf

from galbatch.cli.main import main
from galbatch.cutouts import open_survey

pytestmark = pytest.mark.usefixtures("no_model")


def first_tile(name):
    survey = open_survey(f"{name}.toml")
    return survey.tile(survey.band_names[0], survey.config.bands[0].tiles[0].name)


REAL = {  # folder: (options, catalogue, bands)
    "hst_candels": ([], ("id", "RA", "DEC"), []),
    "hsc_cutout": ([], ("NUMBER", "ALPHA_J2000", "DELTA_J2000"), []),
    "jwst_ceers": (["--unit", "MJy/sr"], {"id": [1, 2], "x": [100, 100], "y": [100, 100]}, ["f200w,f444w"]),
    "jwst_ceers_bright": ([], {"id": [40], "ra": [214.9], "dec": [52.9]}, ["f200w"]),
    "jwst_cosmosweb": (["--unit", "MJy/sr"], None, ["f115w"]),
}


@pytest.mark.parametrize("name", REAL)
def test_real_folders_as_they_are(name, shared_data, tmp_path, monkeypatch, capsys):
    options, columns, bands = REAL[name]
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(shared_data / name), *options]) == 0
    assert "To complete" not in capsys.readouterr().err
    catalogue = str(shared_data / name / "f115w_catalog.parquet")
    if columns is not None:
        if name == "jwst_ceers":
            columns["tile"] = ["6978", "10735"]
        if isinstance(columns, tuple):
            grid = first_tile(name).grid
            centre = grid.to_sky(*([n / 2] for n in grid.shape[::-1]))
            columns = dict(zip(columns, ([1], *centre), strict=True))
        Table(columns).write("cat.csv", format="ascii.csv")
        catalogue = "cat.csv"
    code = main(["check", catalogue, "--survey", f"{name}.toml", *[w for b in bands for w in ("--bands", b)]])
    assert code == 0, capsys.readouterr().out


def test_what_cannot_be_known_is_asked_once_or_left_to_do(shared_data, tmp_path, capsys, monkeypatch):
    asked = []
    text, _ = proposed(shared_data / "jwst_ceers", tmp_path, lambda q, like: asked.append((q, like)))
    assert len(asked) == 1 and asked[0][1] == "MJy/sr"
    assert text.count('unit = "TODO') == 6
    (tmp_path / "c.csv").write_text("id,x,y\n1,100,100\n")
    assert main(["check", str(tmp_path / "c.csv"), "--survey", str(tmp_path / "s.toml")]) == 1
    assert "only you can complete" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(shared_data / "jwst_ceers")]) == 0  # no terminal: nothing is asked
    assert "bands.f115w.unit and 5 more" in capsys.readouterr().err


def test_a_unit_that_is_none_is_refused(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(shared_data / "jwst_ceers"), "--unit", "furlong"]) == 1
    assert "the unit that you gave = 'furlong' is not a unit" in capsys.readouterr().err
    assert not (tmp_path / "jwst_ceers.toml").exists()


def test_no_file_is_replaced_and_no_images_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ceers.toml").write_text("mine")
    assert main(["init", "--survey", "ceers"]) == 1
    assert (tmp_path / "ceers.toml").read_text() == "mine" and "not replaced" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["init", "empty"]) == 1
    assert "no FITS file that looks like a science image" in capsys.readouterr().err


def test_sources_are_found_where_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, (y, x) = np.random.default_rng(3), np.mgrid[:150, :170]
    places = {(40.3, 60.0): 4000.0, (120.0, 90.7): 1500.0, (5.0, 75.0): 9000.0}  # the last too near the edge
    image = rng.normal(0, 1.0, x.shape)
    for (x0, y0), flux in places.items():
        image += flux / (2 * np.pi * 9) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 18)
    image[130:, 150:] = np.nan
    header = wcs_of(*x.shape).to_header()
    header["BUNIT"] = "nJy"
    (tmp_path / "field").mkdir()
    fits.writeto(tmp_path / "field" / "f200w_sci.fits", image.astype("f4"), header)
    fits.writeto(tmp_path / "field" / "f200w_err.fits", np.ones_like(image, "f4"), header)
    write_psf(tmp_path / "field" / "f200w_psf.fits", gaussian_psf())
    assert main(["init", "field", "--sources", "field.csv"]) == 0
    assert "field.csv: 2 sources" in capsys.readouterr().out
    table = Table.read("field.csv")
    assert table["id"].tolist() == [1, 2]
    found = np.transpose(first_tile("field").grid.to_pixel(table["ra"], table["dec"]))
    assert np.hypot(*(found - list(places)[:2]).T).max() < 0.5
    assert main(["check", "field.csv"]) == 0
    (tmp_path / "field.toml").unlink()
    assert main(["init", "field", "--sources", "field.csv"]) == 1 and "--sources" in capsys.readouterr().err


def test_a_proposal_with_open_lines_is_made_again_until_it_is_edited(
    shared_data, tmp_path, monkeypatch, capsys
):
    """Without a terminal the unit stays open; then with --unit; then completed by hand, and kept."""
    monkeypatch.chdir(tmp_path)
    folder, survey = str(shared_data / "jwst_ceers"), tmp_path / "jwst_ceers.toml"
    assert main(["init", folder, "--sources", "c.csv"]) == 0
    said = capsys.readouterr().err
    assert f"galbatch init {folder} --unit UNIT" in said and "galbatch check" not in said
    assert main(["init", folder, "--unit", "MJy/sr", "--sources", "c.csv"]) == 0
    assert "TODO" not in survey.read_text() and (tmp_path / "c.csv").is_file()
    edited = survey.read_text().replace('name = "jwst_ceers"', 'name = "mine"')
    survey.write_text(edited)
    assert main(["init", folder]) == 1 and "not replaced" in capsys.readouterr().err
    (tmp_path / "c.csv").unlink()
    assert main(["init", folder, "--sources", "c.csv"]) == 0 and "used as it is" in capsys.readouterr().err
    assert survey.read_text() == edited and (tmp_path / "c.csv").is_file()


def test_a_link_to_a_folder_keeps_the_name_that_was_typed(shared_data, tmp_path, monkeypatch, capsys):
    """The survey file then lies beside the catalogue under its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hst").symlink_to(shared_data / "hst_candels")
    assert main(["init", "hst", "--sources", "hst.csv"]) == 0
    assert 'name = "hst"' in (tmp_path / "hst.toml").read_text()
    assert "galbatch check hst.csv" in capsys.readouterr().err
