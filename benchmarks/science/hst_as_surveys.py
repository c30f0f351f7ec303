"""Real HST galaxies, two stars and blank sky as a user's survey: an HST drizzle, a Euclid VIS tile, an HSC
patch.

    python benchmarks/science/hst_as_surveys.py hst|euclid|hsc [FOLDER] [--fine-psf] [--oversample N]

Reads shared/data/hst_galaxies (F814W at 0.06 arcsec, sky set to exactly zero, the galaxies' own noise still
in them). The telescope is put back: for Euclid and HSC more blur and larger pixels, for all a sky several
times noisier than what the images hold. The PSF that galbatch is given is a model (obscured aperture, charge
diffusion), not the one the images were taken with. Prints chi2 and, in apertures, the flux of the data and of
the draws over that of the noise-free image.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy import ndimage
from scipy.special import j1

from galbatch.types import Flag

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GALBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
IMAGES = DATA / "hst_galaxies" / "hst_candels_201x3_192px_0.06arcsec.npz"
GALAXIES = (19, 0, 5, 10, 9, 184, 7, 58, 141, 25, 14, 171, 1, 176, 36, 24, 187, 27, 30, 47)
STARS = (110, 93)
ZERO_POINT, PIVOT, EXPOSURE_S = 26.78212, 8045.5, 8000.0  # of the images in F814W; the last is ours
# pixels (repeat, then sum), pixel arcsec, added FWHM arcsec, sky sigma a pixel (electrons/s), aperture arcsec
SURVEYS = {
    "hst": (1, 1, 0.06, 0.0, 0.012, 1.2),
    "euclid": (3, 5, 0.10, 0.12, 0.030, 1.2),
    "hsc": (5, 14, 0.168, 0.58, 0.035, 1.5),
}


def psf(pixel: float, added: float, size: int, parts: int) -> np.ndarray:
    """Obscured 2.4 m aperture and 0.075 arcsec of diffusion, blurred more, summed over its pixels."""
    n, fine = size * parts, pixel / parts
    y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * fine
    r = np.maximum(np.hypot(x, y) / 206265 * np.pi * 2.4 / (PIVOT * 1e-10), 1e-9)
    light = (2 * j1(r) / r - 0.33**2 * 2 * j1(0.33 * r) / (0.33 * r)) ** 2
    light = ndimage.gaussian_filter(light, np.hypot(0.075, added) / 2.3548 / fine)
    light = light.reshape(size, parts, size, parts).sum((1, 3))
    return (light / light.sum()).astype("f4")


def field(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The noise-free mosaic (electrons/s) and the pixels (x, y) of its sources; the last three are blank."""
    up, down, pixel, added, *_ = SURVEYS[kind]
    images = np.load(IMAGES)["images"][list(GALAXIES + STARS), 1]
    stamps = []
    for image in images:
        fine = np.repeat(np.repeat(image, up, 0), up, 1) / up**2
        n = len(fine) // down * down
        fine = fine[(len(fine) - n) // 2 :, (len(fine) - n) // 2 :][:n, :n]
        stamps.append(fine.reshape(n // down, down, n // down, down).sum((1, 3)))
    stamps += [np.zeros_like(stamps[0])] * 3
    side = len(stamps[0])
    mosaic = np.block([stamps[k : k + 5] for k in range(0, 25, 5)])
    places = []
    for k, stamp in enumerate(stamps):
        y, x = ndimage.center_of_mass(stamp) if stamp.any() else (side / 2, side / 2)
        places.append((k % 5 * side + x, k // 5 * side + y))
    return ndimage.gaussian_filter(mosaic, added / pixel / 2.3548), np.array(places)


def write(kind: str, folder: Path, fine_psf: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mosaic, weight and exposure maps, PSF, catalogue and survey file; returns what ``field`` does."""
    _, _, pixel, added, sky, _ = SURVEYS[kind]
    truth, places = field(kind)
    rng = np.random.default_rng(5)
    noise = ndimage.convolve1d(
        ndimage.convolve1d(rng.standard_normal(truth.shape), (0.1, 0.8, 0.1)), (0.1, 0.8, 0.1), 0
    )
    noise *= sky / noise.std()  # correlated as drizzled noise is: 0.24 with the next pixel
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [53.12, -27.8]
    wcs.wcs.crpix, wcs.wcs.cd = [truth.shape[1] / 2] * 2, np.diag([-pixel, pixel]) / 3600
    header = wcs.to_header()
    header["BUNIT"], header["PHOTPLAM"] = "ELECTRONS/S", PIVOT
    header["PHOTFLAM"] = 10 ** (-0.4 * (ZERO_POINT + 2.408 + 5 * np.log10(PIVOT)))
    planes = {
        "drz": truth + noise,
        "wht": np.full(truth.shape, sky**-2),
        "exp": np.full(truth.shape, EXPOSURE_S),
    }
    for name, plane in planes.items():
        fits.writeto(folder / f"f_{name}.fits", plane.astype("f4"), header, overwrite=True)
    parts = 3 if fine_psf else 1
    image = psf(pixel / parts, added, 51 * parts, 15 // parts)
    fits.writeto(folder / "psf.fits", image, fits.Header({"PIXSCALE": pixel / parts}), overwrite=True)
    ra, dec = wcs.all_pix2world(places[:, 0], places[:, 1], 0)
    table = Table({"source_id": np.arange(len(ra)), "ra": ra, "dec": dec})
    table.write(folder / "c.parquet", overwrite=True)
    (folder / "c.toml").write_text(
        f'name = "{kind}"\nlayout = "hst"\nstamp_pix = 64\n[bands.i]\nsci = "f_drz.fits"\npsf = "psf.fits"\n'
        'noise_acf = "measure"\nerr_scale = "measure"\n'
    )
    return truth, places


def report(run, kind: str, truth: np.ndarray, places: np.ndarray) -> None:
    """A line a source, and the medians over galaxies without neighbours."""
    *_, aperture = SURVEYS[kind]
    njy, rows = 10 ** (-0.4 * (ZERO_POINT - 31.4)), []
    for k, row in enumerate(run.catalog):
        data, draws = np.asarray(run.observed(k, "i")), run.samples(k, "i")
        fine = draws.shape[-1] // data.shape[-1]
        y, x = (np.mgrid[:64, :64] - 32) * SURVEYS[kind][2]
        inside = np.isfinite(data) & (np.hypot(x, y) < aperture)
        left, top = (int(np.floor(v + 0.5)) - 32 for v in places[k])
        whole = np.pad(truth, 64)[top + 64 : top + 128, left + 64 : left + 128]
        flux = njy * whole[inside].sum()
        drawn = (draws * np.kron(inside, np.ones((fine, fine), bool))).sum((1, 2))
        ratio = (
            f"data {data[inside].sum() / flux:.3f}, draws {drawn.mean() / flux:.3f}" if flux > 10 else "blank"
        )
        names = [flag.name for flag in Flag if int(row["flags"]) & int(flag)]
        print(f"{k:3d}  chi2 {row['chi2_i']:.2f}  {ratio}  {row['status']} {', '.join(names)}")
        if k < len(GALAXIES) and row["n_neighbours_i"] == 0:
            rows.append((row["chi2_i"], data[inside].sum() / flux, drawn.mean() / flux))
    print(
        f"medians of {len(rows)} galaxies alone in their stamps: chi2, data, draws",
        np.median(rows, 0).round(3),
    )


def main() -> None:
    from galbatch.run import process

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=SURVEYS)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("hst-as-survey"))
    parser.add_argument("--fine-psf", action="store_true", help="PSF pixels of a third of the mosaic's")
    parser.add_argument("--oversample", type=int, default=1)
    parser.add_argument("--mode", default="fast")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    truth, places = write(options.kind, options.folder, options.fine_psf)
    choice = {"mode": options.mode, "oversample": options.oversample, "cluster": "none", "overwrite": True}
    run = process(options.folder / "c.parquet", out=options.folder / "c.run", on_message=print, **choice)
    report(run, options.kind, truth, places)


if __name__ == "__main__":
    main()
