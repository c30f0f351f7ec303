"""A run on a catalogue with every fault: healthy sources as if alone, all others in the ledger with cause."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cutouts_field import (
    SCALE,
    add_galaxy,
    gaussian_psf,
    noise_field,
    simple_survey,
    wcs_of,
    write_image,
)
from runs import same_rows
from toys import RedPrior

from galbatch.catalog import open_catalog
from galbatch.cutouts import open_survey
from galbatch.errors import InputError
from galbatch.run import process, verify
from galbatch.run.prepare import stamp_size
from galbatch.types import Flag

HEALTHY = {1: (60, 60), 2: (60, 150), 3: (90, 230)}
FAULTS = {  # id: (x, y, flag or code, whether it fails)
    11: (4, 100, Flag.EDGE, False),
    12: (-100, 100, "OFF_IMAGE", True),
    13: (120, 60, Flag.NONFINITE, False),
    14: (30, 250, "ALL_MASKED", True),
    15: (120, 100, Flag.ZERO_WEIGHT, False),
    16: (120, 140, Flag.SATURATED, False),
    17: (np.nan, 0, "BAD_POSITION", True),
    18: (60, 105, Flag.DUPLICATE_POSITION, False),
    19: (60.5, 105.5, Flag.DUPLICATE_POSITION, False),
    20: (100, 190, "PSF_BAD", True),
    21: (100, 170, "PSF_BAD", True),
    22: (230, 100, "READ_ERROR", True),
    23: (140, 180, Flag.BAND_MISSING, False),
}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Bands a (tiles w and e, the latter cut short) and z (left half only)."""
    folder = tmp_path_factory.mktemp("hostile")
    image, err, mask = noise_field(3), np.full((300, 260), 0.5, "f4"), np.zeros((300, 260), np.int16)
    for x, y in [*HEALTHY.values(), *[f[:2] for i, f in FAULTS.items() if i not in (12, 14, 17)]]:
        add_galaxy(image, y, x, 300)
    image[64, 122], image[65, 122] = np.nan, np.inf
    err[95:98, 125] = 0
    image[139:142, 119:122] = np.nan
    mask[230:270, 10:50] = 4
    full = wcs_of()
    for name, x0, x1 in (("w", 0, 170), ("e", 150, 260), ("z", 0, 130)):
        wcs = full.deepcopy()
        wcs.wcs.crpix[0] -= x0
        for plane, data in (("sci", image), ("err", err), ("mask", mask)):
            write_image(folder / f"{name}_{plane}.fits", data[:, x0:x1].copy(), wcs, BUNIT="nJy")
    bad = gaussian_psf()
    bad[0, 0] = np.nan
    write_image(folder / "psf.fits", np.stack([gaussian_psf(), bad]), PIXSCALE=SCALE)
    plane = (
        'sci = "{}_sci.fits"\nerr = "{}_err.fits"\nmask = "{}_mask.fits"\nmask_bits = [2]\npsf = "psf.fits"\n'
    )
    text = "stamp_pix = 24\n[bands.z]\n" + plane.replace("{}", "z")
    for tile in "we":
        text += f'[[bands.a.tiles]]\nname = "{tile}"\n' + plane.replace("{}", tile)
    (folder / "s.toml").write_text(text)
    (folder / "e_err.fits").write_bytes((folder / "e_err.fits").read_bytes()[:20_000])
    return folder


def catalogue(folder, name, rows):
    x, y = (np.array([r[k] for r in rows.values()], float) for k in (0, 1))
    ra, dec = np.full(len(x), np.nan), np.zeros(len(x))
    good = np.isfinite(x)
    ra[good], dec[good] = wcs_of().all_pix2world(x[good], y[good], 0)
    ids = np.array(list(rows)) + 2**60
    index = np.where(ids == 2**60 + 20, 1, np.where(ids == 2**60 + 21, 7, 0))
    pq.write_table(
        pa.table({"source_id": ids, "ra": ra, "dec": dec, "psf_index": index}), folder / f"{name}.parquet"
    )
    return folder / f"{name}.parquet"


