"""Does a prior adapted to a survey describe its galaxies better? Held-out truth decides.

    python benchmarks/science/adapt.py --out FOLDER [--galaxies 528] [--steps 400] [--rounds 1]

A survey of galaxies that the shipped prior does not know: of the simulator's, with the contrast of all that
is smaller than their discs (arms, clumps, dust) raised to the power of ``CONTRAST``. They are put into a
mosaic at peak S/N 30 to 100, run with `galbatch process --mode fast`, and the prior is adapted with
`galbatch train --from-run`. Then new galaxies of the same kind are sampled with both priors: error of the
mean over that of the prior before, and the share of true pixels in the 68% and 90% intervals of the draws,
where the galaxy is brighter than the noise. Errors are from galaxies. What the guard says is noted, and the
truth is asked whichever way it decides. A second of the ``--rounds`` runs and trains with the prior of the
first.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from astropy.io import fits
from scipy.ndimage import gaussian_filter

import galbatch
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.training import draws
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.validate import adapt
from galbatch.validate.mock import STAMP, MockSet, mock_psf, observe, stamp_side

CONTRAST, SMOOTH = 2.5, 0.35  # power, and smoothing over that share of the half-light radius
SEED, FWHM_PIX, SN = 71, 3.0, (30.0, 100.0)
MODE, DRAWS = "fast", 6
MEASURED = 48  # stamps that the new card is measured on
SURVEY = """
neighbours = "mask"
pixel_columns = true
[bands.f200w]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
unit = "nJy"
pixel_scale_arcsec = 0.03
psf_scale_arcsec = 0.03
noise_acf = "none"
err_scale = 1
error_floor = 0
psf_error = "none"
"""


def clumpy(images: np.ndarray) -> np.ndarray:
    """Images (n, H, W) with their small features raised to the power of ``CONTRAST``."""
    out = []
    for image in np.asarray(images, float):
        radius = np.sqrt((image > image.max() / 20).sum() / np.pi)
        smooth = gaussian_filter(image, SMOOTH * radius)
        ratio = np.divide(image, smooth, out=np.ones_like(image), where=smooth > 1e-4 * smooth.max())
        out.append(smooth * ratio.clip(0.05, 8) ** CONTRAST)
    return np.array(out)


def mocks(spec, n: int, seed: int) -> MockSet:
    """``n`` such galaxies as the telescope sees them."""
    rng = np.random.default_rng(seed)
    images = clumpy(simulate_galaxies(n, seed)[0][:, 1])
    library = Library([SourceImage(image, f"{seed}-{i}", "clumpy") for i, image in enumerate(images)])
    law = StampConfig(
        spec.target_fwhm_pix, spec.margin_pix, (5.0, 12.0), companion_fraction=0, point_fraction=0
    )
    views = [StampSource(library.take(np.array([i])), law) for i in range(len(library))]
    stamps = np.stack(
        [v.draw(1, stamp_side(spec), (seed, i), scaled=False)[0, 0].numpy() for i, v in enumerate(views)]
    )
    n = len(stamps)
    psf = np.repeat(mock_psf(FWHM_PIX)[None, None], n, axis=0)
    sn = np.exp(rng.uniform(*np.log(SN), n))
    none = np.zeros((n, 1, STAMP, STAMP), bool)
    return observe(spec, stamps, psf, np.full(n, FWHM_PIX), none, sn, rng, False)


def write_survey(folder: Path, found: MockSet) -> Path:
    """The mosaic of all stamps side by side, its survey file and catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    n, across = len(found.sn), int(np.ceil(np.sqrt(len(found.sn))))
    place = [(STAMP * (i // across), STAMP * (i % across)) for i in range(n)]
    planes = {"sci": found.obs.data[:, 0], "err": found.obs.sigma[:, 0]}
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 1, "CRPIX2": 1, "CRVAL1": 150.0, "CRVAL2": 2.0,
         "CD1_1": -0.03 / 3600, "CD2_2": 0.03 / 3600, "CD1_2": 0, "CD2_1": 0, "BUNIT": "nJy"}
    )  # fmt: skip
    for name, stamps in planes.items():
        mosaic = np.full((STAMP * across, STAMP * across), np.nan, np.float32)
        for (y, x), stamp in zip(place, stamps, strict=True):
            mosaic[y : y + STAMP, x : x + STAMP] = stamp
        fits.writeto(folder / f"{name}.fits", mosaic, header, overwrite=True)
    fits.writeto(folder / "psf.fits", mock_psf(FWHM_PIX).astype(np.float32), overwrite=True)
    (folder / "clumpy.toml").write_text(SURVEY)
    half = (STAMP - 1) / 2
    rows = "".join(f"{i},{x + half},{y + half}\n" for i, (y, x) in enumerate(place))
    (folder / "clumpy.csv").write_text("source_id,x,y\n" + rows)
    return folder / "clumpy.csv"


def scores(prior, found: MockSet, draws: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of the mean over the light (n,), and the randomised rank of each true pixel (n, h, w)
    where it is brighter than the noise, NaN elsewhere."""
    samples = sample_posterior(prior, found.obs, draws=draws, mode=MODE).samples[:, :, 0]
    error = ((samples.mean(1) - found.image) ** 2).sum((1, 2)) / (found.image**2).sum((1, 2))
    rank = (samples < found.image[:, None]).sum(1) + np.random.default_rng(1).random(found.image.shape)
    return error, np.where(found.image > found.obs.sigma[:, 0], rank / (draws + 1), np.nan)


def held(rank: np.ndarray, level: float) -> tuple[float, float]:
    """Per cent within the central interval of ``level``, and its error from galaxies."""
    inside = np.where(np.isnan(rank), np.nan, np.abs(rank - 0.5) < level / 2)
    own = 100 * np.nanmean(inside, axis=(1, 2))
    return round(float(np.nanmean(own)), 1), round(float(np.nanstd(own) / np.isfinite(own).sum() ** 0.5), 1)


def adapted(catalog: Path, model: str | Path, folder: Path, steps: int) -> dict:
    """Run the survey with ``model`` and adapt it, whatever the guard says: ``folder/train/model``."""
    run = galbatch.process(
        catalog, out=folder / "survey.run", model=str(model), mode=MODE, draws=DRAWS, stamp_pix=STAMP,
        cluster="none", resume=True, report=False,
    )  # fmt: skip
    with (  # a mode without calibration: its sources are quality 1
        patch.object(adapt, "_refuse_worse"),
        patch.object(adapt, "half_score", partial(adapt.half_score, draws=DRAWS)),
        patch.object(draws, "MEASURED", MEASURED),
    ):
        found = adapt.adapt_to_run(run.paths.root, folder / "train", steps, quality=1)
    better = found["gain"] > adapt.CERTAIN * found["error"] and found["loss"] < adapt.LOSS
    return found | {"written": better}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--galaxies", type=int, default=528)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--truths", type=int, default=96, help="galaxies of which the truth is asked")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, start = "small", load_prior("small")
    catalog = write_survey(args.out, mocks(start.spec, args.galaxies, SEED))
    truth = mocks(start.spec, args.truths, SEED + 1)
    before = scores(start, truth)
    line = {"benchmark": "adapt", "galaxies": args.galaxies, "steps": args.steps, "truths": len(truth.sn)}
    line["before"] = {str(level): held(before[1], level) for level in (0.68, 0.9)}
    for number in range(1, args.rounds + 1):
        folder = args.out / f"round-{number}"
        guard = adapted(catalog, model, folder, args.steps)
        model = folder / "train/model"
        after = scores(load_prior(model), truth)
        change = np.log(after[0] / before[0])
        line |= {
            "round": number,
            "guard": guard,
            "error_ratio": float(after[0].mean() / before[0].mean()),
            "ln_error_ratio": [float(change.mean()), float(change.std(ddof=1) / len(change) ** 0.5)],
            "better": float((change < 0).mean()),
            "after": {str(level): held(after[1], level) for level in (0.68, 0.9)},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
