"""Damaged survey files: only errors of ours, no hang, nothing else opened."""

import builtins
import io
import os

import pytest
from damage import QUICK, SURVEY, use
from hypothesis import given
from hypothesis import strategies as st

from galbatch.catalog import open_catalog
from galbatch.errors import GalbatchError

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
