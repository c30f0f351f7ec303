"""Simulated galaxies beside TNG/SKIRT and HST ones: distributions of morphology, and a contact sheet.

    python benchmarks/science/simulator_vs_real.py --out DIR [--n 400] [--law 2] [--data ../shared/data]

Every set is brought to the same condition: half-light radius near 10 pixels where it is free, a Gaussian
PSF of FWHM 2 pixels (HST images keep their own, about as wide), no sky noise, a segment bounded at a tenth of
the mean surface brightness inside the half-light radius. What is printed: the median and 16-84% range of each
quantity in each set, and the Kolmogorov-Smirnov distance of the simulated distribution to each real one. One
JSON line is appended to DIR/simulator_vs_real.jsonl.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter, label, zoom
from scipy.stats import ks_2samp

from galbatch.bench.timing import environment, keep
from galbatch.morphology import measure
from galbatch.simulate.galaxies import half_light_radius, simulate_galaxies

SIDE, SIGMA = 128, 2.0 / 2.3548
QUANTITIES = (
    *("gini", "m20", "concentration", "asymmetry", "smoothness", "sersic_n", "ellipticity"),
    *("intensity", "multimode", "deviation"),
)


def fit_frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resize (h, w) to a half-light radius of 7 to 14 pixels, centre it in SIDE x SIDE and blur it; sum 1."""
    image = np.clip(np.nan_to_num(image.astype(float), nan=0.0, posinf=0.0, neginf=0.0), 0.0, None)
    factor = rng.uniform(7.0, 14.0) / max(half_light_radius(image), 1.0)
    if factor < 1.0:
        image = gaussian_filter(image, 0.4 / factor)
    image = np.clip(zoom(image, factor, order=1), 0.0, None)
    y, x = np.indices(image.shape)
    cy, cx = round((image * y).sum() / image.sum()), round((image * x).sum() / image.sum())
    padded = np.pad(image, SIDE)
    frame = padded[cy + SIDE // 2 : cy + SIDE // 2 + SIDE, cx + SIDE // 2 : cx + SIDE // 2 + SIDE]
    frame = gaussian_filter(frame, SIGMA)
    return frame / frame.sum()


def tng_images(data: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """One image a galaxy: i band of the SDSS cubes, the F200W-like JWST cube, the merger in magnitudes."""
    images = []
    for path in sorted(data.glob("tng/tng*_skirt_sdss/*.fits")):
        images.append(fit_frame(fits.getdata(path)[2], rng))
    for path in sorted(data.glob("tng/tng50_skirt_jwst/*short.fits")):
        images.append(fit_frame(np.asarray(fits.getdata(path))[-1], rng))
    for path in sorted(data.glob("tng/skirt_merger_mag/*.fits")):
        mag = np.asarray(fits.getdata(path), dtype=float)
        images.append(fit_frame(np.where(np.isfinite(mag) & (mag < 90), 10 ** (-0.4 * (mag - 20)), 0.0), rng))
    return images


def decoder_images(data: Path, rng: np.random.Generator, n: int = 150) -> list[np.ndarray]:
    """Galaxies from the TNG autoencoder at random latent points (red channel); none without onnxruntime."""
    path = data / "tng" / "illustris_decoder.onnx"
    try:
        import onnxruntime
    except ImportError:
        return []
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    points = rng.normal(size=(n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rgb = session.run(None, {session.get_inputs()[0].name: points.astype(np.float32)})[0].clip(0, 1)
    mean = rgb.mean(1, keepdims=True)
    flux = np.clip(np.sinh(5 * mean) / 4.5 * rgb / np.maximum(mean, 1e-6), 0, None)[:, 0]
    return [fit_frame(np.where(f > 0.003 * f.max(), f, 0.0), rng) for f in flux]


def hst_images(data: Path) -> list[np.ndarray]:
    """F814W at its own resolution, the central SIDE pixels; galaxies under 300 pixels are left out."""
    with np.load(next(data.glob("hst_galaxies/*.npz"))) as archive:
        red = np.nan_to_num(archive["images"][:, 1])
    cut = (red.shape[-1] - SIDE) // 2
    frames = np.clip(red[:, cut : cut + SIDE, cut : cut + SIDE], 0, None)
    return [f / f.sum() for f in frames if (f > 0).sum() > 300]


def simulated_images(n: int, seed: int, law: int = 1) -> list[np.ndarray]:
    images, _ = simulate_galaxies(n, seed, law=law)
    return [gaussian_filter(i[1], SIGMA) / i[1].sum() for i in images]


def segment(image: np.ndarray) -> np.ndarray:
    """The connected region around the brightest pixel above a tenth of the mean brightness inside r_half."""
    smooth = gaussian_filter(image, 1.5)
    radius = half_light_radius(image)
    regions, _ = label(smooth > 0.1 * 0.5 * image.sum() / (np.pi * radius**2), np.ones((3, 3)))
    return (regions == regions[np.unravel_index(smooth.argmax(), smooth.shape)]).astype(np.int32)


def profile(image: np.ndarray) -> dict[str, float]:
    """In units of the half-light radius r: the radius ``area`` of the disc that covers what is brighter than
    30, 10, 3 and 1 per cent of the peak; ``rough``, the rms of structure between 0.1 and 0.25 r over the
    light smoothed to 0.45 r, inside (above 20% of the peak), in the middle (3 to 20), outside (0.5 to 3); and
    log10 of the ``power`` at 0.1, 0.2, ... cycles per r, for a total flux of one."""
    r, found = half_light_radius(image), {}
    image = image / image.sum()
    light, peak = gaussian_filter(image, 1.0), gaussian_filter(image, 2.0).max()
    for cent in (30, 10, 3, 1):
        found[f"area_{cent}"] = float(np.sqrt((light > cent / 100 * peak).sum() / np.pi) / r)
    base, fine = (
        gaussian_filter(image, 0.45 * r),
        gaussian_filter(image, 0.8) - gaussian_filter(image, 0.25 * r),
    )
    for name, low, high in (("inside", 0.2, 1.0), ("middle", 0.03, 0.2), ("outside", 0.005, 0.03)):
        here = (base > low * base.max()) & (base <= high * base.max())
        found[f"rough_{name}"] = float((fine[here] / base[here]).std()) if here.sum() > 30 else np.nan
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(len(image))] * 2)) * r
    power = np.abs(np.fft.fft2(image)) ** 2
    for low in (0.1, 0.2, 0.4, 0.8):
        found[f"power_{low}"] = float(np.log10(power[(k > low) & (k <= 2 * low)].mean()))
    return found


def statistics(images: list[np.ndarray]) -> dict[str, np.ndarray]:
    stack = np.array(images, dtype=np.float64) * 1e4
    segments = np.stack([segment(image) for image in stack])
    table = measure(stack, 1.0, segmap=segments, sky_sigma=0.0, detection_threshold=0.0, psf_fwhm_pix=2.0,
                    outlier_sigma=0.0)  # fmt: skip
    result = {name: table[name] for name in QUANTITIES if name in table.dtype.names}
    own = [profile(image) for image in stack]
    result |= {name: np.array([row[name] for row in own]) for name in own[0]}
    result["r_half_pix"] = np.array([half_light_radius(image) for image in stack])
    return result


def contact_sheet(sets: dict[str, list[np.ndarray]], path: Path, columns: int = 16, most: int = 64) -> None:
    """The first ``most`` images of every set, one block of rows a set, asinh stretch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = {name: -(-min(len(images), most) // columns) for name, images in sets.items()}
    total = sum(rows.values())
    figure, axes = plt.subplots(total, columns, figsize=(columns, total * 1.02), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    first = 0
    for name, images in sets.items():
        for i, image in enumerate(images[:most]):
            axis = axes[first + i // columns, i % columns]
            axis.imshow(np.arcsinh(image / np.percentile(image, 99.7) * 30), origin="lower", cmap="gray")
        axes[first, 0].set_title(name, fontsize=9, loc="left")
        first += rows[name]
    figure.subplots_adjust(0, 0, 1, 0.985, 0.02, 0.06)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def compare(sets: dict[str, dict[str, np.ndarray]]) -> dict[str, object]:
    """Print the table; returns medians, ranges and KS distances."""
    record: dict[str, object] = {}
    print(f"{'':15s}" + "".join(f"{name:>24s}" for name in sets) + "   KS to each real set")
    for quantity in next(iter(sets.values())):
        cells, distances = "", []
        mine = sets["simulated"][quantity]
        for name, values in sets.items():
            good = values[quantity][np.isfinite(values[quantity])]
            low, middle, high = np.percentile(good, [16, 50, 84])
            cells += f"   {middle:7.3f} [{low:6.2f},{high:6.2f}]"
            record[f"{quantity}:{name}"] = [round(float(v), 4) for v in (low, middle, high)]
            if name != "simulated":
                distances.append(float(ks_2samp(mine[np.isfinite(mine)], good).statistic))
        record[f"{quantity}:ks"] = [round(d, 3) for d in distances]
        print(f"{quantity:15s}{cells}   " + " ".join(f"{d:.2f}" for d in distances))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1_100_000)
    parser.add_argument("--law", type=int, default=1)
    default = os.environ.get("GALBATCH_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sets = {
        "simulated": simulated_images(arguments.n, arguments.seed, arguments.law),
        "TNG files": tng_images(Path(arguments.data), rng),
        "TNG decoder": decoder_images(Path(arguments.data), rng),
        "HST": hst_images(Path(arguments.data)),
    }
    sets = {name: images for name, images in sets.items() if images}
    print({name: len(images) for name, images in sets.items()})
    contact_sheet(sets, arguments.out / "simulator_vs_real.png")
    record = compare({name: statistics(images) for name, images in sets.items()})
    line = {"n": arguments.n, "law": arguments.law, **record}
    keep(line | environment("cpu"), arguments.out / "simulator_vs_real.jsonl")


if __name__ == "__main__":
    main()
