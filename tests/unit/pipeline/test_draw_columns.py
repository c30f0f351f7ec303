"""The statistics of every draw as list columns of statistics.parquet."""

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import QTable
from cutouts_field import add_galaxy, noise_field, simple_survey, wcs_of
from toys import RedPrior

from galbatch.run import process


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two batches: two galaxies, and one position off the image."""
    folder = tmp_path_factory.mktemp("draws")
    image, x, y = noise_field(), [100.0, 150.0, -500.0], [120.0, 180.0, 20.0]
    for i in range(2):
        add_galaxy(image, y[i], x[i])
    simple_survey(folder, image)
    ra, dec = wcs_of().all_pix2world(x, y, 0)
    pq.write_table(pa.table({"source_id": [1, 2, 3], "ra": ra, "dec": dec}), folder / "c.parquet")
    options = dict(prior=RedPrior(), cluster="none", draws=4, mode="fast", batch=2, stamp_pix=24)
    return process(
        folder / "c.parquet", folder / "survey.toml", folder / "c.run", draw_columns=True, **options
    )


def test_draws_are_what_the_percentiles_are_of(run):
    table = QTable.read(run.paths.statistics)
    assert table["gini_draws_f200w"].shape == (3, 4)
    for name in ("gini", "asymmetry", "sersic_n"):
        draws, p50 = (
            np.asarray(table[f"{name}_draws_f200w"][:2]),
            np.asarray(table[f"{name}_raw50_f200w"][:2]),
        )
        measured = np.isfinite(p50)
        np.testing.assert_allclose(np.nanmedian(draws[measured], axis=1), p50[measured], rtol=1e-5)
    lost = [i for i, s in enumerate(run.catalog["status"]) if s == "failed"]
    assert lost and not np.isfinite(np.ma.filled(table["gini_draws_f200w"][lost], np.nan)).any()


def test_lists_have_units_and_open_elsewhere(run):
    table = QTable.read(run.paths.statistics)
    assert table["r_half_draws_f200w"].unit == units.arcsec
    assert "of each draw" in table["r_half_draws_f200w"].info.description
    frame = pandas.read_parquet(run.paths.statistics)
    assert len(frame["gini_draws_f200w"][0]) == 4
    assert "sky_mean_draws_f200w" not in frame
