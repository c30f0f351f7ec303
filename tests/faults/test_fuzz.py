"""Random damage to run folders, survey files, FITS files and catalogues, for 20 seconds in all.

What holds of every case: no traceback; what is refused is refused in words, and what is accepted is what it
was, or what another reader makes of it; nothing of the user's goes. Longer, and from other seeds:

    GALBATCH_FUZZ_SECONDS=1800 GALBATCH_FUZZ_SEED=$RANDOM pytest -s tests/faults/test_fuzz.py
"""

import shutil
import tomllib
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
from fake_run import write_fake_run
from faults import tree
from fuzz import (
    FILES,
    ROWS,
    SURVEY,
    WORDS,
    as_astropy_reads,
    fuzz,
    harm_bytes,
    harm_folder,
    harm_text,
    sound_survey,
    survey_with,
    use,
    with_cards,
)

from galbatch.catalog import open_catalog, validate
from galbatch.cli.main import main
from galbatch.cutouts import open_survey
from galbatch.cutouts.survey.layout import SURVEY_KEYS
from galbatch.errors import GalbatchError, InputError
from galbatch.run import process, resume, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sound_survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def said_by(capsys, *arguments):
    """Exit code and words of a command, which blames nobody for a bug."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "Traceback" not in said and "This is a bug" not in said, said
    assert code in (0, 1, 3), said
    return code, said


def test_run_folders(tmp_path, capsys):
    """``verify`` finds whatever is not as it was, and changes nothing; other commands answer in words."""
    paths = write_fake_run(tmp_path / "sound.run", n=4, draws=2, size=8, batch=2)
    sound, run = tree(paths.root), tmp_path / "a.run"
    looks = (
        ["status", run],
        ["show", run, "1001"],
        ["export", run, "--to", "votable", "--out", tmp_path / "v"],
    )

    def case(rng):
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(tmp_path / "v", ignore_errors=True)
        shutil.copytree(paths.root, run)
        done = harm_folder(rng, run)
        (run / "notes.txt").write_text("mine")
        damaged = tree(run)
        code, said = said_by(capsys, "verify", run)
        assert code == (1 if damaged != sound | {"notes.txt": b"mine"} else 0), (done, said)
        assert tree(run) == damaged, done
        said_by(capsys, *rng.choice(looks))
        assert tree(run) == damaged, done

    fuzz("run_folders", 1 / 6, case)


def test_resume(tmp_path):
    """A damaged run is refused, and all that was sound is left, or it is what it was; others' files stay."""
    survey, prior = toys.write_survey(tmp_path / "survey", n=4), toys.GaussianPrior()
    options = dict(prior=prior, cluster="none", report=False)
    process(survey, out=tmp_path / "sound.run", batch=2, draws=2, mode="fast", **options)
    sound, run = tree(tmp_path / "sound.run"), tmp_path / "a.run"
    product = toys.product(tmp_path / "sound.run")

    def case(rng):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(tmp_path / "sound.run", run)
        if rng.random() < 0.5:  # it had been stopped
            for name in ("catalog.parquet", "summary.json", "parts/batch-000001.arrow"):
                (run / name).unlink()
        done = harm_folder(rng, run)
        mine = {name: b"mine" for name in ("notes.txt", "parts/.git", "x.tmp", "posterior.zarr.txt")}
        for name, content in mine.items():
            if (run / name).parent.is_dir():
                (run / name).write_bytes(content)
        before = tree(run)
        committed = {
            name: before[name]
            for name in sound
            if name.startswith("parts/") and all(before.get(n) == sound[n] for n in both(name))
        }
        try:
            resume(run, **options)
        except GalbatchError as error:
            assert len(str(error)) > 20, done
            kept = committed
        else:
            problems, kept = verify(run), {}
            if toys.product(run) != product:
                assert problems, done  # of the shards, resume reads no bytes
            else:
                assert problems == [], done
        kept = kept | {name: content for name, content in mine.items() if name in before}
        assert kept.items() <= tree(run).items(), done

    fuzz("resume", 1 / 3, case)


def both(name):
    """A part and its note."""
    stem = name.rpartition(".")[0]
    return f"{stem}.arrow", f"{stem}.json"


def test_survey_files(folder):
    """What is accepted is what the file says: every key is known, every value is used, and an unchanged
    meaning gives unchanged stamps."""
    _, clean = use(folder / "s.toml")

    def case(rng):
        text = SURVEY
        for _ in range(rng.randint(1, 4)):
            text = harm_text(rng, text, WORDS)
        data = text.encode("utf-8", "surrogatepass")
        (folder / "fuzz.toml").write_bytes(harm_bytes(rng, data) if rng.random() < 0.1 else data)
        survey, batch = use(folder / "fuzz.toml")
        if survey is None:
            return
        said, used = tomllib.loads((folder / "fuzz.toml").read_text()), survey.config.resolved()
        (tile,) = used["bands"][0]["tiles"]
        assert set(said) <= set(SURVEY_KEYS) and len(said["bands"]) == 1
        (band,) = said["bands"].values()
        for table, resolved in ((said, used), (band, tile)):
            for key, value in table.items():
                if isinstance(value, int | float) or key in ("unit", "neighbours", "psf_norm", "name"):
                    assert resolved[key] == value, (key, text)
        if said == tomllib.loads(SURVEY):
            for one, other in zip(batch.bands, clean.bands, strict=True):
                np.testing.assert_array_equal(one.data, other.data)
                np.testing.assert_array_equal(one.sigma, other.sigma)

    fuzz("survey_files", 1 / 12, case)


