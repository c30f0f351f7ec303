"""Damaged FITS files, plain and compressed, images and PSF models: only errors of ours."""

import pytest
from damage import FILES, QUICK, survey_with, use
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("which", FILES)
def test_the_sound_survey_works(folder, which):
    (folder / "sound.toml").write_text(survey_with(which, which))
    assert use(folder, "sound.toml") is None


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
