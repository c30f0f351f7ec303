"""A sound survey of 48 x 40 pixels, to be damaged."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from damage import SURVEY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sound survey of 48 x 40 pixels."""
    path = tmp_path_factory.mktemp("survey")
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRPIX1": 20.0,
            "CRPIX2": 24.0,
            "CRVAL1": 150.0,
            "CRVAL2": 2.0,
            "CDELT1": -1e-5,
            "CDELT2": 1e-5,
            "BUNIT": "nJy",
        }
    )
    noise = np.random.default_rng(0).normal(size=(48, 40)).astype("f4")
    fits.PrimaryHDU(noise, header).writeto(path / "sci.fits")
    fits.PrimaryHDU(np.ones((48, 40), "f4"), header).writeto(path / "err.fits")
    psf = np.zeros((5, 5), "f4")
    psf[2, 2] = 1
    fits.PrimaryHDU(psf, fits.Header({"PIXSCALE": 0.036})).writeto(path / "psf.fits")
    grid = {"NXPSFS": 2, "NYPSFS": 1, "IPSFX01": 1, "IPSFX02": 40, "JPSFY01": 24, "PIXSCALE": 0.036}
    fits.PrimaryHDU(np.stack([psf, psf]), fits.Header(grid)).writeto(path / "stdpsf.fits")
    basis = np.stack([psf, psf * 0, psf * 0])
    column = fits.Column("PSF_MASK", f"{basis.size}E", dim="(5,5,3)", array=basis[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    model = {"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE", "POLZERO1": 20.0, "POLZERO2": 24.0}
    model |= {"POLSCAL1": 40.0, "POLSCAL2": 48.0, "POLGRP1": 1, "POLGRP2": 1, "POLNGRP": 1, "POLDEG1": 1}
    table.header.update(model | {"PSF_SAMP": 1.0, "PSFNAXIS": 3, "PSF_FWHM": 2.0})
    table.writeto(path / "psfex.fits")
    (path / "sci.fits.gz").write_bytes(gzip.compress((path / "sci.fits").read_bytes(), mtime=0))
    tiled = fits.CompImageHDU(noise, header, compression_type="RICE_1", quantize_level=16.0)
    fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(path / "sci.fits.fz")
    (path / "s.toml").write_text(SURVEY)
    pq.write_table(
        pa.table({"source_id": [1, 2], "ra": [150.0, 150.001], "dec": [2.0, 2.0], "name": ["a", "b"]}),
        path / "c.parquet",
    )
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
