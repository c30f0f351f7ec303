"""Neighbours: masked, kept, or separated draw by draw? Judged against the truth without them.

    python benchmarks/science/neighbours.py [--pairs 6] [--alone 12] [--mergers 12] [--draws 12]
        [--mode fast] [--first 1] [--out FILE]

Pairs: two simulated galaxies that have nothing to do with each other, at several separations and flux ratios;
the truth is what is measured on the noise-free target without the other. A companion of the target itself
that the segmentation splits off is taken out of the truth as it is out of the draws. Mergers: the truth is
the whole system; only those that the segmentation splits say something. Policies:

    mask      pixels of neighbours are not fitted, and excluded from the statistics (the segments of the data)
    keep      fitted, and excluded from the statistics by the segments of the data
    separate  fitted, and the light of each draw is divided (``galbatch.morphology.own_light``)

Printed for each group and quantity: median of (p50 - truth) and of its size, relative for fluxes and radii,
the share of truths in the calibrated 68% interval, and of those beyond three half-intervals.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from scipy import ndimage

from galbatch.bench.timing import arguments
from galbatch.cutouts.neighbours import segment
from galbatch.forward import forward_model
from galbatch.morphology import measure_posterior, own_light, summarise
from galbatch.morphology.calibration import calibrated
from galbatch.morphology.separate import own_share
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.simulate.galaxies import simulate_galaxy
from galbatch.simulate.telescope import nircam_like_psf
from galbatch.training.library import Library, SourceImage
from galbatch.training.stamps import StampConfig, StampSource
from galbatch.types import Observation
from galbatch.validate.mock import STAMP, stamp_side

SEPARATIONS_PIX, RATIOS = (9.0, 14.0, 20.0), (0.3, 1.0, 3.0)
RADIUS_PIX, SN = (2.5, 5.0), (20.0, 100.0)
QUANTITIES = ("flux_njy", "r_half", "concentration", "asymmetry", "gini", "m20")
RELATIVE = ("flux_njy", "r_half")
POLICIES = ("mask", "keep", "separate")
SEED, SCALE_ARCSEC, PSF_PIX = 5_000_000, 0.03, 41
KINDS = ["disc", "spiral", "elliptical", "clumpy", "irregular", "lenticular"]


def galaxy(index: int, kind: str, spec, rng, offset) -> np.ndarray:
    """(H, W) of unit flux at the target PSF, ``offset`` (y, x) pixels from the centre of the stamp."""
    image = simulate_galaxy(SEED, index, kind=kind)[0][1]
    library = Library([SourceImage(image, f"{index}", "simulated")])
    radius = RADIUS_PIX[0] * (RADIUS_PIX[1] / RADIUS_PIX[0]) ** rng.random()
    if kind == "merger":
        radius *= 1.5
    source = StampSource(library, StampConfig(target_fwhm_pix=spec.target_fwhm_pix))
    generator = torch.Generator().manual_seed(index)
    where = torch.tensor(np.asarray(offset, np.float32))[None]
    return source.render(np.array([0]), library.radius / radius, where, stamp_side(spec), generator)[
        0
    ].numpy()


class Scene:
    """One observation with and without its neighbour: noise, pixels and segments of both."""

    def __init__(self, prior, target, other, sn, rng, merger=False):
        spec, self.psf = prior.spec, nircam_like_psf(2.76, SCALE_ARCSEC, PSF_PIX)[None, None]
        blank = np.zeros((1, 1, STAMP, STAMP), np.float32)
        model = forward_model(
            Observation(blank, blank + 1, self.psf),
            1,
            spec.margin_pix,
            spec.multiple_of,
            spec.target_fwhm_pix,
        )[1]
        seen = model.apply(torch.from_numpy(np.stack([target, target + other])[:, None, None]))[:, 0, 0]
        alone, both = seen.numpy() * (sn / seen[0].max().item())
        noise = rng.standard_normal(alone.shape).astype(np.float32)
        inner = slice(spec.margin_pix, spec.margin_pix + STAMP)
        self.truth = target[inner, inner] * (sn / seen[0].max().item())
        self.alone, self.data, self.sigma = alone + noise, both + noise, np.ones_like(noise)
        nothing = np.zeros(noise.shape, bool)
        self.seg = segment(self.data, self.sigma, nothing)[0]
        self.seg_alone = segment(self.alone, self.sigma, nothing)[0]
        if merger:  # the whole system is the target
            self.seg_alone = (self.seg > 0).astype(np.int32)
        self.merger = merger
        self.near = ndimage.binary_dilation(self.seg >= 2, np.ones((3, 3), bool)) & (self.seg != 1)

    def sample(self, prior, mask, options, number):
        obs = Observation(
            *(a[None, None] for a in (self.data, self.sigma)), self.psf, mask[None, None], SCALE_ARCSEC
        )
        p = sample_posterior(prior, obs, options.draws, options.mode, source_ids=[number])
        return p.samples[0, :, 0]

    def measure(self, images, seg, data=None):
        """Statistics of images (k, h, w) and of the pixels, with one segmentation."""
        data = self.data if data is None else data
        draws, seen = measure_posterior(images[None], data[None], self.sigma[None], None, seg[None], None)
        return draws[0], seen[0]

    def own_truth(self, seen: np.ndarray) -> np.ndarray:
        """The truth without companions of its own that the segmentation splits off; ``seen``: the mean of
        all light."""
        seg = self.seg.copy()
        for label in range(2, seg.max() + 1):
            if self.truth[seg == label].sum() < 0.5 * seen[seg == label].sum():
                seg[seg == label] = 0
        return self.truth * own_share(np.repeat(self.truth[None], 16, 0), seg).mean(0)

    def by_policy(self, prior, options, number):
        """Statistics of the truth, and {policy: statistics (k,) of the draws, those of the pixels}."""
        kept = self.sample(prior, np.zeros_like(self.near), options, number)
        masked = self.sample(prior, self.near, options, number) if self.near.any() else kept
        own = own_light(kept[None], self.seg[None], np.zeros_like(self.near)[None])
        truth = self.truth if self.merger else self.own_truth(kept.mean(0))
        alone = self.seg_alone if self.merger else np.where(self.seg == 1, 1, 0)
        return self.measure(truth[None].astype(np.float32), alone)[0][0], {
            "mask": self.measure(masked, self.seg),
            "keep": self.measure(kept, self.seg),
            "separate": self.measure(own.samples[0], own.seg[0]),
        }


def groups(options):
    """(label, merger, separation, ratio) of each group."""
    out = [(f"{d:g} px, flux ratio {r:g}", False, d, r) for d in SEPARATIONS_PIX for r in RATIOS]
    out += [("alone", False, 0.0, 0.0)] * (options.alone > 0)
    return out + [("mergers", True, 0.0, 0.0)] * (options.mergers > 0)


def run_group(prior, label, merger, distance, ratio, options) -> dict:
    """Truths (n,) and draws (n, k) of each quantity by policy."""
    rows, n = [], getattr(options, label) if label in ("alone", "mergers") else options.pairs
    for i in range(options.first, options.first + n):
        index = 10_000 * int(100 * distance + 10 * ratio) + 2 * i
        rng = np.random.default_rng([SEED, index, 1])
        angle = rng.uniform(0, 2 * np.pi)
        kind = "merger" if merger else KINDS[i % len(KINDS)]
        target = galaxy(index, kind, prior.spec, rng, (0.0, 0.0))
        other = np.zeros_like(target)
        if ratio:
            away = distance * np.array([np.sin(angle), np.cos(angle)])
            other = ratio * galaxy(index + 1, KINDS[(i + 1) % len(KINDS)], prior.spec, rng, away)
        sn = SN[0] * (SN[1] / SN[0]) ** rng.random()
        scene = Scene(prior, target, other, sn, rng, merger)
        if (merger or ratio) and scene.seg.max() < 2:
            continue
        rows.append(scene.by_policy(prior, options, i))
    found = {"label": label, "n": len(rows), "of": n, "rows": rows}
    return found


def line(rows, policy: str, quantity: str, spec, mode: str) -> dict:
    """Bias, error and coverage of a quantity."""
    truth = np.array([truth[quantity] for truth, _ in rows], float)
    draws, seen = (np.stack([of[policy][i] for _, of in rows]) for i in (0, 1))
    found = summarise(draws, seen)
    found |= calibrated(found, spec.calibration.get(mode), spec.target_fwhm_pix * SCALE_ARCSEC)
    low, middle, high = (found[f"{quantity}_{p}"] for p in ("p16", "p50", "p84"))
    miss = (middle - truth) / (truth if quantity in RELATIVE else 1)
    z = np.where(truth > middle, (truth - middle) / (high - middle), (middle - truth) / (middle - low))
    return {
        "bias": round(float(np.nanmedian(miss)), 3),
        "error": round(float(np.nanmedian(np.abs(miss))), 3),
        "within": round(float((z < 1).mean()), 3),
        "beyond": round(float((z > 3).mean()), 3),
        "n": len(rows),
    }


def main() -> None:
    options = arguments(__doc__, pairs=6, alone=12, mergers=12, draws=12, mode="fast", first=0)
    torch.set_num_threads(1)
    prior, every, lines = load_prior("small", device="cpu"), [], []
    for group in groups(options):
        found = run_group(prior, *group, options)
        every.append(found)
        lines += report(found, prior.spec, options.mode) if found["n"] else []
    pairs = [f for f in every if f["label"] not in ("alone", "mergers")]
    if len(pairs) > 1:
        counts = {k: sum(f[k] for f in pairs) for k in ("n", "of")}
        both = {"label": "all pairs", **counts, "rows": [r for f in pairs for r in f["rows"]]}
        lines += report(both, prior.spec, options.mode)
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in lines))


def report(found, spec, mode) -> list[dict]:
    """Print one group; its lines."""
    print(f"\n{found['label']}: {found['n']} of {found['of']} images (pairs, mergers: those that split)")
    print("| policy | " + " | ".join(QUANTITIES) + " |\n" + "|---" * (len(QUANTITIES) + 1) + "|")
    out = []
    for policy in POLICIES:
        cells = []
        for q in QUANTITIES:
            row = line(found["rows"], policy, q, spec, mode)
            out.append({"group": found["label"], "policy": policy, "quantity": q, **row})
            cells.append("{bias:+.3f}, {error:.3f}, {within:.0%}, {beyond:.0%}".format(**row))
        print(f"| {policy} | " + " | ".join(cells) + " |", flush=True)
    return out


if __name__ == "__main__":
    main()
