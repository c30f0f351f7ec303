"""A small mosaic with known pixels, and its survey file, for the tests of reading and cutting."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.cutouts.propose.folder import propose

SCALE = 0.04
NY, NX = 300, 260


def wcs_of(ny=NY, nx=NX, scale=SCALE, ra=150.0, dec=2.0, angle=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    wcs.wcs.crval = [ra, dec]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    wcs.wcs.cunit = ["deg", "deg"]
    return wcs


def gaussian_psf(size=15, fwhm=3.0, dy=0.0, dx=0.0):
    y, x = np.indices((size, size)) - (size - 1) / 2
    psf = np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / (fwhm / 2.3548) ** 2)
    return (psf / psf.sum()).astype(np.float32)


def write_image(path, data, wcs=None, name=None, **cards):
    header = wcs.to_header() if wcs is not None else fits.Header()
    for key, value in cards.items():
        header[key] = value
    hdu = fits.PrimaryHDU(data, header) if name is None else fits.ImageHDU(data, header, name=name)
    (fits.HDUList([hdu]) if name is None else fits.HDUList([fits.PrimaryHDU(), hdu])).writeto(
        path, overwrite=True
    )
    return Path(path)


def write_psf(path, psf=None, scale=SCALE):
    return write_image(path, gaussian_psf() if psf is None else psf, PIXSCALE=scale)


def noise_field(seed=0, ny=NY, nx=NX, sigma=0.5):
    rng = np.random.default_rng(seed)
    return rng.normal(0, sigma, (ny, nx)).astype(np.float32)


def add_galaxy(image, y, x, flux=400.0, fwhm=5.0):
    yy, xx = np.indices(image.shape)
    s = fwhm / 2.3548
    image += (flux / (2 * np.pi * s * s) * np.exp(-0.5 * ((yy - y) ** 2 + (xx - x) ** 2) / s**2)).astype(
        np.float32
    )


STATED = {"err_scale": "1.0", "noise_acf": '"none"', "error_floor": "0.0"}


def stated(extra=""):
    """``extra``, and that the noise map is right and white, as far as ``extra`` does not say otherwise."""
    return "\n".join([extra, *(f"{k} = {v}" for k, v in STATED.items() if k not in extra)])


def simple_survey(folder, sci=None, err=None, extra="", head="", **cards):
    """Write sci, err, psf and a survey file with one band f200w; returns the path of the survey file."""
    folder = Path(folder)
    sci = noise_field() if sci is None else sci
    cards = {"BUNIT": "nJy", **cards}
    wcs = wcs_of(*sci.shape)
    write_image(folder / "sci.fits", sci, wcs, **cards)
    write_image(folder / "err.fits", np.full(sci.shape, 0.5, np.float32) if err is None else err, wcs)
    write_psf(folder / "psf.fits")
    path = folder / "survey.toml"
    path.write_text(
        f'{head}\n[bands.f200w]\nsci = "sci.fits"\nerr = "err.fits"\npsf = "psf.fits"\n{stated(extra)}\n'
    )
    return path


def write_bands(folder, extra=None, head="", **bands):
    """Images, error maps, PSFs and the survey file ``s.toml`` of ``bands``: name -> (image, WCS, sigma);
    ``extra``: lines of the file by band. Returns the path of the survey file."""
    text = head
    for name, (image, wcs, sigma) in bands.items():
        scale = 3600 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
        write_image(folder / f"{name}.fits", image.astype("f4"), wcs, BUNIT="nJy")
        write_image(folder / f"{name}_err.fits", np.full(image.shape, sigma, "f4"), wcs)
        write_psf(folder / f"{name}_psf.fits", scale=scale)
        text += f'[bands.{name}]\nsci = "{name}.fits"\nerr = "{name}_err.fits"\npsf = "{name}_psf.fits"\n'
        text += stated((extra or {}).get(name, "")) + "\n"
    (folder / "s.toml").write_text(text)
    return folder / "s.toml"


def wcs_from(numbers):
    """The WCS that the eight numbers of a stamp stand for."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], numbers[:2], numbers[2:4]
    wcs.wcs.cd = numbers[4:].reshape(2, 2)
    return wcs


def sources(x, y, wcs=None, **columns):
    """Columns of sources at pixels (from 0) of a mosaic."""
    wcs = wcs_of() if wcs is None else wcs
    ra, dec = wcs.all_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
    return {"source_id": np.arange(len(ra)) + 1, "ra": ra, "dec": dec, **columns}


def nobody(question, suggestion):
    return None


def proposed(folder, tmp_path, ask=nobody):
    """The survey file that is proposed for ``folder``, written to ``s.toml``, and what is said of it."""
    text, said = propose(folder, tmp_path / "s.toml", ask)
    (tmp_path / "s.toml").write_text(text)
    return text, said
