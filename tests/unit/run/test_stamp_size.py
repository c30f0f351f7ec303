"""The side of the stamps of a run, from the sizes that its catalogue asks for."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cutouts_field import simple_survey

from galbatch.catalog import open_catalog
from galbatch.cutouts import open_survey
from galbatch.errors import InputError
from galbatch.run.prepare import stamp_size


def test_the_largest_stamp_of_the_catalogue_is_that_of_the_run(tmp_path):
    survey = open_survey(simple_survey(tmp_path))
    table = {"source_id": [1, 2, 3], "ra": [150.0] * 3, "dec": [2.0] * 3}
    for name, sizes in (("good", [0.5, 1.9, 1.0]), ("open", [0.5, None]), ("wrong", [0.5, 1.9, 3600.0])):
        columns = {k: v[: len(sizes)] for k, v in table.items()}
        columns["stamp_arcsec"] = pa.array(sizes, pa.float64())
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    good, free, wrong = (open_catalog(tmp_path / f"{name}.parquet") for name in ("good", "open", "wrong"))
    assert stamp_size(survey, good) == 48 and stamp_size(survey, good, 0.8) == 20
    assert stamp_size(survey, free) == 128  # a row without a size gets what it needs
    with pytest.raises(InputError, match="largest stamp_arcsec is 3600"):
        stamp_size(survey, wrong)
