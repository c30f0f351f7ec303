"""How much narrower the colour of a whole galaxy can become with bands together: exact posteriors.

    python benchmarks/joint/reference.py --galaxies 64

On the galaxies of `galbatch model calibrate --joint` (2 and 4 bands, each with a PSF and an S/N of its own)
the light in two Petrosian radii has an exact posterior under a Gaussian law: the model card's spectrum, under
an envelope that follows the true brightness, and between bands

apart
    no correlation,
card
    the correlation that the card has from held-out galaxies (``Card.cross``),
same
    0.995 in every mode: bands are copies of each other.

``shape``: the limit of Fisher for light of which everything but its amount is known, in each band. Printed:
half widths of 68% intervals of the colour of neighbouring bands, over those apart (geometric means, errors
from galaxies drawn again), and in how many colours that is below 0.7.
"""

import argparse

import numpy as np
import torch

import galbatch
from galbatch.forward import joint_model, smoothed_peak_scale
from galbatch.pipeline.colour import circle
from galbatch.sampler.guidance import envelope
from galbatch.sampler.solve import Solver
from galbatch.sampler.spectra import mixed, spectra_of
from galbatch.validate.calibrate import measure_with_truth
from galbatch.validate.joint import joint_mock, together
from galbatch.validate.mock import STAMP

SAME = 0.995


def aperture(mocks):
    """(STAMP, STAMP) share of each pixel in two Petrosian radii of the truth in the band of highest S/N."""
    table, _ = measure_with_truth(mocks.image[:, None], mocks.image, mocks.obs)
    best = table[int(np.argmax(mocks.sn)), -1]
    centre = (best["xc_asymmetry"], best["yc_asymmetry"])
    return circle((STAMP, STAMP), centre, 2 * best["r_petro"] / mocks.obs.pixel_scale_arcsec)


def laws(prior, grid, waves):
    """Covariances of modes between bands by name."""
    c, bands = len(waves), torch.log(torch.tensor(waves))
    spectra = spectra_of(prior, c, grid, bands)
    power = spectra.prior[None, None].contiguous()
    alike = torch.linalg.inv(SAME * torch.ones(c, c) + (1 - SAME) * torch.eye(c))
    alike = alike[..., None, None].expand(c, c, *power.shape[-2:])
    return {"apart": power, "card": spectra.law, "same": mixed(power, alike)}


def widths(prior, number):
    """By neighbouring bands of a galaxy of the series: half widths, mag, by name; none without a scale or a
    radius."""
    spec = prior.spec
    mocks, waves = joint_mock(spec, number)
    obs, inside = together(mocks.obs), torch.from_numpy(aperture(mocks)).float()
    scale = smoothed_peak_scale(obs, 1)
    if not (np.isfinite(scale).all() and inside.sum() > 0):
        return []
    _, model = joint_model(
        [obs], [1], (spec.margin_pix, spec.multiple_of, spec.target_fwhm_pix), scale, "cpu"
    )
    own = np.s_[spec.margin_pix : spec.margin_pix + STAMP, spec.margin_pix : spec.margin_pix + STAMP]
    truth, mask = torch.zeros(1, 1, len(waves), *model.fine), torch.zeros(model.fine)
    truth[(0, 0, slice(None), *own)] = torch.from_numpy(mocks.image / scale[0][:, None, None]).float()
    mask[own] = inside
    light, seen = (truth * mask).sum((-1, -2))[0, 0], model.apply(truth * mask)
    variance = 1 / (seen * model.noise.precision(seen)).sum((-1, -2))[0, 0]
    solver, window, found = Solver(model, iterations=300, tolerance=1e-7), envelope(truth), []
    for b in range(len(waves) - 1):
        weight = torch.zeros_like(truth)  # d ln F of one band less that of the next, over its largest pixel
        unit = 1 / light[b : b + 2].min()
        weight[0, 0, b], weight[0, 0, b + 1] = mask / light[b] / unit, -mask / light[b + 1] / unit
        var = {"shape": float(variance[b] + variance[b + 1])}
        for name, law in laws(prior, model.fine, waves).items():
            c = solver.correction(law, weight, window, exact=True, relative=3e-4)
            var[name] = float((weight.double() * c.double()).sum() * unit**2)
        found.append({name: 2.5 / np.log(10) * np.sqrt(value) for name, value in var.items()})
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="small")
    parser.add_argument("--galaxies", type=int, default=64)
    args = parser.parse_args()
    prior = galbatch.load_prior(args.model, device="cpu")
    made = [found for found in (widths(prior, n) for n in range(args.galaxies)) if found]
    print(sum(map(len, made)), "colours of", len(made), "galaxies")
    rng = np.random.default_rng(0)
    for name in ("card", "shape", "same"):
        logs = [np.log([w[name] / w["apart"] for w in found]) for found in made]
        chosen = rng.integers(0, len(logs), (300, len(logs)))
        again = [np.concatenate([logs[i] for i in rows]).mean() for rows in chosen]
        every = np.concatenate(logs)
        low = 100 * np.mean(every < np.log(0.7))
        print(f"{name:6} over apart {np.exp(every.mean()):.2f} +- {np.std(again):.2f}; below 0.7 {low:.0f}%")


if __name__ == "__main__":
    main()
