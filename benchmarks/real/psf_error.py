"""Real galaxies and simulated ones that look real, seen with another PSF than the one that is given.

    python benchmarks/real/psf_error.py --data shared/data [--galaxies 8] [--draws 15] [--mode fast]
        [--sn 30 300 3000] [--error 0.5 0.1 0.03 0.02 0.01 | none]
        [--kind scale | blur | exact | drawn] [--noise 1] [--out DIR]

Truths are TNG50 galaxies (SKIRT, band r) and HST galaxies averaged over 3 x 3 pixels, alternately, rotated
and brought to a random size on 64 pixels at the target PSF. Each is seen with a PSF 0.35 pixels of FWHM
broader (scaled with its wings, or blurred by a Gaussian) than the one that the sampler is given and 0.08
pixels off it, in white noise at a given peak signal-to-noise ratio; the sigma given is ``--noise`` times the
true one. ``drawn``: with a PSF of its own each, as far off the one given as ``--error`` says: the
experiment in which intervals that are right hold 68%. Printed for each ratio: rms of (truth -
mean) / spread over the core (truth above half of its peak, and above a tenth), chi2, the flux of the mean
over the true one, seconds a galaxy, how often 68% intervals hold the truth, and the median of (p50 - truth) /
half of the interval. A line of JSON goes to DIR/psf_error.jsonl, pictures to DIR.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from galbatch.bench.timing import arguments, keep
from galbatch.forward import forward_model
from galbatch.morphology import summarise
from galbatch.morphology.calibration import calibrated, reached
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.training.library import Library, SourceImage, prepare_image
from galbatch.training.sources import block_average, read_images
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.types import Observation
from galbatch.validate.calibrate import measure_with_truth, within
from galbatch.validate.mock import STAMP, mock_psf

FWHM_PIX, BROADER_PIX, OFF_PIX = 3.0, 0.35, 0.08
QUANTITIES = ("flux_njy", "r_half", "concentration", "asymmetry", "gini")
ALONE = dict(
    point_fraction=0.0, nucleus_fraction=0.0, companion_fraction=0.0, far_fraction=0.0, radius_pix=(2.0, 10.0)
)


def truths(data: Path, n: int, target_fwhm_pix: float, size: int) -> np.ndarray:
    """(n, size, size) of unit flux at the target PSF, TNG50 and HST alternately."""
    files = sorted((data / "tng/tng50_skirt_sdss").glob("*.fits"))
    tng = [(f"tng-{path.stem}", read_images(path)[0].flux[1]) for path in files]
    with np.load(data / "hst_galaxies/hst_candels_201x3_192px_0.06arcsec.npz") as file:
        hst = [(f"hst-{i}", block_average(file["images"][i, 1], 3)) for i in range(0, 201, 12)]
    out = []
    for i, (name, image) in enumerate(x for pair in zip(tng, hst, strict=False) for x in pair):
        prepared = prepare_image(image)
        if prepared is None or len(out) == n:
            continue
        library = Library([SourceImage(prepared, name, "real")])
        config = StampConfig(target_fwhm_pix=target_fwhm_pix, **ALONE)
        out.append(StampSource(library, config).draw(1, size, (7, i), scaled=False)[0, 0].numpy())
    return np.stack(out)


def shifted(psf: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """A PSF image moved by a fraction of a pixel."""
    f = np.fft.fftfreq(psf.shape[0])
    ramp = np.exp(-2j * np.pi * (f[:, None] * dy + f[None, :] * dx))
    return np.fft.ifft2(np.fft.fft2(psf) * ramp).real


def broader(psf: np.ndarray) -> np.ndarray:
    """A PSF image blurred by the Gaussian that makes its FWHM broader by ``BROADER_PIX``."""
    added = ((FWHM_PIX + BROADER_PIX) ** 2 - FWHM_PIX**2) / (8 * np.log(2))
    f = np.fft.fftfreq(psf.shape[0])
    blur = np.exp(-2 * np.pi**2 * added * (f[:, None] ** 2 + f[None, :] ** 2))
    return np.fft.ifft2(np.fft.fft2(psf) * blur).real


def drawn(error: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A PSF image off the one given by chance: scaled with its wings, moved, drawn out as a Gaussian is, and
    with a share of its light in a halo three times as wide; deviations ``error`` (4,)."""
    width, off, ellipticity, wings = (error * rng.standard_normal((6, 4))).T
    fwhm = max(FWHM_PIX + width[0], FWHM_PIX / 2)
    psf = shifted(mock_psf(fwhm), off[1], off[2])
    fy, fx = np.fft.fftfreq(len(psf))[:, None], np.fft.fftfreq(len(psf))
    along = ellipticity[3] * (fx**2 - fy**2) + ellipticity[4] * 2 * fx * fy
    drawn_out = np.exp(-2 * np.pi**2 * (fwhm / 2.355) ** 2 * along)
    psf = np.fft.ifft2(np.fft.fft2(psf) * drawn_out).real
    return (1 - wings[5]) * psf + wings[5] * mock_psf(3 * fwhm)


