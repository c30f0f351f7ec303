"""Statistics of a band: intervals where the PSF is in error."""

import numpy as np

from galbatch.morphology import OwnLight
from galbatch.pipeline.measurement import empty_columns, measure_band
from galbatch.prior.model import load_prior
from galbatch.types import BandStamps

Y, X = np.mgrid[:48, :48] - 24.0


def test_intervals_are_never_narrower_than_the_draws_where_the_psf_may_be_in_error():
    """Draws of very different width, as PSFs of very different width make them."""
    draws = np.stack([1e3 / s**2 * np.exp(-np.hypot(Y, X) / s) for s in np.linspace(2, 6, 12)])
    noise = np.random.default_rng(0).standard_normal((48, 48))
    psf = np.exp(-(np.hypot(*np.mgrid[-8:9, -8:9]) ** 2) / 6)
    band = BandStamps(
        "f200w", (draws.mean(0) + noise)[None], np.ones((1, 48, 48)), np.zeros((1, 48, 48), bool),
        (np.hypot(Y, X) < 20).astype(np.int32)[None], (psf / psf.sum())[None], np.array(["p"]), 0.03, 0.03,
        np.zeros((1, 8)),
    )  # fmt: skip
    own = OwnLight(draws[None], band.seg, {}, np.zeros(1, bool))
    table, half = load_prior(device="cpu", backend="eager").spec.calibration["default"], {}
    for wide in (False, True):
        columns, moved = empty_columns(("f200w",), 1), np.array([wide])
        measure_band(columns, band, np.array([0]), own, 1, 2.0, calibration=table, psf_in_error=moved)
        raw, calibrated = (
            np.log(columns[f"r_half_{high}_f200w"] / columns[f"r_half_{low}_f200w"])[0]
            for low, high in (("raw16", "raw84"), ("p16", "p84"))
        )
        half[wide] = calibrated / raw
        assert (columns["asymmetry_p50_f200w"] == columns["asymmetry_raw50_f200w"]).all() == wide
    assert half[False] < 1 <= half[True]
