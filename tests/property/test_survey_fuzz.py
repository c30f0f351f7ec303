"""Damaged survey files, FITS files and catalogues: only errors of ours, no hang, nothing else opened."""

import builtins
import gzip
import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galbatch.catalog import open_catalog, validate
from galbatch.cutouts import open_survey
from galbatch.errors import GalbatchError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
SURVEY = """name = "x"
stamp_arcsec = 1.0
[bands.f]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
unit = "nJy"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sound survey of 48 x 40 pixels."""
    path = tmp_path_factory.mktemp("survey")
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRPIX1": 20.0,
            "CRPIX2": 24.0,
            "CRVAL1": 150.0,
            "CRVAL2": 2.0,
            "CDELT1": -1e-5,
            "CDELT2": 1e-5,
            "BUNIT": "nJy",
        }
    )
    noise = np.random.default_rng(0).normal(size=(48, 40)).astype("f4")
    fits.PrimaryHDU(noise, header).writeto(path / "sci.fits")
    fits.PrimaryHDU(np.ones((48, 40), "f4"), header).writeto(path / "err.fits")
    psf = np.zeros((5, 5), "f4")
    psf[2, 2] = 1
    fits.PrimaryHDU(psf, fits.Header({"PIXSCALE": 0.036})).writeto(path / "psf.fits")
    grid = {"NXPSFS": 2, "NYPSFS": 1, "IPSFX01": 1, "IPSFX02": 40, "JPSFY01": 24, "PIXSCALE": 0.036}
    fits.PrimaryHDU(np.stack([psf, psf]), fits.Header(grid)).writeto(path / "stdpsf.fits")
    basis = np.stack([psf, psf * 0, psf * 0])
    column = fits.Column("PSF_MASK", f"{basis.size}E", dim="(5,5,3)", array=basis[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    model = {"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE", "POLZERO1": 20.0, "POLZERO2": 24.0}
    model |= {"POLSCAL1": 40.0, "POLSCAL2": 48.0, "POLGRP1": 1, "POLGRP2": 1, "POLNGRP": 1, "POLDEG1": 1}
    table.header.update(model | {"PSF_SAMP": 1.0, "PSFNAXIS": 3, "PSF_FWHM": 2.0})
    table.writeto(path / "psfex.fits")
    (path / "sci.fits.gz").write_bytes(gzip.compress((path / "sci.fits").read_bytes(), mtime=0))
    tiled = fits.CompImageHDU(noise, header, compression_type="RICE_1", quantize_level=16.0)
    fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(path / "sci.fits.fz")
    (path / "s.toml").write_text(SURVEY)
    pq.write_table(
        pa.table({"source_id": [1, 2], "ra": [150.0, 150.001], "dec": [2.0, 2.0], "name": ["a", "b"]}),
        path / "c.parquet",
    )
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def use(folder, name="s.toml"):
    """All that a run does with a survey before sampling. Anything but an error of ours is a failure of the
    test."""
    try:
        survey = open_survey(folder / name)
        survey.check(["source_id", "ra", "dec"])
        rows = {"source_id": np.array([1, 2]), "ra": np.array([150.0, 150.0001]), "dec": np.array([2.0, 2.0])}
        survey.locate(rows["ra"], rows["dec"])
        batch = survey.cut(rows, 16)
        assert len(batch.flags) == 2
        for stamps in batch.bands:
            assert not np.any(np.isfinite(stamps.sigma) & stamps.mask)
            assert np.all(np.isfinite(stamps.data[~stamps.mask])) and np.all(stamps.sigma[~stamps.mask] > 0)
    except GalbatchError as error:
        assert str(error)
        return error
    return None


FILES = ["sci.fits", "err.fits", "psf.fits", "stdpsf.fits", "psfex.fits", "sci.fits.gz", "sci.fits.fz"]


def survey_with(which: str, name: str) -> str:
    """The survey file in which the plane that ``which`` stands for is ``name``."""
    plane = "psf.fits" if "psf" in which else which[:3] + ".fits"
    return SURVEY.replace(plane, name) + (
        "psf_frame = 'mosaic'\n" if which[:3] == "std" or "ex" in which else ""
    )


@pytest.mark.parametrize("which", FILES)
def test_the_sound_survey_works(folder, which):
    (folder / "sound.toml").write_text(survey_with(which, which))
    assert use(folder, "sound.toml") is None


KEYS = st.sampled_from(
    [
        "name",
        "layout",
        "stamp_arcsec",
        "stamp_pix",
        "tiles",
        "bands",
        "sci",
        "err",
        "wht",
        "psf",
        "mask",
        "seg",
        "exp",
        "mask_bits",
        "unit",
        "err_scale",
        "noise_acf",
        "zero_point_ab",
        "pixel_scale_arcsec",
        "optional",
        "psf_frame",
        "psf_norm",
        "saturation",
        "neighbours",
        "pixel_columns",
        "x.y",
        "'../z'",
        "psf_scale_arcsec",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            '"sci.fits"',
            '"psf.fits[0]"',
            '"err.fits[99]"',
            '""',
            '"[SCI]"',
            '"../../../../etc/passwd"',
            '"/dev/zero"',
            "[]",
            "{}",
            '"generic"',
            '"dja"',
            '"hsc"',
            '"s.toml"',
            '"measure"',
            '"nJy"',
            '"{tile}"',
            '"file:///etc/passwd"',
            "true",
            "1979-05-27",
            "inf",
            "nan",
            "-1",
            "0",
            "1e400",
            "9" * 400,
            '["a", "b"]',
            "[[1]]",
            '"\\u0000"',
            '"~/x"',
            '"."',
        ]
    ),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=12).map(lambda s: '"' + s.replace("\\", "").replace('"', "") + '"'),
)


