"""Is the morphology of posterior draws nearer to the truth than the classical one of the noisy, blurred
image?

    python benchmarks/science/morphology_from_draws.py [--galaxies 24] [--draws 16] [--mode default] [--out
    results.jsonl]

Mock galaxies of a series that no prior is trained on, seen with a PSF of 2.3 to 6 pixels at a peak
signal-to-noise ratio per pixel of 5 to 100. "Truth" is the noise-free image at the target PSF, measured as a
draw is. Beside the median of the draws stands statmorph on the observed pixels, with the same segmentation
map, noise and PSF. Printed per statistic: median error (bias), robust scatter of the errors and root mean
square for both, on the sources that both could measure, and the share of truths inside the 68 and 90%
intervals of the draws with its binomial error; then that inside raw16 to raw84 and inside p16 to p84, the
percentiles of the catalogue before and after calibration, where the model is calibrated for the mode.
"""

from __future__ import annotations

import time
import warnings

import numpy as np

import galbatch
from galbatch.bench.timing import arguments, environment, keep
from galbatch.cutouts.neighbours import segment
from galbatch.morphology import measure_posterior, severity, summarise
from galbatch.morphology.calibration import calibrated
from galbatch.validate.mock import make_mocks, sample_mocks

# column -> attribute of statmorph, and whether errors are relative to the truth
STATISTICS = {
    "r_half": ("rhalf_circ", True),
    "r50": ("r50", True),
    "concentration": ("concentration", False),
    "asymmetry": ("asymmetry", False),
    "smoothness": ("smoothness", False),
    "gini": ("gini", False),
    "m20": ("m20", False),
    "ellipticity": ("ellipticity_asymmetry", False),
    "shape_asymmetry": ("shape_asymmetry", False),
    "sersic_n": ("sersic_n", True),
    "sersic_r_e": ("sersic_rhalf", True),
}
SN_BINS = ((5.0, 100.0), (5.0, 20.0), (20.0, 100.0))
SCALE = 0.03