def observe(
    truth: np.ndarray, sn: float, prior, seed: int, kind: str, noise: float, error: np.ndarray | None
) -> tuple[Observation, np.ndarray]:
    """The observation of one truth, with the PSF as it is given, and the truth in its unit."""
    rng = np.random.default_rng([seed, 5])
    given, angle = mock_psf(FWHM_PIX), rng.uniform(0, 2 * np.pi)
    real = broader(given) if kind == "blur" else mock_psf(FWHM_PIX + BROADER_PIX)
    real = shifted(real, OFF_PIX * np.sin(angle), OFF_PIX * np.cos(angle))
    if kind == "drawn":
        real = drawn(error[0, :4], rng)
    margin, blank = prior.spec.margin_pix, np.zeros((1, 1, STAMP, STAMP), np.float32)
    seen = Observation(blank, blank + 1, (given if kind == "exact" else real)[None, None])
    model = forward_model(seen, 1, margin, prior.spec.multiple_of, prior.spec.target_fwhm_pix)[1]
    clean = model.apply(torch.from_numpy(truth[None, None, None].astype(np.float32)))[:, 0].numpy()
    unit = sn / clean.max()
    inside = slice(margin, margin + STAMP)
    data = clean * unit + rng.standard_normal(clean.shape)
    return Observation(data, blank + noise, given[None, None]), truth[inside, inside] * unit


