"""Exports never overwrite one another or anything else, whatever the ids are, and stay inside their lines."""

import dataclasses
import json
import string

import numpy as np
import pytest
from astropy.io import fits
from fake_run import export, write_fake_run
from hypothesis import given
from hypothesis import strategies as st

import galbatch
from galbatch.errors import InputError
from galbatch.flags import FLAGS, names_of
from galbatch.report.export import export_sources
from galbatch.report.read import RunReader
from galbatch.store import Run, band_name, file_names, one_line, sources

IDS = [
    "M/1", "M_1", "M 1", "failed", "m_1", "../../etc/passwd", "-rf", ".hidden", "con", "a,b", "日本 é",
    "evil\nA) /etc/passwd\nB) out.fits", "x" * 300, "x" * 299 + "y", "50%", "a~1",
]  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("hostile") / "ids.run", ids=IDS)


def visible(folder):
    return sorted(p.name for p in folder.glob("[!.]*"))


def test_three_ids_that_were_one_file_are_three(paths, tmp_path):
    assert export(paths, "fits", tmp_path / "e") == 0
    names = visible(tmp_path / "e")
    assert len(names) == len({n.lower() for n in names}) == len(IDS) - 1
    assert {"M%2F1.fits", "M%201.fits", "m_1.fits", "M_1~1.fits", "%2Drf.fits", "%63on.fits"} <= set(names)
    assert max(map(len, names)) < 110
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    with fits.open(tmp_path / "e" / "M%2F1.fits") as one, fits.open(tmp_path / "e" / "m_1.fits") as other:
        assert (one[0].header["OBJECT"], other[0].header["OBJECT"]) == ("M/1", "m_1")


def test_one_source_of_a_large_run_has_the_name_that_it_has_among_all(paths, tmp_path, monkeypatch):
    """Found in the plan: the ids of the run are not read, but those that are alike but for capitals are."""
    assert export(paths, "fits", tmp_path / "all") == 0
    monkeypatch.setattr(sources, "_KEPT_WHOLE", 3)
    monkeypatch.setattr(Run, "ids", property(lambda run: pytest.fail("all ids were read")))
    run = galbatch.open_run(paths.root)
    found = export_sources(run, "fits", ["M_1", "日本 é"], tmp_path / "two")
    assert [p.name for p in found] == ["M_1~1.fits", "%E6%97%A5%E6%9C%AC%20%C3%A9.fits"]
    assert set(visible(tmp_path / "two")) < set(visible(tmp_path / "all"))
    assert set(run.locate([])) == {"M_1", "m_1", "日本 é"}
    with pytest.raises(InputError, match=r"'M_2' is not in .* those done begin with M/1, M_1, M 1"):
        run.status("M_2")


@given(st.lists(st.text(), unique=True, max_size=40))
def test_names_of_files_are_injective_where_capitals_do_not_count(ids):
    names = list(file_names(ids).values())
    assert len({n.lower() for n in names}) == len(ids)
    allowed = set(string.ascii_letters + string.digits + "%._-+~")
    assert all(set(n) <= allowed and 0 < len(n) < 130 and n[0] not in ".-" for n in names)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True, max_size=20))
def test_id_and_band_together_are_injective(pairs):
    names = file_names(i for i, _ in pairs)
    assert len({f"{names[i]}_{band_name(b)}" for i, b in pairs}) == len(pairs)


@given(st.text())
def test_a_line_stays_one_line(text):
    line, plain = one_line(text), one_line(text, ascii_only=True)
    assert len((line + ".").splitlines()) == 1 and line.isprintable() and len(line) <= 200
    assert plain.isascii() and plain.isprintable()


def test_an_id_with_newlines_cannot_leave_its_comment_in_a_galfit_file(paths, tmp_path, monkeypatch):
    plain, psf = RunReader.view, np.full((9, 9), 1 / 81)

    def with_psf(self, source_id, band=None):
        return dataclasses.replace(plain(self, source_id, band), psf=psf, psf_scale_arcsec=0.03)

    monkeypatch.setattr(RunReader, "view", with_psf)
    assert export(paths, "galfit", tmp_path / "g", "--ids", f'm_1,"{IDS[11]}","a,b"') == 0
    starts = sorted((tmp_path / "g").glob("*.galfit"))
    assert len(starts) == 6
    for start in starts:
        lines = start.read_text().splitlines()
        assert [line[0] for line in lines if line[1:3] == ") "][:2] == ["A", "B"]
        assert not any("/etc" in line for line in lines[1:])
        for line in lines[1:7]:
            if line[0] in "ACDF":
                assert (tmp_path / "g" / line[3:]).exists()


