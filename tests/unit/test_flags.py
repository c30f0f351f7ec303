"""The table of flags: complete, one for the command, the page and the columns of quality."""

import numpy as np

from galbatch.flags import FLAGS, Flag, Level, names_of, quality_of
from galbatch.pipeline.measurement import grade


def columns(**flags):
    n = len(next(iter(flags.values())))
    return {
        name: values
        for band, bits in flags.items()
        for name, values in {
            f"flags_{band}": np.array(bits, np.int64),
            f"chi2_{band}": np.ones(n),
        }.items()
    }


def test_every_flag_has_a_level_a_meaning_and_a_remedy():
    assert list(FLAGS) == list(Flag)
    for about in FLAGS.values():
        assert isinstance(about.level, Level) and len(about.meaning) > 10 and len(about.remedy) > 5
        assert not about.meaning.endswith(".") and not about.remedy.endswith(".")
    assert not any(int(flag) == 1 << 29 for flag in Flag)  # of TIMEOUT, which nothing ever set


def test_quality_is_the_worst_level():
    assert Level.INFO == FLAGS[Flag.NONFINITE].level == FLAGS[Flag.EDGE].level
    bits = [0, Flag.NONFINITE, Flag.EDGE | Flag.BACKGROUND, Flag.BACKGROUND | Flag.SAMPLER_CHI2, 1 << 29]
    found = quality_of(np.array([int(b) for b in bits]))
    assert found.dtype == np.int8 and found.tolist() == [0, 0, 1, 2, 0]
    assert names_of(int(Flag.EDGE | Flag.SAMPLER_CHI2 | Flag.BACKGROUND)) == [
        "SAMPLER_CHI2",
        "BACKGROUND",
        "EDGE",
    ]
    assert names_of(int(Flag.EDGE | Flag.BACKGROUND), Level.CAUTION) == ["BACKGROUND"]


def test_bands_combine_into_the_source():
    """Good in both; caution in one; bad in one; one missing for a reason that is bad; none; failed."""
    low, chi2, missing = int(Flag.BACKGROUND), int(Flag.SAMPLER_CHI2), int(Flag.BAND_MISSING)
    table = columns(
        a=[0, 0, 0, 0, missing, 0],
        b=[int(Flag.EDGE), low, chi2, missing | int(Flag.PSF_BAD | Flag.OFF_IMAGE), missing, 0],
    )
    failed = np.array([False] * 5 + [True])
    flags = grade(table, ("a", "b"), np.array([0, 0, 0, int(Flag.PSF_BAD), 0, 0]), failed)
    assert table["quality_a"].tolist() == [0, 0, 0, 0, 2, 2]
    assert table["quality_b"].tolist() == [0, 1, 2, 2, 2, 2]
    assert table["quality"].tolist() == [0, 1, 2, 1, 2, 2] and table["quality"].dtype == np.int8
    assert flags[0] == Flag.EDGE and not flags[3] & Flag.OFF_IMAGE and flags[3] & Flag.PSF_BAD


def test_what_concerns_the_whole_source_counts_too():
    table = columns(a=[0, 0])
    grade(table, ("a",), np.array([int(Flag.DUPLICATE_ID), int(Flag.DUPLICATE_POSITION)]), np.zeros(2, bool))
    assert table["quality_a"].tolist() == [0, 0] and table["quality"].tolist() == [1, 0]