def classical(image, seg, sigma, mask, psf):
    """statmorph's result for the source 1 of ``seg``; None where it raises or says that nothing can be
    trusted."""
    import statmorph

    bad = mask | (seg > 1) | ~np.isfinite(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = statmorph.source_morphology(
                np.where(bad, 0.0, image).astype(float),
                (seg == 1).astype(int),
                mask=bad,
                weightmap=sigma.astype(float),
                psf=psf.astype(float),
                cutout_extent=50.0,
            )[0]
        except Exception:
            return None
    return None if found.flag > 1 else found


def measure_all(prior, n: int, draws: int, mode: str, seed: int):
    """(truth, quantiles, columns of the catalogue, classical), each {column: (n,)}, and the S/N (n,)."""
    mocks = make_mocks(prior, n, seed, sn_range=(SN_BINS[0][0], SN_BINS[0][1]))
    n, data = len(mocks.image), mocks.obs.data[:, 0]
    sigma, psf = mocks.obs.sigma[:, 0], mocks.obs.psf[:, 0]
    bad = mocks.obs.mask[:, 0] | ~np.isfinite(data)
    seg = np.stack([segment(*stamp)[0] for stamp in zip(data, sigma, bad, strict=True)])
    posteriors = sample_mocks(prior, mocks, draws, mode, seed)
    samples = np.concatenate([p.samples[:, :, 0] for p in posteriors])
    settings = dict(mask=bad, seg=seg, psf=psf, pixel_scale_arcsec=SCALE, threads=1)
    target = float(prior.card.target_fwhm_pix)
    of_draws, stamps = measure_posterior(samples, data, sigma, target_fwhm_pix=target, **settings)
    of_truth, _ = measure_posterior(
        mocks.image[:, None], data, sigma, target_fwhm_pix=target, mean=samples.mean(axis=1), **settings
    )
    columns = summarise(of_draws, stamps)
    columns |= calibrated(columns, prior.calibration.get(mode), target * SCALE)
    good = severity(of_truth["flags"][:, 0]) < 2
    theirs = [classical(*stamp) for stamp in zip(data, seg, sigma, bad, psf, strict=True)]
    truth, quantiles, other = {}, {}, {}
    for name, (attribute, _) in STATISTICS.items():
        truth[name] = np.where(good, of_truth[name][:, 0], np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            quantiles[name] = np.nanquantile(of_draws[name], [0.5, 0.16, 0.84, 0.05, 0.95], axis=1)
        factor = SCALE if name.startswith("r") or name.endswith("r_e") else 1.0
        other[name] = np.array([np.nan if t is None else factor * getattr(t, attribute) for t in theirs])
        if name.startswith("sersic"):
            other[name][[t is None or t.flag_sersic > 0 for t in theirs]] = np.nan
    return truth, quantiles, columns, other, mocks.sn


def catalogue_coverage(columns, name, truth, known) -> dict:
    """Shares of the truths inside raw16 to raw84 and p16 to p84, over the same sources: ``known`` ones with
    an interval, where the quantity has one."""
    pairs = {"draws": ("raw16", "raw84"), "calibrated": ("p16", "p84")}
    if f"{name}_p16" in columns:
        known = known & np.isfinite(columns[f"{name}_p16"])
    found = {"n_catalogue": int(known.sum())}
    for label, (low, high) in pairs.items():
        if known.any() and f"{name}_{low}" in columns:
            a, b = columns[f"{name}_{low}"][known], columns[f"{name}_{high}"][known]
            found[f"share_{label}"] = float(np.mean((truth[known] >= a) & (truth[known] <= b)))
    return found


def summary(truth, quantiles, columns, other, inside) -> list[dict]:
    """One row a statistic for the sources ``inside`` (n,) bool."""
    rows = []
    for name, (_, relative) in STATISTICS.items():
        median, low, high, low90, high90 = quantiles[name]
        scale = truth[name] if relative else 1.0
        ours, theirs = (median - truth[name]) / scale, (other[name] - truth[name]) / scale
        both = inside & np.isfinite(ours) & np.isfinite(theirs)
        known = inside & np.isfinite(ours)
        if both.sum() < 3:
            continue
        row = {"what": name, "n": int(both.sum())}
        for label, errors in (("draws", ours[both]), ("classical", theirs[both])):
            centre = np.median(errors)
            row[f"bias_{label}"] = float(centre)
            row[f"scatter_{label}"] = float(1.4826 * np.median(np.abs(errors - centre)))
            row[f"rms_{label}"] = float(np.sqrt(np.mean(errors**2)))
        t = truth[name][known]
        for level, a, b in ((68, low, high), (90, low90, high90)):
            share = float(np.mean((t >= a[known]) & (t <= b[known])))
            row[f"cover_{level}"] = share
            row[f"cover_{level}_error"] = float(np.sqrt(share * (1 - share) / t.size))
        row |= catalogue_coverage(columns, name, truth[name], known)
        rows.append(row)
    return rows


def show(rows, title) -> None:
    print(
        f"\n{title}\n{'':<18}{'n':>4}{'bias':>16}{'scatter':>16}{'rms':>16}{'68%':>8}{'90%':>8}"
        f"{'n':>5}{'raw16-84':>10}{'p16-84':>8}"
    )
    for r in rows:
        pairs = "".join(
            f"{r[f'{k}_draws']:>8.3f}{r[f'{k}_classical']:>8.3f}" for k in ("bias", "scatter", "rms")
        )
        own = f"{100 * r.get('share_draws', np.nan):>8.0f}{100 * r.get('share_calibrated', np.nan):>10.0f}"
        cover = f"{100 * r['cover_68']:>8.0f}{100 * r['cover_90']:>8.0f}"
        print(f"{r['what']:<18}{r['n']:>4}{pairs}{cover}{r['n_catalogue']:>5}{own}")


def main() -> None:
    args = arguments(__doc__, galaxies=24, draws=16, mode="default", model=str, seed=2_000_500)
    prior = galbatch.load_prior(args.model)
    start = time.process_time()
    *tables, sn = measure_all(prior, args.galaxies, args.draws, args.mode, args.seed)
    record = {
        "benchmark": "morphology_from_draws",
        "mode": args.mode,
        "galaxies": len(sn),
        "draws": args.draws,
    }
    record |= {"model": prior.card.sha256[:12], "cpu_s": round(time.process_time() - start, 1)}
    print("each pair of columns: median of the draws, statmorph on the observed pixels")
    for low, high in SN_BINS:
        rows = summary(*tables, (sn >= low) & (sn < high))
        show(rows, f"peak S/N {low:g} to {high:g}")
        record[f"sn_{low:g}_{high:g}"] = rows
    keep(record | environment("cpu"), args.out)


if __name__ == "__main__":
    main()