@QUICK
@given(st.lists(st.tuples(KEYS, VALUES), max_size=5), st.booleans(), st.booleans())
def test_any_survey_file(folder, lines, in_band, keep):
    extra = "\n".join(f"{k} = {v}" for k, v in lines)
    taken = {k for k, _ in lines}
    body = [line for line in SURVEY.splitlines() if line.split(" =")[0] not in taken] if keep else []
    head = [line for line in body if not line.startswith(("[", "sci", "err", "psf", "unit"))]
    band = [line for line in body if line.startswith(("[", "sci", "err", "psf", "unit"))] or ["[bands.f]"]
    text = "\n".join([*head, *band, extra] if in_band else [*head, extra, *band])
    (folder / "fuzz.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
    use(folder, "fuzz.toml")


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_as_a_survey_file(folder, content):
    (folder / "fuzz.toml").write_bytes(content)
    assert use(folder, "fuzz.toml") is not None


CARDS = st.tuples(
    st.sampled_from(
        [
            "SIMPLE",
            "BITPIX",
            "NAXIS",
            "NAXIS1",
            "NAXIS2",
            "NAXIS3",
            "PCOUNT",
            "GCOUNT",
            "BSCALE",
            "BZERO",
            "BLANK",
            "CTYPE1",
            "CTYPE2",
            "CRPIX1",
            "CRVAL1",
            "CRVAL2",
            "CDELT1",
            "CDELT2",
            "PC1_1",
            "PC1_2",
            "CD1_1",
            "BUNIT",
            "EXTNAME",
            "XTENSION",
            "ZIMAGE",
            "END",
            "SATURATE",
            "NXPSFS",
            "IPSFX02",
            "JPSFY01",
            "POLDEG1",
            "POLNAXIS",
            "POLNAME1",
            "POLSCAL1",
            "PSF_SAMP",
            "TFORM1",
            "TDIM1",
            "TTYPE1",
            "TFIELDS",
            "ZNAXIS1",
            "ZBITPIX",
            "ZTILE1",
            "ZCMPTYPE",
            "A_ORDER",
            "PV1_1",
            "PIXSCALE",
            "LONPOLE",
            "WCSAXES",
        ]
    ),
    st.sampled_from(
        [
            "0",
            "1",
            "-1",
            "2",
            "3",
            "8",
            "-32",
            "-64",
            "99",
            "1E400",
            "NaN",
            "T",
            "F",
            "'x'",
            "'RA---TPV'",
            "'nJy'",
            "99999999999",
            "1.5",
            "",
            "'",
            "(1, 2)",
            "-0.0",
            "1e-320",
            "'MJy/sr/sr'",
            "'GLON-CAR'",
        ]
    ),
)


def damaged(content: bytes, cards, flips, cut) -> bytes:
    """The file with cards replaced or added, bytes changed, and its end cut off."""
    out = bytearray(content)
    for key, value in cards:
        card = f"{key:<8}= {value:>20}".ljust(80)[:80].encode("ascii")
        at = out.find(f"{key:<8}=".encode())
        at = at if at >= 0 and at % 80 == 0 else out.find(b"END" + b" " * 77)
        if at >= 0:
            out[at : at + 80] = card
    for position, value in flips:
        out[position % len(out)] = value
    return bytes(out[: len(out) - cut])


@QUICK
@given(
    st.sampled_from(FILES),
    st.lists(CARDS, max_size=4),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
    st.sampled_from([0, 0, 0, 1, 80, 2880, 9000]),
)
def test_any_damage_to_a_fits_file(folder, which, cards, flips, cut):
    name = which.replace(which.split(".")[0], "fuzz")
    (folder / name).write_bytes(damaged((folder / which).read_bytes(), cards, flips, cut))
    (folder / "fuzz.toml").write_text(survey_with(which, name))
    use(folder, "fuzz.toml")


@QUICK
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12),
    st.sampled_from([0, 0, 1, 8, 200]),
)
def test_any_damage_to_a_parquet_file(folder, flips, cut):
    content = bytearray((folder / "c.parquet").read_bytes())
    for position, value in flips:
        content[position % len(content)] = value
    (folder / "fuzz.parquet").write_bytes(content[: len(content) - cut])
    try:
        catalog = open_catalog(folder / "fuzz.parquet")
        if catalog.n_rows < 1000:
            validate(catalog)
            catalog.read()
    except GalbatchError as error:
        assert str(error)


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.lists(st.text(max_size=5), max_size=20)
)
ANY_FLOAT = st.floats(width=64)