def run_on(folder, name, rows):
    options = dict(prior=RedPrior(), cluster="none", draws=2, mode="fast", batch=8, draw_columns=True)
    return process(catalogue(folder, name, rows), folder / "s.toml", folder / f"{name}.run", **options)


def test_a_run_with_a_broken_tile_is_refused_before_it_starts(survey):
    with pytest.raises(InputError, match=r"e_err\.fits is truncated"):
        run_on(survey, "refused", HEALTHY)
    assert not (survey / "refused.run").exists()


def test_every_fault_is_in_the_ledger_and_the_healthy_are_as_if_alone(survey, monkeypatch):
    # A file that is cut short during a run was whole for its preflight.
    monkeypatch.setattr("galbatch.run.prepare.refuse_errors", lambda inputs: None)
    check = "galbatch.cutouts.survey.check_survey"
    monkeypatch.setattr(check, lambda survey, columns=None: [])
    mixed = dict(sorted({**HEALTHY, **FAULTS}.items(), key=lambda item: item[0] % 7))
    run = run_on(survey, "mixed", mixed)
    alone = run_on(survey, "alone", HEALTHY)
    rows = {int(r["source_id"]) - 2**60: r for r in run.catalog}
    assert set(rows) == set(mixed) and verify(run.paths.root) == []
    counts = run.summary
    assert counts["ok"] + counts["flagged"] + counts["failed"] == counts["planned"] == len(mixed)
    failures = pq.read_table(run.paths.root / "failures.parquet").to_pylist()
    codes = {int(f["source_id"]) - 2**60: f["code"] for f in failures}
    for source, (*_, cause, fails) in FAULTS.items():
        assert (rows[source]["status"] == "failed") == fails, source
        if fails:
            assert codes[source] == cause
        else:
            assert int(rows[source]["flags"]) & cause, source
    assert set(codes) == {s for s, f in FAULTS.items() if f[3]}
    assert all(f["message"] for f in failures)
    same_rows(alone, run)


def test_a_catalogue_off_the_images_stops_the_run_before_it_starts(tmp_path):
    """ra and dec swapped: refused, with that remedy, and no folder. With ``limit`` the first rows decide."""
    simple_survey(tmp_path)
    ra, dec = wcs_of().all_pix2world([60.0, 80.0, 100.0], [60.0, 90.0, 120.0], 0)
    ra[1:], dec[1:] = dec[1:].copy(), ra[1:].copy()
    options = dict(prior=RedPrior(), cluster="none", draws=2, mode="fast")
    for name, rows in (("swapped", slice(1, 3)), ("limited", slice(0, 3))):
        table = pa.table({"source_id": np.arange(3)[rows], "ra": ra[rows], "dec": dec[rows]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"0 of 2 sources lie on the images\. ra and dec look swapped"):
        process(tmp_path / "swapped.parquet", tmp_path / "survey.toml", tmp_path / "a.run", **options)
    assert not (tmp_path / "a.run").exists()
    run = process(
        tmp_path / "limited.parquet", tmp_path / "survey.toml", tmp_path / "b.run", limit=1, **options
    )
    assert run.summary["planned"] == 1 and run.summary["failed"] == 0


def test_the_largest_stamp_of_the_catalogue_is_that_of_the_run(tmp_path):
    survey = open_survey(simple_survey(tmp_path))
    table = {"source_id": [1, 2, 3], "ra": [150.0] * 3, "dec": [2.0] * 3}
    for name, sizes in (("good", [0.5, 1.9, 1.0]), ("open", [0.5, None]), ("wrong", [0.5, 1.9, 3600.0])):
        pq.write_table(
            pa.table(
                {
                    **{k: v[: len(sizes)] for k, v in table.items()},
                    "stamp_arcsec": pa.array(sizes, pa.float64()),
                }
            ),
            tmp_path / f"{name}.parquet",
        )
    good, free, wrong = (open_catalog(tmp_path / f"{name}.parquet") for name in ("good", "open", "wrong"))
    assert stamp_size(survey, good) == 48 and stamp_size(survey, good, 0.8) == 20
    assert stamp_size(survey, free) == 128  # a row without a size gets what it needs
    with pytest.raises(InputError, match="largest stamp_arcsec is 3600"):
        stamp_size(survey, wrong)
