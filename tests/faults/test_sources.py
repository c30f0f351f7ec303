"""Faults of single sources: the run goes on, and each is in the ledger with its cause.

Of the faults that surveys are known for, here are: off the edge, off the image; pixels that are NaN or inf;
stamps that are all masked; no weight; saturated; no position; two at one position; a PSF that cannot be used;
a file that ends early; a band that is missing; draws that are not finite. Bands that are turned or have other
pixels: ``unit/cutouts/test_bands``.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import toys
from cutouts_field import (
    SCALE,
    add_galaxy,
    gaussian_psf,
    noise_field,
    simple_survey,
    sources,
    wcs_of,
    write_image,
)
from faults import Fault, judge, ledger
from runs import same_rows

from galbatch import open_run
from galbatch.types import Flag

FIELD = dict(prior=toys.RedPrior(), stamp_pix=24)


class Unsteady(toys.RedPrior):
    """Not a number for the source whose stamp has the brightest pixel."""

    def denoise(self, x, sigma):
        out = super().denoise(x, sigma)
        return out * float("nan") if float(x.abs().max()) > 300 and float(sigma.max()) < 5 else out


def test_draws_that_are_not_finite_are_redrawn_and_then_in_the_ledger(desk, capsys):
    image = noise_field()
    add_galaxy(image, 100, 100, 400.0)
    add_galaxy(image, 200, 150, 40_000.0)
    simple_survey(desk.root, image).rename(desk.root / "c.toml")
    pq.write_table(pa.table(sources([100.0, 150.0], [100.0, 200.0])), desk.root / "c.parquet")
    run = desk.process(catalog=desk.root / "c.parquet", **FIELD | {"prior": Unsteady(), "batch": 1})
    rows = ledger(desk.out)
    assert Flag.SAMPLER_NONFINITE in rows[2][1] and Flag.SAMPLER_NONFINITE not in rows[1][1]
    assert rows[2][0] in ("flagged", "failed") and run.row(1)["n_draws_ok"] == 3 > run.row(2)["n_draws_ok"]


HEALTHY = {1: (60, 60), 2: (60, 150), 3: (90, 230)}
SICK = {  # id: (x, y, flag, or code of its failure)
    11: (4, 100, Flag.EDGE),
    12: (-100, 100, "OFF_IMAGE"),
    13: (120, 60, Flag.NONFINITE),
    14: (30, 250, "ALL_MASKED"),
    15: (120, 100, Flag.ZERO_WEIGHT),
    16: (120, 140, Flag.SATURATED | Flag.MASKED_CENTRE),
    17: (np.nan, 0, "BAD_POSITION"),
    18: (60, 105, Flag.DUPLICATE_POSITION),
    19: (60.5, 105.5, Flag.DUPLICATE_POSITION),
    20: (100, 190, "PSF_BAD"),
    21: (100, 170, "PSF_BAD"),
    22: (230, 100, "READ_ERROR"),
    23: (140, 180, Flag.BAND_MISSING),
}


def hostile_survey(folder):
    """Bands a (tiles w and e, the latter cut short) and z (left half only)."""
    image, err, mask = noise_field(3), np.full((300, 260), 0.5, "f4"), np.zeros((300, 260), np.int16)
    for x, y in [*HEALTHY.values(), *[f[:2] for i, f in SICK.items() if i not in (12, 14, 17)]]:
        add_galaxy(image, y, x, 300)
    image[64, 122], image[65, 122] = np.nan, np.inf
    err[95:98, 125] = 0
    image[139:142, 119:122] = np.nan
    mask[230:270, 10:50] = 4
    for name, x0, x1 in (("w", 0, 170), ("e", 150, 260), ("z", 0, 130)):
        wcs = wcs_of()
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


def hostile_catalogue(path, rows):
    x, y = (np.array([r[k] for r in rows.values()], float) for k in (0, 1))
    ra, dec = np.full(len(x), np.nan), np.zeros(len(x))
    good = np.isfinite(x)
    ra[good], dec[good] = wcs_of().all_pix2world(x[good], y[good], 0)
    ids = np.array(list(rows)) + 2**60
    index = np.where(ids == 2**60 + 20, 1, np.where(ids == 2**60 + 21, 7, 0))
    pq.write_table(pa.table({"source_id": ids, "ra": ra, "dec": dec, "psf_index": index}), path)
    return path


def test_every_fault_of_a_source_is_in_the_ledger_and_the_healthy_are_as_if_alone(desk, capsys):
    hostile_survey(desk.root)
    mixed = dict(sorted({**HEALTHY, **SICK}.items(), key=lambda item: item[0] % 7))
    options = FIELD | dict(survey=desk.root / "s.toml", batch=8, draw_columns=True)
    catalogs = [hostile_catalogue(desk.root / f"{n}.parquet", r) for n, r in (("m", mixed), ("h", HEALTHY))]
    do = lambda desk: desk.process(catalog=catalogs[0], **options)  # noqa: E731
    judge(Fault(do, r"e_err\.fits is truncated"), desk, capsys)
    # a file that is cut short during a run was whole for its preflight
    desk.patch.setattr("galbatch.run.prepare.refuse_errors", lambda inputs: None)
    desk.patch.setattr("galbatch.cutouts.opened.check_survey", lambda survey, columns=None: [])

    def kept(desk, before):
        rows = {source - 2**60: row for source, row in ledger(desk.out).items()}
        assert set(rows) == set(mixed)
        for source, (*_, cause) in SICK.items():
            status, flags, code, message = rows[source]
            if isinstance(cause, str):
                assert (status, code) == ("failed", cause) and message, source
            else:
                assert status != "failed" and cause in flags and not code, source

    judge(Fault(do, "", 3, kept), desk, capsys)
    alone = desk.process(catalog=catalogs[1], out=desk.root / "alone.run", **options)
    same_rows(alone, open_run(desk.out))
