"""What draws rounded in units of their own spread would save, and what it would cost their statistics.

    python benchmarks/science/quantised_draws.py [--galaxies 32] [--mode default]

Galaxies of the series of ``galbatch validate``, 16 draws each of the model small. Each pixel of the draws is
rounded to multiples of a power of two near a share of its spread over the draws; compared are the draws as a
store keeps them, of ten mantissa bits. Printed for each share: kB per source as a shard holds them, and by
how much statistics of single draws move, rms, in units of their spread over the draws; of both the median
over galaxies.
"""

import numpy as np
from few_draws import observe
from numcodecs import blosc

from galbatch.bench.timing import arguments
from galbatch.morphology import measure_posterior
from galbatch.prior import load_prior
from galbatch.sampler import sample_posterior
from galbatch.simulate.galaxies import simulate_galaxies
from galbatch.store.posterior import BLOCK_BYTES, CNAME, LEVEL, round_mantissa
from galbatch.validate.mock import SEED

SHARES = (0.25, 0.125)
SHOWN = ("flux_njy", "r_half", "gini", "asymmetry", "sersic_n", "m20", "multimode")


def kilobytes(draws: np.ndarray) -> float:
    """Of draws (k, H, W) in a shard."""
    packed = blosc.compress(np.ascontiguousarray(draws), CNAME.encode(), LEVEL, blosc.BITSHUFFLE, BLOCK_BYTES)
    return len(packed) / 1000


def rounded(draws: np.ndarray, share: float) -> np.ndarray:
    """Draws (k, H, W), each pixel to multiples of a power of two near this share of its spread."""
    step = np.exp2(np.round(np.log2(share * np.maximum(draws.std(0, ddof=1), 1e-20)))).astype(np.float32)
    return np.round(draws / step) * step


def main() -> None:
    options = arguments(__doc__, galaxies=32, mode="default")
    prior = load_prior("small", device="cpu")
    rng, images = np.random.default_rng([SEED, 78]), simulate_galaxies(options.galaxies, SEED)[0]
    sizes = {share: [] for share in (0, *SHARES)}
    moves = {share: {name: [] for name in SHOWN} for share in SHARES}
    for i, pair in enumerate(images):
        obs, _ = observe(prior, pair[0], i, 1, rng)
        draws = sample_posterior(prior, obs, mode=options.mode, source_ids=[i]).samples[0, :, 0]
        stored = round_mantissa(draws)
        kept = {0: stored} | {share: rounded(draws, share) for share in SHARES}
        planes = np.nan_to_num(obs.data[:, 0]), obs.sigma[:, 0], obs.mask[:, 0]
        every = np.concatenate(list(kept.values()))[None]
        table, _ = measure_posterior(
            every, *planes, None, np.ascontiguousarray(obs.psf[:, 0]), obs.pixel_scale_arcsec, 1,
            prior.spec.target_fwhm_pix, mean=draws.mean(0)[None],
        )  # fmt: skip
        first, *others = np.split(table[0], len(kept))
        for share, images_of in kept.items():
            sizes[share].append(kilobytes(images_of))
        for share, other in zip(SHARES, others, strict=True):
            for name in SHOWN:
                move = np.sqrt(np.nanmean((other[name] - first[name]) ** 2))
                moves[share][name].append(move / max(np.nanstd(first[name], ddof=1), 1e-12))
        print(f"\r{i + 1} of {options.galaxies}", end="", flush=True)
    print(f"\nas stored: {np.median(sizes[0]):.0f} kB")
    for share in SHARES:
        about = ", ".join(f"{name} {np.nanmedian(values):.3f}" for name, values in moves[share].items())
        print(f"spread x {share}: {np.median(sizes[share]):.0f} kB; {about}")


if __name__ == "__main__":
    main()
