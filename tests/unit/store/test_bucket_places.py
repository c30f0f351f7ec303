"""Catalogues from a bucket, exports into one, and a run that takes the place of another there."""

import pickle

import pytest
import toys
from bucket import contents, s3, same_bytes  # noqa: F401
from child_run import OPTIONS
from runs import same, serial, survey  # noqa: F401

from galbatch.catalog import open_catalog
from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.run import folder, process, resume, verify
from galbatch.store import BucketPath, place_of

pytestmark = pytest.mark.ci("obstore", "moto")


@pytest.mark.parametrize("form", ["hats", "votable", "fits"])
def test_an_export_has_the_bytes_of_one_in_a_folder(s3, serial, tmp_path, capsys, form):  # noqa: F811
    places = [str(tmp_path / form), f"s3://bucket/exports/{form}"]
    for where in (*places, places[1]):  # the second time all is there already
        assert main(["export", str(serial), "--to", form, "--out", where]) == 0, capsys.readouterr()
    one, two = (contents(place_of(where)) for where in places)
    assert one == two and len(one) >= {"hats": 12, "votable": 2, "fits": 10}[form]
    other = next(path for path in place_of(places[1]).rglob("*") if "galbatch" not in path.name)
    other.write_bytes(b"edited")
    assert main(["export", str(serial), "--to", form, "--out", places[1]]) != 0
    assert "was edited" in capsys.readouterr().err and other.read_bytes() == b"edited"


def test_a_catalogue_in_a_bucket_is_one_like_any_other(s3, survey, serial, tmp_path, capsys):  # noqa: F811
    flat = place_of("s3://bucket/cats/flat.parquet")
    hats = place_of("s3://bucket/cats/hats")
    (hats / "partition_info.csv").write_bytes(b"Norder,Npix\n0,4\n")
    for path in (flat, hats / "dataset/Norder=0/Dir=0/Npix=4.parquet"):
        path.take_file(survey)
    here = open_catalog(survey)
    for place, by_sky in ((flat, False), (hats, True)):
        there = pickle.loads(pickle.dumps(open_catalog(place)))
        assert next(there.tables()).equals(next(here.tables())) and there.by_sky is by_sky
    run = process(
        "s3://bucket/cats/flat.parquet",
        survey.with_suffix(".toml"),
        tmp_path / "b.run",
        prior=toys.GaussianPrior(),
        cluster="none",
        **OPTIONS,
    )
    same(serial, run.paths.root)
    assert main(["check", str(hats)]) != 0 and "name the survey file with --survey" in capsys.readouterr().err
    assert main(["check", str(hats), "--survey", str(survey.with_suffix(".toml"))]) == 0
    (hats / "partition_info.csv").write_bytes(b"Norder,Npix\n0,4\n0,5\n")
    with pytest.raises(InputError, match="1 of its 2 partitions have no file"):
        open_catalog(hats)


def test_overwrite_puts_the_new_run_in_the_place_of_the_old(s3, survey, serial, monkeypatch):  # noqa: F811
    """Stopped after any request of the swap, the next command ends it; what others put there stays."""
    where, how = "s3://bucket/over/o.run", {"prior": toys.GaussianPrior(), "cluster": "none"}
    process(survey, out=where, **how, **OPTIONS | {"seed": 3})
    place_of(f"{where}/letters.txt").write_bytes(b"mine")
    left, unlink, copy_to = [12], BucketPath.unlink, BucketPath.copy_to

    def stopping(real):
        def request(path, *more, **options):
            if "o.run" in str(path):
                left[0] -= 1
            if left[0] == 0:
                raise ConnectionError("stopped here")
            return real(path, *more, **options)

        return request

    process(survey, out=where, overwrite=True, **how, **OPTIONS)
    same_bytes(serial, place_of(where))
    for stop in (2, 70):
        process(survey, out=where, overwrite=True, **how, **OPTIONS | {"seed": 3})
        with monkeypatch.context() as patch:
            real = folder._copy_over

            def copy_over(new, target, stop=stop, patch=patch, real=real):
                left[0] = stop
                patch.setattr(BucketPath, "unlink", stopping(unlink))
                patch.setattr(BucketPath, "copy_to", stopping(copy_to))
                return real(new, target)

            patch.setattr(folder, "_copy_over", copy_over)
            with pytest.raises(Exception, match="stopped here"):
                process(survey, out=where, overwrite=True, **how, **OPTIONS)
        resume(where, **how)
        same_bytes(serial, place_of(where))
        assert verify(where) == [] and place_of(f"{where}/letters.txt").read_bytes() == b"mine"
        assert [path.name for path in place_of("s3://bucket/over").iterdir()] == ["o.run"]