def test_an_id_with_a_comma_is_named_in_quotes(paths, tmp_path, capsys):
    assert export(paths, "fits", tmp_path / "e", "--ids", '"a,b",m_1') == 0
    assert visible(tmp_path / "e") == ["a%2Cb.fits", "m_1.fits"]
    assert export(paths, "fits", tmp_path / "f", "--ids", '"a,b') == 1
    assert "double quotes" in capsys.readouterr().err and not (tmp_path / "f").exists()


@pytest.mark.parametrize("form", ["fits", "galfit", "hats", "votable"])
def test_a_folder_that_galbatch_did_not_make_is_refused_and_stays(paths, tmp_path, capsys, form):
    """Also one that calls itself HATS: it was deleted."""
    mine = tmp_path / "mine"
    (mine / "dataset").mkdir(parents=True)
    for name in ("hats.properties", "catalog.vot", "m_1.fits", "dataset/years.parquet"):
        (mine / name).write_text("mine")
    assert export(paths, form, mine) == 1
    assert "Name a new folder with --out" in " ".join(capsys.readouterr().err.split())
    assert {p.name for p in mine.rglob("*") if p.is_file()} == {
        "hats.properties", "catalog.vot", "m_1.fits", "years.parquet",
    }  # fmt: skip
    assert all(p.read_text() == "mine" for p in mine.rglob("*") if p.is_file())


def test_a_second_export_adds_and_never_replaces(paths, tmp_path, capsys):
    out = tmp_path / "e"
    assert export(paths, "fits", out, "--ids", "m_1") == 0
    assert export(paths, "fits", out, "--ids", "50%,m_1") == 0
    assert visible(out) == ["50%25.fits", "m_1.fits"]
    (out / "m_1.fits").write_text("edited by hand")
    assert export(paths, "fits", out, "--ids", "m_1") == 1
    assert "it was edited" in capsys.readouterr().err and (out / "m_1.fits").read_text() == "edited by hand"
    other = write_fake_run(tmp_path / "other.run")
    other.manifest.write_text(other.manifest.read_text().replace("1700000000.0", "1700000001.0"))
    for run, form in ((other, "fits"), (paths, "votable")):
        assert export(run, form, out) == 1
        assert "another run or to another form" in " ".join(capsys.readouterr().err.split())
    assert visible(out) == ["50%25.fits", "m_1.fits"]


def test_a_marker_of_nonsense_is_no_marker(paths, tmp_path):
    for text in ("[]", "{", json.dumps({"form": "fits"})):
        (tmp_path / ".galbatch-export.json").write_text(text)
        (tmp_path / "mine").write_text("mine")
        assert export(paths, "fits", tmp_path) == 1
    assert visible(tmp_path) == ["mine"]


def test_hats_takes_rows_with_a_position_and_says_how_many_have_none(tmp_path, capsys):
    """They were lost without a word."""
    import pyarrow.parquet as pq

    run = write_fake_run(tmp_path / "a.run")
    table = pq.read_table(run.catalog)
    index = table["_healpix_29"].to_numpy().copy()
    for lost, said in (([1, 4], "2 rows without a position are left out"), (slice(None), "no row with a")):
        index[lost] = -1
        changed = table.set_column(table.column_names.index("_healpix_29"), "_healpix_29", [index])
        pq.write_table(changed, run.catalog)
        code = export(run, "hats", tmp_path / str(said[:2]))
        out = capsys.readouterr()
        assert said in " ".join((out.out + out.err).split()) and code == (0 if lost == [1, 4] else 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2 ", "a.run"]


@pytest.mark.filterwarnings("error")
def test_the_names_of_many_flags_are_all_in_the_header(paths, tmp_path, monkeypatch):
    """A header line has room for three or four: the rest goes on in the next, nothing is cut."""
    every = sum(int(flag) for flag in FLAGS)
    monkeypatch.setattr(Run, "flags", lambda self, source_id: every)
    assert export(paths, "fits", tmp_path / "out", "--ids", "con") == 0
    header = fits.getheader(next((tmp_path / "out").glob("*.fits")))
    assert header["FLAGNAME"].split() == names_of(every) and header["FLAGS"] == every