def test_fits_files(folder):
    """What is accepted has the pixels, at the positions, that astropy finds in it."""

    def case(rng):
        which = rng.choice(FILES)
        name = which.replace(which.split(".")[0], "fuzz")
        content = with_cards(rng, (folder / which).read_bytes())
        (folder / name).write_bytes(harm_bytes(rng, content) if rng.random() < 0.5 else content)
        (folder / "fuzz.toml").write_text(survey_with(which, name))
        survey, batch = use(folder / "fuzz.toml")
        known = as_astropy_reads(folder / (name if which[:3] == "sci" else "sci.fits"))
        if survey is None or known is None:
            return
        image, wcs = known
        stamps, half = batch.bands[0], batch.bands[0].data.shape[1] // 2
        for n, (x, y) in enumerate(np.transpose(wcs.all_world2pix(ROWS["ra"], ROWS["dec"], 0))):
            if not np.isfinite(x + y):
                assert stamps.mask[n].all()
                continue
            if min(abs((v % 1) - 0.5) for v in (x, y)) < 1e-6:
                continue  # half way between two pixels: either may be the middle
            rows, columns = (round(v) - half + np.arange(2 * half) for v in (y, x))
            seen = np.argwhere(~stamps.mask[n])
            for i, j in seen[:: max(1, len(seen) // 9)]:
                assert image[rows[i], columns[j]] == pytest.approx(stamps.data[n, i, j], rel=1e-5), (which, n)

    fuzz("fits_files", 1 / 6, case)


def test_the_sound_files_are_used(folder):
    for which in FILES:
        (folder / "sound.toml").write_text(survey_with(which, which))
        survey, batch = use(folder / "sound.toml")
        assert survey is not None and not batch.failures, batch


def test_catalogues(folder):
    """A damaged Parquet file is refused, or read as Arrow reads it."""

    def case(rng):
        content = (folder / "c.parquet").read_bytes()
        for _ in range(rng.randint(1, 3)):
            content = harm_bytes(rng, content)
        (folder / "fuzz.parquet").write_bytes(content)
        try:
            catalog = open_catalog(folder / "fuzz.parquet")
            if catalog.n_rows > 1000:
                return
            validate(catalog)
            rows = catalog.read()
            assert sum(len(table) for table in catalog.tables()) == len(rows["ra"])
        except GalbatchError as error:
            assert len(str(error)) > 20
            return
        own = {known: name for name, known in catalog.read_as.items()}
        names = [own.get(name, name) for name in ROWS]
        table = pq.read_table(folder / "fuzz.parquet", columns=names, page_checksum_verification=True)
        for name, column in zip(ROWS, table.select(names).columns, strict=True):
            read = column.to_numpy().astype(rows[name].dtype)
            assert np.array_equal(rows[name], read, equal_nan=read.dtype.kind == "f")  # ids may be text

    fuzz("catalogues", 1 / 12, case)


LETTERS = "ab\u03b1\u0301\x00\n\x7f /%\U0001f30c"
INTEGERS = [0, 1, -(2**63), 2**63 - 1, *range(7, 2**60, 2**56 + 3)]
FLOATS = [float(v) for v in "0 -0 90 -90 360 360.0000001 1e-320 1e308 -1 nan inf -inf 2 150".split()]


def test_values_of_catalogues(folder):
    """Any ids and positions: refused by name, or accounted for row by row."""

    def case(rng):
        n = rng.randrange(12)
        text = rng.random() < 0.5
        ids = [
            ("".join(rng.choices(LETTERS, k=rng.randrange(4))) if text else rng.choice(INTEGERS))
            for _ in range(n)
        ]
        ra, dec = ([rng.choice([*FLOATS, rng.uniform(-400, 400)]) for _ in range(n)] for _ in range(2))
        kinds = {"source_id": pa.string() if text else pa.int64(), "ra": pa.float64(), "dec": pa.float64()}
        table = pa.table([ids, ra, dec], schema=pa.schema(kinds))
        pq.write_table(table, folder / "values.parquet")
        catalog = open_catalog(folder / "values.parquet")
        found = validate(catalog)
        if text and any(unicodedata.category(c) == "Cc" for i in ids for c in i):
            assert any(f.level == "error" for f in found.findings)
            with pytest.raises(InputError, match="control character"):
                catalog.read()
            return
        rows = catalog.read()
        assert rows["source_id"].tolist() == ids
        assert (len(set(ids)) < n) == any(f.code == "duplicate_id" for f in found.findings)
        if n:
            assert len(found.flags) == n
            batch = open_survey(folder / "s.toml").cut(rows, 8)
            assert set(batch.failures) == set(np.nonzero(batch.bands[0].mask.all(axis=(1, 2)))[0])

    fuzz("values_of_catalogues", 1 / 12, case)


def test_a_source_is_cut_the_same_whatever_is_beside_it(folder):
    survey = open_survey(folder / "s.toml")

    def case(rng):
        x = np.array([rng.randint(-30, 70) for _ in range(rng.randint(1, 12))], float)
        ra, dec = survey.tile("f", "0").grid.to_sky(x, np.roll(x, 1))
        rows = {"source_id": np.arange(len(x)), "ra": ra, "dec": dec}
        size, i = rng.randint(1, 20), rng.randrange(len(x))
        together = survey.cut(rows, size).bands[0]
        alone = survey.cut({k: v[i : i + 1] for k, v in rows.items()}, size).bands[0]
        for name in ("data", "sigma", "mask", "seg"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name)[0])

    fuzz("a_source_is_cut", 1 / 12, case)
