"""``galbatch flags``: what the bits of a number mean, or the names of flags."""

import json

import pytest

from galbatch.cli.flags import parse
from galbatch.cli.main import main
from galbatch.errors import InputError
from galbatch.flags import FLAGS, Flag
from galbatch.morphology import MorphFlag


@pytest.mark.parametrize(("words", "said", "unsaid"), [
    ([str(int(Flag.LOW_SNR | Flag.STAMP_TOO_SMALL))], ["LOW_SNR", "STAMP_TOO_SMALL"], "EDGE"),
    (["-m", hex(int(MorphFlag.GINI_SEGMENT_DISJOINT))], ["GINI_SEGMENT_DISJOINT", "suspect"], "LOW_SNR"),
    ([str(int(Flag.SAMPLER_CHI2))], ["bad", FLAGS[Flag.SAMPLER_CHI2].remedy], "caution"),
    (["noise_level,LOW_SNR"], [f"flags = {2**32 + 2**15}: 2 bits", "What to do:"], "EDGE"),
    (["0"], ["no bits"], "EDGE"),
    ([], [flag.name for flag in (*Flag, *MorphFlag)], "What to do:"),
])  # fmt: skip
def test_bits_are_said_with_level_and_remedy(words, said, unsaid, capsys):
    assert main(["flags", *words]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in said) and unsaid not in out


def test_json_has_every_bit_and_its_level(capsys):
    assert main(["flags", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["flags"]
    assert {row["name"]: row["level"] for row in rows} == {
        f.name: a.level.name.lower() for f, a in FLAGS.items()
    }
    assert main(["flags", "--json", str(int(Flag.EDGE) + (1 << 60))]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["flags"]] == ["EDGE", "UNKNOWN_60"]


@pytest.mark.parametrize("text", ["16", "0x10", "0b1_0000", "16.0"])
def test_numbers_of_every_form_are_read(text):
    assert parse(text, []) == 16


@pytest.mark.parametrize("text", ["a", "-4", "1.5", ""])
def test_what_is_no_number_and_no_flag_is_refused(text):
    with pytest.raises(InputError, match="flags"):
        parse(text, [])
    with pytest.raises(InputError, match="lists them"):
        parse("NOISY", [])