def row(prior, stamps: np.ndarray, sn: float, error, options) -> tuple[dict, list]:
    """Numbers at one peak signal-to-noise ratio, and (data, truth, mean, spread) of every galaxy."""
    z = {0.5: [], 0.1: []}
    posteriors, seen, images, pictures = [], [], [], []
    start = time.perf_counter()
    for i, stamp in enumerate(stamps):
        obs, truth = observe(stamp, sn, prior, i, options.kind, options.noise, error)
        obs = Observation(obs.data, obs.sigma, obs.psf, psf_error=error)
        p = sample_posterior(prior, obs, options.draws, options.mode, seed=1, source_ids=[i])
        mean, std = p.mean[0, 0], p.std[0, 0]
        for level, values in z.items():
            core = truth > level * truth.max()
            values.append(np.sqrt(np.mean(((truth - mean) / std)[core] ** 2)))
        posteriors.append(p), seen.append(obs), images.append(truth)
        pictures.append((obs.data[0, 0], truth, mean, std))
    seconds = (time.perf_counter() - start) / len(stamps)
    join = lambda name: np.concatenate([getattr(o, name) for o in seen])  # noqa: E731
    blank = np.zeros((len(stamps), 1, STAMP, STAMP), bool)
    every = Observation(join("data"), join("sigma"), join("psf"), blank)
    samples = np.concatenate([p.samples[:, :, 0] for p in posteriors])
    table, classical = measure_with_truth(samples, np.stack(images), every)
    found, truth = summarise(table[:, :-1], classical), table[:, -1]
    numbers = {
        "sn": sn,
        "rms_z_core": round(float(np.sqrt(np.mean(np.square(z[0.5])))), 2),
        "rms_z_tenth": round(float(np.sqrt(np.mean(np.square(z[0.1])))), 2),
        "rms_z_each": [round(float(v), 2) for v in z[0.5]],
        "chi2": [round(float(p.chi2[0, 0]), 2) for p in posteriors],
        "flags": [int(p.flags[0]) for p in posteriors],
        "solver": round(max(float(p.info["solver_residual"].max()) for p in posteriors), 3),
        "flux_ratio": [
            round(float(p.mean.sum() / t.sum()), 3) for p, t in zip(posteriors, images, strict=True)
        ],
        "seconds": round(seconds, 2),
    }
    target = prior.spec.target_fwhm_pix * every.pixel_scale_arcsec
    calibration = prior.spec.calibration[options.mode]
    moved = np.array([p.info["psf_in_error"][0, 0] for p in posteriors])
    columns = calibrated(found, calibration, target, psf_in_error=moved)
    known = reached(found, calibration, target, psf_in_error=moved)
    for name in QUANTITIES:
        numbers[f"{name}_draws"] = float(np.nanmean(within(found, name, ("raw16", "raw84"), truth[name])))
        half = (found[f"{name}_raw84"] - found[f"{name}_raw16"]) / 2
        numbers[f"{name}_z"] = round(float(np.nanmedian((found[f"{name}_raw50"] - truth[name]) / half)), 2)
        inside = np.where(known, within(columns, name, ("p16", "p84"), truth[name]), np.nan)
        numbers[f"{name}_cal"] = float(np.nanmean(inside)) if known.any() else None
    return numbers, pictures


def draw_pictures(path: Path, pictures: list) -> None:
    """Data, truth, mean and (truth - mean) / spread of each galaxy."""
    from matplotlib.figure import Figure

    figure = Figure((8, 2 * len(pictures)))
    axes = figure.subplots(len(pictures), 4, squeeze=False)
    for line, (data, truth, mean, std) in zip(axes, pictures, strict=True):
        top = truth.max()
        for axis, image in zip(line, (data, truth, mean), strict=False):
            axis.imshow(np.arcsinh(image / top * 20), vmin=-1, vmax=3.7, origin="lower", cmap="magma")
        line[3].imshow((truth - mean) / std, vmin=-4, vmax=4, origin="lower", cmap="RdBu")
        for axis in line:
            axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    figure.savefig(path, dpi=60)


def main() -> None:
    options = arguments(
        __doc__,
        data=Path,
        galaxies=8,
        draws=15,
        mode="fast",
        sn=[30.0, 300.0, 3000.0],
        error=["0.5", "0.1", "0.03", "0.02", "0.01"],
        kind="scale",
        noise=1.0,
        out=Path("psf-error"),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    prior = load_prior(device="cpu")
    error = None if options.error == ["none"] else np.array([options.error], float)
    if error is None and options.kind == "drawn":
        raise SystemExit("--kind drawn needs numbers for --error.")
    side = -(-(STAMP + 2 * prior.spec.margin_pix) // prior.spec.multiple_of) * prior.spec.multiple_of
    stamps = truths(options.data, options.galaxies, prior.spec.target_fwhm_pix, side)
    for sn in options.sn:
        numbers, pictures = row(prior, stamps, sn, error, options)
        label = "none" if error is None else "-".join(options.error)
        line = {
            "error": label,
            "kind": options.kind,
            "noise": options.noise,
            "mode": options.mode,
            "draws": options.draws,
            **numbers,
        }
        keep(line, options.out / "psf_error.jsonl")
        draw_pictures(options.out / f"sn{sn:g}-{label}.png", pictures)


if __name__ == "__main__":
    main()
