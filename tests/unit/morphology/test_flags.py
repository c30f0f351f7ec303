"""Morphology flag bits, their severity, and the command that explains flags."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from galbatch.cli.flags import command, parse
from galbatch.errors import InputError
from galbatch.morphology import MORPH_FLAG_DESCRIPTIONS, MorphFlag, flag_names, sersic_severity, severity
from galbatch.types import Flag


def run(*arguments):
    return CliRunner().invoke(command, list(arguments))


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


def test_command_decodes_source_flags():
    result = run(str(int(Flag.LOW_SNR | Flag.STAMP_TOO_SMALL)))
    assert result.exit_code == 0
    assert "LOW_SNR" in result.output and "STAMP_TOO_SMALL" in result.output and "EDGE" not in result.output


def test_command_decodes_morphology_flags():
    result = run("--morphology", hex(int(MorphFlag.GINI_SEGMENT_DISJOINT)))
    assert "GINI_SEGMENT_DISJOINT" in result.output and "suspect" in result.output
    assert "LOW_SNR" not in result.output


def test_command_lists_all_without_a_number():
    output = run().output
    assert all(flag.name in output for flag in Flag) and all(flag.name in output for flag in MorphFlag)


def test_command_json_and_unknown_bits():
    rows = json.loads(run("--json", str(int(Flag.EDGE) + (1 << 60))).output)["flags"]
    assert [row["name"] for row in rows] == ["EDGE", "UNKNOWN_60"]


def test_command_zero():
    assert "no bits" in run("0").output


@pytest.mark.parametrize(("text", "value"), [("16", 16), ("0x10", 16), ("0b1_0000", 16), ("16.0", 16)])
def test_parse(text, value):
    assert parse(text, []) == value


@pytest.mark.parametrize("text", ["a", "-4", "1.5", ""])
def test_parse_refuses(text):
    with pytest.raises(InputError, match="flags"):
        parse(text, [])
