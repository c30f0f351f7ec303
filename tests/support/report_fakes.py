"""A source with a known truth, in plain arrays, for the tests of pictures and pages."""

import numpy as np
from scipy.ndimage import gaussian_filter

from galbatch.report.gather import reasons
from galbatch.report.page import RunSummary
from galbatch.report.small import encode_strip, plan_strips
from galbatch.report.view import Number, SourceView
from galbatch.types import Flag


def fake_view(size=32, oversample=1, truth=True, draws=8, model=True, seed=0) -> SourceView:
    """An inclined disc with a clump, blurred and noisy, a block and an edge masked; draws scatter."""
    rng = np.random.default_rng(seed)
    fine = size * oversample
    y, x = (np.mgrid[:fine, :fine] - (fine - 1) / 2) / oversample
    flux = 30 * np.exp(-np.hypot(x, y / 0.6) / 3) + 6 * np.exp(-((x - 6) ** 2 + (y + 3) ** 2) / 4)
    flux /= oversample**2

    def blurred(image):
        seen = gaussian_filter(image, 2.0 * oversample)
        return seen.reshape(size, oversample, size, oversample).sum((1, 3))

    scatter = gaussian_filter(rng.normal(size=(draws, fine, fine)), (0, 1.5 * oversample, 1.5 * oversample))
    samples = flux * (1 + scatter * oversample)
    sigma = np.full((size, size), 0.4)
    observed = blurred(flux) + sigma * rng.normal(size=sigma.shape)
    mask = np.zeros((size, size), bool)
    mask[20:24, 4:8] = mask[:, -2:] = True
    psf = np.exp(-(np.hypot(*(np.mgrid[:25, :25] - 12)) ** 2) / 8)
    mean = samples.mean(0)
    return SourceView(
        source_id="demo-17",
        band="f200w",
        observed=observed,
        sigma=sigma,
        mean=mean,
        std=samples.std(0),
        samples=samples,
        pixel_scale_arcsec=0.03,
        prior_driven=1 / (1 + mean * oversample**2),
        mask=mask,
        model=blurred(mean) if model else None,
        psf=psf / psf.sum(),
        truth=flux if truth else None,
        north_deg=20.0,
        numbers=(
            Number("mag_ab", 24.31, 24.35, 24.39, 24.41, 24.36 if truth else np.nan),
            Number("gini", 0.52, 0.54, 0.56, 0.49, 0.55 if truth else np.nan),
            Number("sersic_n", np.nan, np.nan, np.nan),
        ),
        facts={"chi2 per pixel": "1.02 (p = 0.41)", "flags": "NEIGHBOUR"},
    )


def fake_summary(n=40, bands=("f200w", "f444w"), strip_pool=6, seed=0) -> RunSummary:
    """A run of ``n`` sources with plausible columns, some flagged or failed; ``strip_pool`` thumbnails."""
    rng = np.random.default_rng(seed)
    plan = plan_strips(n * len(bands))
    pool = [encode_strip(fake_view(truth=False, seed=k), plan) for k in range(strip_pool)]
    centres = {
        "gini": (0.52, 0.06, 0.02),
        "m20": (-1.7, 0.3, 0.1),
        "concentration": (3, 0.5, 0.15),
        "asymmetry": (0.15, 0.1, 0.04),
        "mag_ab": (24.5, 1.2, 0.05),
        "r_half": (0.5, 0.1, 0.02),
    }
    columns, row = {}, np.arange(n)
    kind = np.where(row % 5 < 4, 0, np.where(row % 10 == 4, 1, 2))  # good, flagged, failed
    for band in bands:
        for name, (centre, scatter, error) in centres.items():
            middle = rng.normal(centre, scatter, n)
            columns[f"{name}_p50_{band}"] = middle
            columns[f"{name}_p16_{band}"] = middle - error * rng.lognormal(0, 0.3, n)
            columns[f"{name}_p84_{band}"] = middle + error * rng.lognormal(0, 0.3, n)
            columns[f"{name}_obs_{band}"] = middle + error * rng.normal(size=n)
        columns[f"chi2_{band}"] = rng.normal(1, 0.05, n)
        columns[f"chi2_p_{band}"] = rng.random(n)
        columns[f"prior_driven_frac_{band}"] = rng.beta(1, 6, n)
        columns[f"quality_{band}"] = kind.astype(float)
    status = np.array(["ok", "flagged", "failed"])[kind]
    flags = np.array([0, int(Flag.NEIGHBOUR | Flag.NO_SEG), int(Flag.OFF_IMAGE)])[kind]
    for name in columns:
        if not name.startswith("quality"):
            columns[name][status == "failed"] = np.nan
    counts = {s: int(np.sum(status == s)) for s in ("ok", "flagged", "failed")} | {"sources": n}
    strips = {
        band: [
            None if status[i] == "failed" else pool[(i + bands.index(band)) % strip_pool] for i in range(n)
        ]
        for band in bands
    }
    return RunSummary(
        title="demo.run",
        bands=bands,
        source_id=np.arange(n) + 1000,
        ra=150 + 0.1 * rng.random(n),
        dec=2 + 0.1 * rng.random(n),
        status=status,
        flags=flags,
        quality=columns[f"quality_{bands[0]}"],
        columns=columns,
        counts=counts,
        grades={
            band: tuple(int(np.sum(columns[f"quality_{band or bands[0]}"] == q)) for q in range(3))
            for band in ("", *bands)
        },
        reasons=reasons(flags.astype(np.int64)),
        warnings=("f200w: the PSF is 3% narrower than <usual>. Check it.",),
        provenance=(("PSF", {band: f"{band}_psf.fits" for band in bands}),),
        stages={"cut": 3.2, "sample": 120.0, "measure": 12.0},
        facts=(("catalogue", "demo.parquet"),),
        rates=(("sources per second", "0.31"),),
        strips=strips,
        panels=plan.titles,
        failures=(dict(source_id="1009", stage="cut", code="OFF_IMAGE", message="outside <every> image"),),
        calibration=(("r_half", bands[0], 26, 40), ("gini", bands[0], 9, 40)),
    )
