"""Bands together against bands apart: the same model, the same mocks, the same draws.

    galbatch simulate galaxies --n 600 --seed 1000007 --bands 7 --out simulated7
    python benchmarks/joint/run.py --simulated simulated7 --data ../shared/data --out joint.jsonl
    python benchmarks/joint/run.py ... --sets planted
    python benchmarks/joint/table.py joint.jsonl

Galaxies that did not train: simulated ones of a series for validation in 2, 4 and 7 bands, and those of
``--data`` that the joint training holds out, TNG50 in 4, HST in 2. Each is seen with a PSF whose width
grows with wavelength (2.2 pixels in the bluest band) at a peak S/N per pixel that is log-uniform over 5 to
100 in each band by itself, under white noise. One line of JSON for a source: for every band the squared error
of the mean over the truth squared, the rank of the truth among draws (pixels with light, flux in two
half-light radii, r_half), for every two neighbouring bands width and rank of the colour, and seconds.

Planted: ``clump``, a blue clump of a tenth of the galaxy's light in the bluest band alone; ``core``, a dusty
core, seen in the bluest band alone; ``psf``, a reddest band that is 30% wider than its PSF says.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import galbatch
from galbatch.flags import names_of
from galbatch.forward import forward_model
from galbatch.simulate.galaxies import half_light_radius
from galbatch.training.cubes import CubeLibrary, CubeSource, read_cubes
from galbatch.training.fit import load_config
from galbatch.training.library import is_held_out
from galbatch.training.stamps import StampConfig
from galbatch.types import Observation
from galbatch.validate.mock import mock_psf

SETS = {  # name -> origin, bands
    "simulated 2": ("simulated", 2),
    "simulated 4": ("simulated", 4),
    "simulated 7": ("simulated", 7),
    "tng 4": ("tng50-sdss", 4),
    "hst 2": ("hst", 2),
}
PLANTED = ("clump", "core", "psf")
STAMP, SN = 48, (5.0, 100.0)
BLUEST_FWHM = 2.2


def held_out(simulated: Path, data: Path) -> CubeLibrary:
    """The simulated galaxies of a folder, and the real ones that the joint training holds out."""
    tables = load_config(Path(galbatch.__file__).parent / "training/configs/small-joint.toml").data
    cubes = []
    for table in tables:
        if table.origin == "simulated":
            table = replace(table, files=(f"{simulated.absolute()}/*.fits",), held_out=1.0)
        files = tuple(pattern.replace("../shared/data", str(data.absolute())) for pattern in table.files)
        table = replace(table, files=files)
        cubes += [cube for cube in read_cubes(table, Path()) if is_held_out(cube.group, table.held_out)]
    return CubeLibrary(cubes)


def galaxies(library, spec, origin, bands, n, seed):
    """Truth (n, c, S, S) at the target PSF with the margin, in units of the flux scale, and wavelengths in
    micrometres (n, c), rising."""
    of_it = [o == origin for o in library.origins]
    library.probability = np.where(of_it, library.probability, 0)
    config = StampConfig(
        target_fwhm_pix=spec.target_fwhm_pix, margin_pix=spec.margin_pix, companion_fraction=0.0
    )
    size = -(-(STAMP + 2 * spec.margin_pix) // spec.multiple_of) * spec.multiple_of
    stamps, logs = CubeSource(library, config).draw_bands(n, bands, size, (seed, bands))
    order = logs.argsort(1)
    stamps = torch.stack([s[o] for s, o in zip(stamps, order, strict=True)])
    return stamps.numpy(), np.exp(np.stack([b[o] for b, o in zip(logs, order, strict=True)]))


def observe(truth, wavelengths, spec, rng, wrong=0.0):
    """What a telescope sees of truth (c, S, S): an observation of one source, and its S/N (c,). ``wrong``: by
    how much wider the reddest band is than its PSF says."""
    c = len(truth)
    fwhm = BLUEST_FWHM * wavelengths / wavelengths[0]
    told = np.stack([mock_psf(f) for f in fwhm])[None]
    seen = np.stack([mock_psf(f * (1 + wrong * (i == c - 1))) for i, f in enumerate(fwhm)])[None]
    blank = np.zeros((1, c, STAMP, STAMP), np.float32)
    shape = (1, spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix)
    model = forward_model(Observation(blank, blank + 1, seen), *shape)[1]
    clean = model.apply(torch.from_numpy(truth[None, None].astype(np.float32)))[:, 0].numpy()
    sn = np.exp(rng.uniform(*np.log(SN), c))
    sigma = np.broadcast_to((clean.max((2, 3)) / sn)[..., None, None], clean.shape)
    data = clean + sigma * rng.standard_normal(clean.shape)
    return Observation(data, sigma, told), sn


def rank(draws, truth, rng):
    """Place of the truth (...) among draws (k, ...), in (0, 1), at random between two of them."""
    return ((draws < truth).sum(0) + rng.random(np.shape(truth))) / (len(draws) + 1)


def colours(magnitudes, paired):
    """Draws of the colours of neighbouring bands from ``magnitudes`` (k, c, ...) of draws: draw k of one with
    draw k of the other where bands were sampled together, else with every draw, as a run has them."""
    one, two = magnitudes[:, :-1], magnitudes[:, 1:]
    return one - two if paired else (one[:, None] - two[None]).reshape(-1, *one.shape[1:])


def maps(draws, truth, sky, paired):
    """By pair of bands: median half width of the 68% interval of the colour of a pixel where the truth is
    three times as bright as the sky's noise in both, rms of its error, and the factor of the widths with
    which 68% of the truths lie inside; NaN with fewer than ten such pixels."""
    with np.errstate(invalid="ignore", divide="ignore"):
        low, middle, high = np.nanpercentile(
            colours(-2.5 * np.log10(np.where(draws > 0, draws, np.nan)), paired), [15.87, 50, 84.13], axis=0
        )
        error = middle + 2.5 * np.log10(truth[:-1] / truth[1:])
    width, found = np.maximum((high - low) / 2, 1e-4), []
    bright = truth > 3 * sky[:, None, None]
    for w, e, lit in zip(width, error, bright[:-1] & bright[1:], strict=True):
        few = lit.sum() < 10
        scale = np.nan if few else np.nanquantile(np.abs(e[lit]) / w[lit], 0.6827)
        found.append([np.nan] * 3 if few else [np.median(w[lit]), np.sqrt(np.nanmean(e[lit] ** 2)), scale])
    return np.array(found, float).T.tolist()


def judge(post, truth, sky, paired, seconds, rng):
    """Numbers of one posterior, as the module's docstring has them. ``sky`` (c,): noise per pixel."""
    draws, c = post.samples[0].astype(float), len(truth)
    mean = post.mean[0].astype(float)
    middle = np.array([STAMP, STAMP]) / 2 - 0.5
    radius = half_light_radius(truth.mean(0))
    y, x = np.indices((STAMP, STAMP))
    weight = truth.mean(0).clip(min=0)
    middle = np.array([(weight * a).sum() / weight.sum() for a in (y, x)])
    inside = np.hypot(y - middle[0], x - middle[1]) < 2 * max(radius, 2.0)
    flux, true = draws[:, :, inside].sum(-1), truth[:, inside].sum(-1)
    r_half = np.array([[half_light_radius(image) for image in draw] for draw in draws])
    r_true = np.array([half_light_radius(image) for image in truth])
    lit = truth > 0.02 * truth.max((1, 2), keepdims=True)
    pixels = rank(draws, truth, rng)
    mag, mag_true = -2.5 * np.log10(np.maximum(flux, 1e-3 * true)), -2.5 * np.log10(true)
    colour, colour_true = colours(mag, paired), mag_true[:-1] - mag_true[1:]
    ends = np.percentile(colour, [15.87, 50, 84.13], axis=0)
    size = np.log(r_half[:, :-1] / r_half[:, 1:])
    return {
        "nmse": (((mean - truth) ** 2).sum((1, 2)) / (truth**2).sum((1, 2))).tolist(),
        "pixels68": [float((np.abs(pixels[i][lit[i]] - 0.5) < 0.34).mean()) for i in range(c)],
        "flux": rank(flux, true, rng).tolist(),
        "r_half": rank(r_half, r_true, rng).tolist(),
        "sizes": rank(size, np.log(r_true[:-1] / r_true[1:]), rng).tolist(),
        "colour": rank(colour, colour_true, rng).tolist(),
        "colour_width": ((ends[2] - ends[0]) / 2).tolist(),
        "colour_error": (ends[1] - colour_true).tolist(),
        "map": maps(draws, truth, sky, paired),
        "chi2": post.chi2[0].tolist(),
        "flags": [names_of(int(f)) for f in post.band_flags[0]],
        "evaluations": float(post.n_evaluations[0]),
        "seconds": seconds,
    }


