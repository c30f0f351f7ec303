"""Colours of a run against the truth of its mock field: bias, and how often the intervals hold.

    galbatch simulate field --out FOLDER --name field --n 96 --seed 2000000
    galbatch process FOLDER/field.parquet
    python benchmarks/science/colours.py FOLDER/field.run

The truth is the colour of the noise-free image at the target PSF in the aperture that the draws had. A rank
is the place of the truth among k differences of draws (draw n of one band, widened as in the catalogue, less
draw n of the other), at random between two of them: uniform if both have one law. "quantile": share of truths
inside the catalogue's p16 to p84.
"""

import sys

import numpy as np

from galbatch.pipeline.colour import light_in_apertures, widened_magnitudes, widening
from galbatch.report.read import RunReader
from galbatch.report.view import own_truth
from galbatch.store import open_run
from galbatch.validate.ranks import ranks

NEEDED = [f"{q}_raw50" for q in ("sn_per_pixel", "r_petro", "xc_asymmetry", "yc_asymmetry")]
NEEDED += [f"flux_njy_{p}" for p in ("raw16", "raw84", "p16", "p84")]


def colours_of(reader: RunReader, source_id) -> dict | None:
    """Colour of the truth, ends of the catalogue's interval, differences of draws (k,), S/N and quality of a
    source of two bands; None without truth."""
    run = reader.run
    stamps, row = zip(*(reader.stamp(source_id, band) for band in run.bands), strict=True)
    truth = [reader._true(source_id, s.band, s, row[0]) for s in stamps]
    if any(image is None for image in truth):
        return None
    columns = {
        f"{q}_{b}": np.array([reader.number(f"{q}_{b}", source_id)]) for q in NEEDED for b in run.bands
    }
    samples = np.stack([run.samples(source_id, band) for band in run.bands], axis=1)
    oversample = run.layout.oversample
    light = light_in_apertures(columns, stamps, samples, oversample, 0)[0][0]
    truth = [own_truth(t, s, oversample * s.ratio)[0] for t, s in zip(truth, stamps, strict=True)]
    true = light_in_apertures(columns, stamps, np.stack(truth)[None], oversample, 0)[0][0]
    one, two = (
        widened_magnitudes(light[:, c], widening(columns, band, 0)) for c, band in enumerate(run.bands)
    )
    stem = "color_" + "_".join(run.bands)
    return {
        "truth": float(-2.5 * np.log10(true[0, 0] / true[0, 1])),
        "ends": [reader.number(f"{stem}_{p}", source_id) for p in ("p16", "p50", "p84")],
        "draws": one - two if len(one) == len(two) else np.full(len(light), np.nan),
        "snr": min(columns[f"sn_per_pixel_raw50_{b}"][0] for b in run.bands),
        "quality": reader.number("quality", source_id),
    }


def main() -> None:
    rows = []
    for path in sys.argv[1:]:
        reader = RunReader(open_run(path))
        rows += [r for i in reader.run.finished_ids() if (r := colours_of(reader, i)) is not None]
    table = {k: np.array([r[k] for r in rows]) for k in rows[0]}
    truth, (low, middle, high) = table["truth"], table["ends"].T
    u = ranks(table["draws"], truth, np.random.default_rng(0))
    known = np.isfinite(middle)
    good = table["quality"] == 0
    print("sources | n | bias median, mean | scatter | half interval | quantile | ranks 68%, 90%")
    for name, where in {
        "all": known,
        "quality 0": known & good,
        "quality 0, S/N per pixel above 2.5 in both": known & good & (table["snr"] > 2.5),
        "quality 0, below": known & good & (table["snr"] <= 2.5),
    }.items():
        error = (middle - truth)[where]
        off = np.abs(u[where] - 0.5)
        inside = ((truth > low) & (truth < high))[where].mean()
        scatter = 1.4826 * np.median(np.abs(error - np.median(error)))
        half = np.median((high - low)[where]) / 2
        print(
            f"{name} | {where.sum()} | {np.median(error):+.3f}, {error.mean():+.3f} | "
            f"{scatter:.3f} | {half:.3f} | "
            f"{inside:.0%} | {(off < 0.34).mean():.0%}, {(off < 0.45).mean():.0%}"
        )


if __name__ == "__main__":
    main()
