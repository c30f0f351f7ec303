"""What a run holds in memory does not grow with its catalogue."""

import gc
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cutouts_field import add_galaxy, noise_field, simple_survey, wcs_of
from toys import RedPrior

from galbatch.run import process

BATCHES, BATCH, DRAWS, STAMP = 9, 4, 4, 24


def test_nothing_of_a_finished_batch_is_kept(tmp_path):
    image, rng = noise_field(), np.random.default_rng(0)
    x, y = rng.uniform(30, np.array(image.shape[::-1])[:, None] - 30, (2, BATCHES * BATCH))
    for at in zip(y, x, strict=True):
        add_galaxy(image, *at)
    survey = simple_survey(tmp_path, image)
    ra, dec = wcs_of(*image.shape).all_pix2world(x, y, 0)
    pq.write_table(pa.table({"source_id": np.arange(len(x)), "ra": ra, "dec": dec}), tmp_path / "c.parquet")
    after = {}  # bytes held when so many sources were done

    def look(progress):
        gc.collect()
        after.setdefault(progress.done, tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        how = dict(prior=RedPrior(), cluster="none", mode="fast", report=False, on_progress=look)
        how |= dict(draws=DRAWS, batch=BATCH, stamp_pix=STAMP)
        process(tmp_path / "c.parquet", survey, tmp_path / "c.run", **how)
    finally:
        tracemalloc.stop()
    assert max(after) == BATCHES * BATCH
    warm = after[3 * BATCH]  # caches are filled
    stored = BATCH * (DRAWS + 6) * STAMP**2 * 4  # bytes of the images of one batch
    assert after[BATCHES * BATCH] - warm < (BATCHES - 3) * stored / 3