def plant(kind, truth, rng):
    """The truth with what is planted, and a mask (S, S) of its place."""
    middle, radius = np.array(truth.shape[1:]) / 2 - 0.5, half_light_radius(truth.mean(0))
    angle = rng.uniform(0, 2 * np.pi)
    at = middle + (
        1.3 * max(radius, 3.0) * np.array([np.sin(angle), np.cos(angle)]) if kind == "clump" else 0
    )
    r = np.hypot(*(a - m for a, m in zip(np.indices(truth.shape[1:]), at, strict=True)))
    truth = truth.copy()
    if kind == "clump":
        blob = np.exp(-0.5 * (r / 1.2) ** 2)
        truth[0] += 0.1 * truth[0].sum() * blob / blob.sum()
    if kind == "core":
        truth[0] *= 1 - 0.7 * np.exp(-0.5 * (r / 2.0) ** 2)
    return truth, r < 3.0


def share_found(post, plain, planted, place, margin):
    """By band: the light of the mean at the place less that of the plain galaxy, over what was planted in the
    bluest band (in its units); 1 and zeros where everything is as it is."""
    inside = np.s_[..., margin : margin + STAMP, margin : margin + STAMP]
    place = place[inside]
    plain, planted = plain[inside], planted[inside]
    put = (planted - plain)[0][place].sum()
    return ((post.mean[0] - plain)[:, place].sum(-1) / put).tolist()