@QUICK
@given(IDS, st.data())
def test_any_values_in_a_catalogue(folder, ids, data):
    n = len(ids)
    column = st.lists(ANY_FLOAT, min_size=n, max_size=n)
    kind = pa.string() if any(isinstance(i, str) for i in ids) else pa.int64()
    pq.write_table(
        pa.table(
            {
                "source_id": pa.array(ids, kind),
                "ra": pa.array(data.draw(column), pa.float64()),
                "dec": pa.array(data.draw(column), pa.float64()),
            }
        ),
        folder / "values.parquet",
    )
    catalog = open_catalog(folder / "values.parquet")
    found = validate(catalog)
    assert catalog.read()["source_id"].tolist() == ids
    assert (len(set(ids)) < n) == any(f.code == "duplicate_id" for f in found.findings)
    if n:
        assert len(found.flags) == n == len(found.bad_position)
        rows = catalog.read()
        batch = open_survey(folder / "s.toml").cut(rows, 8)
        assert set(batch.failures) == set(np.nonzero(batch.bands[0].mask.all(axis=(1, 2)))[0])


@QUICK
@given(st.lists(st.integers(-30, 70), min_size=1, max_size=12), st.integers(1, 20), st.randoms())
def test_each_source_is_cut_the_same_whatever_is_beside_it(folder, pixels, size, random):
    survey = open_survey(folder / "s.toml")
    x = np.array(pixels, float)
    ra, dec = survey.tile("f", "0").grid.to_sky(x, np.roll(x, 1))
    rows = {"source_id": np.arange(len(x)), "ra": ra, "dec": dec}
    together = survey.cut(rows, size).bands[0]
    i = random.randrange(len(x))
    alone = survey.cut({k: v[i : i + 1] for k, v in rows.items()}, size).bands[0]
    for name in ("data", "sigma", "mask", "seg"):
        np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name)[0])


def test_a_pipe_or_folder_in_place_of_a_file_does_not_hang(folder):
    os.makedirs(folder / "dir.fits", exist_ok=True)
    os.mkfifo(folder / "pipe.fits")
    for name in ("pipe.fits", "dir.fits", "/dev/zero"):
        for which in ("sci", "err", "psf"):
            (folder / "fuzz.toml").write_text(SURVEY.replace(f"{which}.fits", name))
            assert "regular file" in str(
                use(folder, "fuzz.toml") or "regular file" if which == "psf" else use(folder, "fuzz.toml")
            )
    os.unlink(folder / "pipe.fits")
    os.mkfifo(folder / "pipe.toml")
    assert "regular file" in str(use(folder, "pipe.toml"))
    os.mkfifo(folder / "pipe.parquet")
    with pytest.raises(GalbatchError, match="regular file"):
        open_catalog(folder / "pipe.parquet")


def test_only_the_named_files_are_opened(folder, monkeypatch):
    """A survey file opens what it names, and nothing is written beside it."""
    opened = []

    def watch(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, *a, **k: (opened.append(str(path)), real(path, *a, **k))[1]
        )

    watch(builtins, "open")
    watch(io, "open")
    watch(os, "open")
    before = sorted(os.listdir(folder))
    use(folder)
    inside = {os.path.basename(p) for p in opened if str(folder) in p}
    assert inside <= {"s.toml", "sci.fits", "err.fits", "psf.fits"} and {"sci.fits", "err.fits"} <= inside
    assert sorted(os.listdir(folder)) == before
