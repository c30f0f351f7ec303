"""The survey file: what is accepted, and that every mistake is named with what is allowed."""

import json

import pytest

from galbatch.cutouts import SurveyConfig, load_survey
from galbatch.errors import ConfigError

BAND = '[bands.f200w]\nsci = "a.fits"\nerr = "b.fits"\npsf = "p.fits"\n'


def write(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_survey_file(tmp_path):
    config = load_survey(
        write(tmp_path, BAND.replace('"a.fits"', '"sub/a.fits[SCI]"').replace('"b.fits"', '"/abs/b.fits"'))
    )
    tile = config.bands[0].tiles[0]
    assert tile.sci.path == str(tmp_path / "sub/a.fits") and tile.sci.ext == ("SCI",)
    assert tile.err.path == "/abs/b.fits"
    assert config.name == "s" and config.neighbours == "separate"


def test_resolved_is_json_and_comes_back(tmp_path):
    text = (
        'tiles = ["a", "b"]\nstamp_arcsec = 2.0\n'
        + BAND.replace("a.fits", "{tile}/{band}.fits")
        + 'mask = "m.fits"\nmask_bits = [0, 3]\nerr_scale = "measure"\nunit = "uJy"\n'
    )
    config = load_survey(write(tmp_path, text))
    back = SurveyConfig.from_resolved(json.loads(json.dumps(config.resolved())))
    assert back == config
    assert [t.sci.path for t in config.bands[0].tiles] == [str(tmp_path / t / "f200w.fits") for t in "ab"]


def test_tiles_override_the_band(tmp_path):
    text = (
        BAND
        + '[[bands.f200w.tiles]]\nname = "n"\nsci = "n.fits"\n'
        + '[[bands.f200w.tiles]]\nsci = "s.fits"\nerr_scale = 0.5\n'
    )
    tiles = load_survey(write(tmp_path, text)).bands[0].tiles
    assert [(t.name, t.sci.path.split("/")[-1], t.err_scale) for t in tiles] == [
        ("n", "n.fits", "auto"),
        ("1", "s.fits", 0.5),
    ]


def test_bands_are_selected_in_the_order_asked_for(tmp_path):
    path = write(tmp_path, BAND + BAND.replace("f200w", "f444w"))
    assert [b.name for b in load_survey(path, ["f444w", "f200w"]).bands] == ["f444w", "f200w"]
    with pytest.raises(ConfigError, match=r"f999w.*it has f200w, f444w"):
        load_survey(path, ["f999w"])


@pytest.mark.parametrize(("text", "message"), [
    ("name = 3\n" + BAND, "name = 3 is of type int, not str"),
    ('segment_bands = ["f444w"]\n' + BAND, "f444w must be some of the bands in use, f200w"),
    ("segment_bands = []\n" + BAND, r"segment_bands = \[\]: it must be some of the bands"),
    ("colour = 1\n" + BAND, "unknown key 'colour'.*Allowed: name, layout"),
    (BAND + "zeropoint_ab = 2\n", "Did you mean 'zero_point_ab'"),
    (BAND + "exposure = 2\n", "unknown key 'exposure' in bands.f200w.*Allowed: sci"),
    ('layout = "roman"\n' + BAND,
        "'roman' is unknown. Known: ceers, dja, euclid-mer, generic, hsc, hst, jwst-i2d"),
    ('neighbours = "model"\n' + BAND, "use 'separate' or 'mask' or 'keep'"),
    ("stamp_arcsec = -1\n" + BAND, "must be above 0"),
    ("stamp_pix = 6.5\n" + BAND, "of type float, not int"),
    ("stamp_pix = true\n" + BAND, "of type bool, not int"),
    (BAND + "err_scale = 0\n", "must be above 0"),
    (BAND + 'err_scale = "guess"\n', '"measure"'),
    (BAND + "error_floor = 2.0\n", "error_floor"),
    (BAND + 'error_floor = "much"\n', "error_floor"),
    (BAND + "pixel_scale_arcsec = inf\n", "must be finite"),
    (BAND + "zero_point_ab = nan\n", "must be finite"),
    (BAND + "mask_bits = 0\n", "bit mask above 0"),
    (BAND + "mask_bits = [64]\n", "bit numbers"),
    (BAND + 'optional = ["sci"]\n', "use some of err"),
    (BAND.replace('err = "b.fits"\n', ""), "no noise map. Add one of err, var, wht, exp"),
    (BAND.replace('psf = "p.fits"\n', ""), "has no psf"),
    (BAND.replace('"a.fits"', '"a.fits[SCI"'), "not a path"),
    (BAND.replace('"a.fits"', '"file:///etc/passwd"'), "URLs of http"),
    (BAND.replace('"a.fits"', '"simplecache::http://x/a.fits"'), "URLs of http"),
    ("[bands]\n", "has no band"),
    ("bands = 3\n", "of type int, not dict"),
    ("[bands]\nf200w = 3\n", "must be a table"),
    ('[bands."a/b"]\n', "band name 'a/b'"),
    ("tiles = [1]\n" + BAND, "different names"),
    (BAND + "[[bands.f200w.tiles]]\nname='a'\n[[bands.f200w.tiles]]\nname='a'\n", "two tiles of one name"),
    ("name = \n", "cannot be read"),
    ("\x00", "cannot be read"),
])  # fmt: skip
def test_every_mistake_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_survey(write(tmp_path, text))


def test_a_missing_file_says_where_it_is_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist.*--survey"):
        load_survey(tmp_path / "none.toml")


def test_a_user_can_add_a_layout(tmp_path):
    (tmp_path / "mine.toml").write_text('noise = ["var"]\n[planes.var]\nfrom = "sci"\next = ["VAR"]\n')
    text = 'layout = "mine.toml"\n' + BAND.replace('err = "b.fits"\n', "")
    tile = load_survey(write(tmp_path, text)).bands[0].tiles[0]
    assert tile.var.path == tile.sci.path and tile.var.ext == ("VAR",)
    (tmp_path / "mine.toml").write_text('nose = ["var"]\n')
    with pytest.raises(ConfigError, match="unknown key 'nose'"):
        load_survey(write(tmp_path, text))


@pytest.mark.parametrize("folder", ["catalogs", "benchmarks/real/surveys"])
def test_shipped_surveys_can_be_read(folder):
    from pathlib import Path

    paths = sorted((Path(__file__).resolve().parents[4] / folder).glob("*.toml"))
    assert paths and all(load_survey(path).bands for path in paths)


def psf_error_of(tmp_path, line: str, layout: str = "generic") -> tuple[float, ...]:
    noise = 'var = "v.fits"' if layout == "hsc" else 'err = "e.fits"'
    text = f'layout = "{layout}"\n[bands.f200w]\nsci = "a.fits"\npsf = "p.fits"\n{noise}\n{line}\n'
    return load_survey(write(tmp_path, text)).bands[0].tiles[0].psf_error


def test_psf_error_is_a_judgement_for_the_layout_unless_the_file_says_otherwise(tmp_path):
    judged = psf_error_of(tmp_path, "")
    assert judged == psf_error_of(tmp_path, 'psf_error = "auto"') and len(judged) == 5 and min(judged) > 0
    assert psf_error_of(tmp_path, "", "hsc")[0] < judged[0]
    assert psf_error_of(tmp_path, 'psf_error = "none"') == ()
    assert psf_error_of(tmp_path, "psf_error = [0.1, 0, 0, 0, 0.01]") == (0.1, 0.0, 0.0, 0.0, 0.01)
    wrong = {"0.1": "float", '"measure"': "none", "[0.1]": "wings", "[-1, 0, 0, 0, 0]": "width is -1"}
    for value, say in wrong.items():
        with pytest.raises(ConfigError, match=say):
            psf_error_of(tmp_path, f"psf_error = {value}")


def test_lines_left_to_do_are_refused_with_what_they_ask(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        '[bands.a]\nsci = "a.fits"\nerr = "e.fits"\npsf = "TODO: the PSF"\n'
        '[[bands.b.tiles]]\nname = "n"\nsci = "TODO"\n'
    )
    with pytest.raises(
        ConfigError, match=r"(?s)only you can complete.*bands.a.psf: the PSF.*bands.b.tiles.sci"
    ):
        load_survey(path)