def sources(args, prior, name):
    """Of a set: (truth, wavelengths, observation, S/N, what is planted) one by one."""
    kind = name if name in PLANTED else ""
    origin, bands = SETS["simulated 4" if kind else name]
    spec = prior.spec
    stamps, wavelengths = galaxies(
        held_out(args.simulated, args.data), spec, origin, bands, args.n, args.seed
    )
    for i, (truth, waves) in enumerate(zip(stamps, wavelengths, strict=True)):
        rng = np.random.default_rng([args.seed, i, bands])
        planted, place = plant(kind, truth, rng) if kind in ("clump", "core") else (truth, None)
        obs, sn = observe(planted, waves, spec, rng, wrong=0.3 if kind == "psf" else 0.0)
        yield i, truth, planted, place, waves, obs, sn


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small")
    parser.add_argument("--simulated", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--mode", default="default")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    prior = galbatch.load_prior(args.model)
    margin = prior.spec.margin_pix
    names = PLANTED if args.sets == "planted" else args.sets.split(",")
    with open(args.out, "a") as out:
        for name in names:
            for i, plain, truth, place, waves, obs, sn in sources(args, prior, name):
                line = {"set": name, "source": i, "wavelengths": waves.tolist(), "sn": sn.tolist()}
                stamp = truth[:, margin : margin + STAMP, margin : margin + STAMP]
                for how in ("joint", "separate"):
                    began = time.process_time()
                    post = galbatch.sample_posterior(
                        prior,
                        obs,
                        draws=args.draws,
                        mode=args.mode,
                        source_ids=[i],
                        joint=how == "joint",
                        wavelengths=waves,
                    )
                    seconds = time.process_time() - began
                    sky = np.median(obs.sigma[0], axis=(1, 2))
                    line[how] = judge(post, stamp, sky, how == "joint", seconds, np.random.default_rng(i))
                    if place is not None:
                        line[how]["found"] = share_found(post, plain, truth, place, margin)
                out.write(json.dumps(line) + "\n")
                out.flush()
                print(name, i, *(f"{how} {np.round(line[how]['nmse'], 4)}" for how in ("joint", "separate")))


if __name__ == "__main__":
    main()
