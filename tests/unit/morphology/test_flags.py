"""Morphology flag bits and their severity."""

import numpy as np

from galbatch.morphology import MORPH_FLAG_DESCRIPTIONS, MorphFlag, flag_names, sersic_severity, severity


def test_every_bit_is_one_bit_and_described():
    values = [int(flag) for flag in MorphFlag]
    assert all(v & (v - 1) == 0 for v in values) and len(set(values)) == len(values)
    assert set(MORPH_FLAG_DESCRIPTIONS) == set(MorphFlag)


def test_bits_never_change():
    assert int(MorphFlag.FLUX_NOT_POSITIVE) == 1
    assert int(MorphFlag.GINI_SEGMENT_DISJOINT) == 1 << 11
    assert int(MorphFlag.CENTRE_DRIFT) == 1 << 17
    assert int(MorphFlag.SERSIC_BOUND) == 1 << 35


def test_severity_is_the_worst_cause():
    flags = [
        0,
        MorphFlag.APERTURE_CUT,
        MorphFlag.CENTRE_DRIFT,
        MorphFlag.CENTRE_DRIFT | MorphFlag.M20_FAILED,
        MorphFlag.NO_SEGMENT | MorphFlag.M20_FAILED,
        MorphFlag.SERSIC_NOT_CONVERGED,
    ]
    assert severity([int(f) for f in flags]).tolist() == [0, 0, 1, 2, 4, 0]
    assert sersic_severity([int(MorphFlag.SERSIC_BOUND), int(flags[-1]), 0]).tolist() == [1, 2, 0]


def test_severity_of_one_number_and_of_an_array():
    assert int(severity(int(MorphFlag.NO_PIXELS))) == 4
    assert severity(np.zeros((2, 3), np.int64)).shape == (2, 3)


def test_names():
    assert flag_names(int(MorphFlag.M20_FAILED | MorphFlag.NO_SKY_BOX)) == ["M20_FAILED", "NO_SKY_BOX"]
    assert flag_names(0) == []
