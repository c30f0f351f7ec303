"""Columns whose names collide with galbatch's own or with one another; bands that would share a column."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from toys import GaussianPrior, write_survey

from galbatch.catalog.columns import product_names
from galbatch.cli.main import main
from galbatch.run import process
from galbatch.run.findings import check_columns

OPTIONS = dict(prior=GaussianPrior(), cluster="none", draws=2, mode="fast")
ODD = ["flags", "FLAGS", "status", "input_flags", "", "nul\0", "new\nline", "_x", "RA", "mag", "Mag"]
ODD += ["chi2_p_f200w"]


def test_names_are_distinct_even_without_capitals():
    names = product_names(
        ["source_id", "ra", "dec", *ODD], ["flags", "status", "_healpix_29", "chi2_p_f200w"]
    )
    assert list(names) == ODD and len({n.lower() for n in names.values()}) == len(ODD)
    assert names["input_flags"] == "input_flags" and names["status"] == "input_status"
    assert (names["_x"], names["mag"], names["RA"]) == ("_x", "mag", "input_RA")
    assert not {n.lower() for n in names.values()} & {"flags", "status", "ra", "chi2_p_f200w", ""}


def test_odd_names_go_through_a_run_and_keep_their_values(tmp_path):
    path, said = write_survey(tmp_path, 3), []
    table = pq.read_table(path)
    for k, name in enumerate(ODD):
        table = table.append_column(name, pa.array(np.arange(3) + 10 * k))
    pq.write_table(table, path)
    run = process(path, on_message=said.append, **OPTIONS)
    names = product_names(table.column_names, [])
    product = pq.read_table(run.paths.catalog)
    assert len(set(product.column_names)) == product.num_columns and set(names) >= set(ODD)
    flat = [product[n].to_pylist() for n in product.column_names]
    assert all((np.arange(3) + 10 * k).tolist() in flat for k in range(len(ODD)))
    assert any("'status' to input_status" in line for line in said)
    assert main(["export", str(run.paths.root), "--to", "votable", "--out", str(tmp_path / "v")]) == 0

    again = process(run.paths.catalog, tmp_path / "cat.toml", tmp_path / "again.run", **OPTIONS)
    second = pq.read_table(again.paths.catalog)
    assert len({n.lower() for n in second.column_names}) == second.num_columns
    assert second["input_status"].to_pylist() != [] and second["gini_p50_f200w"].type == pa.float32()


def test_bands_that_would_share_a_column_are_refused(tmp_path, capsys):
    class Catalogue:
        columns, path, read_as = ["source_id", "ra", "dec"], tmp_path, {}

    (found,) = [f for f in check_columns(Catalogue, ("a", "p_a")) if f.level == "error"]
    assert "share the column chi2_p_a" in found.what and found.remedy.startswith("Rename one")
    assert [f.level for f in check_columns(Catalogue, ("F200W", "f200w"))] == ["error"]
    assert check_columns(Catalogue, ("f200w", "f444w")) == []
    path = write_survey(tmp_path, 3)
    text = (tmp_path / "cat.toml").read_text()
    band = text[text.index("[bands.f200w]") :]
    both = band.replace("f200w", "a") + band.replace("f200w", "p_a")
    (tmp_path / "cat.toml").write_text(text.replace(band, both))
    assert main(["check", str(path), "--json"]) == 1
    assert "band_names" in {f["code"] for f in json.loads(capsys.readouterr().out)}
