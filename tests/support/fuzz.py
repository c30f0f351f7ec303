"""Seeded damage to files and folders for a bounded time, and the sound ones that it is done to.

``GALBATCH_FUZZ_SECONDS``: of all targets together; ``GALBATCH_FUZZ_SEED``: of the first case.
"""

import gzip
import io
import os
import random
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.cutouts import open_survey
from galbatch.cutouts.survey.layout import SURVEY_KEYS, TILE_KEYS
from galbatch.errors import GalbatchError

LEAST_CASES, PATH = 3, "tests/faults/test_fuzz.py"
SURVEY = """name = "x"
stamp_arcsec = 1.0
[bands.f]
sci = "sci.fits"
err = "err.fits"
psf = "psf.fits"
unit = "nJy"
err_scale = 1.0
noise_acf = "none"
"""
FILES = ["sci.fits", "err.fits", "psf.fits", "stdpsf.fits", "psfex.fits", "sci.fits.gz", "sci.fits.fz"]
ROWS = {"source_id": np.array([1, 2]), "ra": np.array([150.0, 150.0001]), "dec": np.array([2.0, 2.0])}

WORDS = [
    *SURVEY_KEYS, *TILE_KEYS, "x.y", "'../z'", '"sci.fits"', '"psf.fits[0]"', '"err.fits[99]"', '""',
    '"[SCI]"', '"../../../../etc/passwd"', '"/dev/zero"', "[]", "{}", '"generic"', '"dja"', '"hsc"',
    '"s.toml"', '"measure"', '"nJy"', '"uJy"', '"{tile}"', '"file:///etc/passwd"', "true", "1979-05-27",
    "inf", "nan", "-1", "0", "1", "2.5", "1e400", "9" * 400, '["a", "b"]', "[[1]]", '"\\u0000"', '"~/x"',
    '"."', "1_000",
]  # fmt: skip
CARDS = [
    "SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "BSCALE", "BZERO",
    "BLANK", "CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "CUNIT1",
    "PC1_1", "PC1_2", "CD1_1", "CROTA2", "BUNIT", "EXTNAME", "XTENSION", "ZIMAGE", "END", "SATURATE",
    "NXPSFS", "IPSFX02", "JPSFY01", "POLDEG1", "POLNAXIS", "POLNAME1", "POLSCAL1", "PSF_SAMP", "TFORM1",
    "TDIM1", "TTYPE1", "TFIELDS", "ZNAXIS1", "ZBITPIX", "ZTILE1", "ZCMPTYPE", "A_ORDER", "PV1_1",
    "PIXSCALE", "LONPOLE", "LATPOLE", "WCSAXES", "RADESYS", "EQUINOX",
]  # fmt: skip
VALUES = [
    "0", "1", "-1", "2", "3", "8", "-32", "-64", "99", "1E400", "NaN", "T", "F", "'x'", "'RA---TPV'",
    "'nJy'", "99999999999", "1.5", "", "'", "(1, 2)", "-0.0", "1e-320", "'MJy/sr/sr'", "'GLON-CAR'",
    "20.4", "150.00001", "'DEC--TAN'", "'RA---SIN'", "'arcsec'", "'FK4'", "1950.0", "180.0",
]  # fmt: skip


def fuzz(target: str, share: float, case) -> None:
    """``case(rng)`` with one seed after the other, for a share of the time. A failure says how to repeat
    it."""
    seed = first = int(os.environ.get("GALBATCH_FUZZ_SEED", 0))
    end = time.monotonic() + share * float(os.environ.get("GALBATCH_FUZZ_SECONDS", 20))
    while seed < first + LEAST_CASES or time.monotonic() < end:
        try:
            case(random.Random(seed))
        except Exception as error:
            again = f"GALBATCH_FUZZ_SEED={seed} GALBATCH_FUZZ_SECONDS=0 pytest {PATH} -k {target}"
            raise AssertionError(f"case {seed} of {target}. To repeat it: {again}") from error
        seed += 1
    print(f"{target}: {seed - first} cases from seed {first}")


def harm_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a bit, a byte or a stretch changed, cut off, doubled or added."""
    out, at = bytearray(data), rng.randrange(len(data) or 1)
    kind = rng.choice(["bit", "byte", "zeros", "noise", "cut", "add", "double", "empty"])
    size = min(rng.choice([1, 7, 64, 2880]), len(out) - at)
    if kind == "bit" and out:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "byte" and out:
        out[at] = rng.randrange(256)
    elif kind in ("zeros", "noise"):
        out[at : at + size] = bytes(size) if kind == "zeros" else rng.randbytes(size)
    elif kind == "cut":
        del out[rng.choice([at, len(out) - size]) :]
    elif kind == "add":
        out += rng.randbytes(size)
    elif kind == "double":
        out[at:at] = out[at : at + size]
    elif kind == "empty":
        out.clear()
    return bytes(out)


def harm_text(rng: random.Random, text: str, words: list[str]) -> str:
    """Text with a line moved, doubled or dropped, or a character or a value changed, as people do."""
    lines = text.splitlines()
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.choice(["swap", "double", "drop", "value", "value", "value", "key", "letter", "digit"])
    key, _, value = lines[i].partition(" = ")
    if kind == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == "double":
        lines.insert(j, lines[i])
    elif kind == "drop":
        del lines[i]
    elif kind == "value" and value:
        lines[i] = f"{key} = {rng.choice(words)}"
    elif kind == "key":
        lines.insert(j, f"{rng.choice(words)} = {value or rng.choice(words)}")
    elif lines[i]:
        at = rng.randrange(len(lines[i]))
        new = (
            rng.choice("0123456789.-e")
            if kind == "digit"
            else chr(rng.choice([rng.randrange(32, 127), 0x3B1]))
        )
        lines[i] = lines[i][:at] + rng.choice(["", new]) + lines[i][at + 1 :]
    return "\n".join(lines) + "\n"


def harm_folder(rng: random.Random, folder: Path) -> list[str]:
    """One to three things done to the files of a folder, none of them given a new name; what was done."""
    done = []
    for _ in range(rng.randint(1, 3)):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        one, other = rng.choice(files), rng.choice(files)
        kind = rng.choice(["bytes"] * 6 + ["digit", "digit", "drop", "swap", "copy", "older", "folder"])
        done.append(f"{kind} {one.relative_to(folder)} {other.relative_to(folder)}")
        if kind == "bytes":
            one.write_bytes(harm_bytes(rng, one.read_bytes()))
        elif kind == "digit":  # an edit by hand, of JSON and TOML above all
            one = rng.choice([p for p in files if p.suffix in (".json", ".toml", ".jsonl")] or files)
            data = one.read_bytes()
            places = [i for i, c in enumerate(data) if chr(c).isdigit()] or [0]
            at = rng.choice(places)
            one.write_bytes(data[:at] + b"%d" % rng.randrange(10) + data[at + 1 :])
            done[-1] = f"digit {one.relative_to(folder)} at {at}"
        elif kind == "drop":
            one.unlink()
        elif kind == "swap":
            one_bytes = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(one_bytes)
        elif kind == "copy":
            one.write_bytes(other.read_bytes())
        elif kind == "folder" and one.parent != folder:
            shutil.rmtree(one.parent)
        elif kind == "older":
            os.utime(one, (1, 1))
    return done


def sound_survey(path: Path) -> Path:
    """A survey of 48 x 40 pixels with a plane and a PSF in every kind of file, and a catalogue."""
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 20.0, "CRPIX2": 24.0, "CRVAL1": 150.0}
        | {"CRVAL2": 2.0, "CDELT1": -1e-5, "CDELT2": 1e-5, "BUNIT": "nJy"}
    )
    noise = np.random.default_rng(0).normal(size=(48, 40)).astype("f4")
    fits.PrimaryHDU(noise, header).writeto(path / "sci.fits")
    fits.PrimaryHDU(np.ones((48, 40), "f4"), header).writeto(path / "err.fits")
    y, x = np.mgrid[-4:5, -4:5]
    psf = np.exp(-(x**2 + y**2) / 4.0).astype("f4")
    psf /= psf.sum()
    fits.PrimaryHDU(psf, fits.Header({"PIXSCALE": 0.036})).writeto(path / "psf.fits")
    grid = {"NXPSFS": 2, "NYPSFS": 1, "IPSFX01": 1, "IPSFX02": 40, "JPSFY01": 24, "PIXSCALE": 0.036}
    fits.PrimaryHDU(np.stack([psf, psf]), fits.Header(grid)).writeto(path / "stdpsf.fits")
    basis = np.stack([psf, psf * 0, psf * 0])
    column = fits.Column("PSF_MASK", f"{basis.size}E", dim="(9,9,3)", array=basis[None])
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    model = {"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE", "POLZERO1": 20.0, "POLZERO2": 24.0}
    model |= {"POLSCAL1": 40.0, "POLSCAL2": 48.0, "POLGRP1": 1, "POLGRP2": 1, "POLNGRP": 1, "POLDEG1": 1}
    table.header.update(model | {"PSF_SAMP": 1.0, "PSFNAXIS": 3, "PSF_FWHM": 2.0})
    table.writeto(path / "psfex.fits")
    (path / "sci.fits.gz").write_bytes(gzip.compress((path / "sci.fits").read_bytes(), mtime=0))
    tiled = fits.CompImageHDU(noise, header, compression_type="RICE_1", quantize_level=16.0)
    fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(path / "sci.fits.fz")
    (path / "s.toml").write_text(SURVEY)
    rows = pa.table({n: list(v) for n, v in ROWS.items()} | {"name": ["a", "b"]})
    pq.write_table(rows, path / "c.parquet", write_page_checksum=True)
    return path


def survey_with(which: str, name: str) -> str:
    """The survey file in which the plane that ``which`` stands for is ``name``."""
    plane = "psf.fits" if "psf" in which else which[:3] + ".fits"
    frame = "psf_frame = 'mosaic'\n" if which[:3] == "std" or "ex" in which else ""
    return SURVEY.replace(plane, name) + frame


def use(path: Path, rows=ROWS):
    """All that a run does with a survey before sampling: the survey and its stamps, or the error of ours
    that refuses it. Anything else fails the test."""
    try:
        survey = open_survey(path)
        refused = [f.line for f in survey.check(["source_id", "ra", "dec"]) if f.level == "error"]
        if refused:
            raise GalbatchError("\n".join(refused))
        survey.locate(rows["ra"], rows["dec"])
        batch = survey.cut(rows, 16)
    except GalbatchError as error:
        assert len(str(error)) > 20, "no remedy"
        return None, error
    for stamps in batch.bands:
        assert not np.any(np.isfinite(stamps.sigma) & stamps.mask)
        assert np.all(np.isfinite(stamps.data[~stamps.mask])) and np.all(stamps.sigma[~stamps.mask] > 0)
    return survey, batch


def with_cards(rng, content):
    """The file with header cards replaced or added."""
    out = bytearray(content)
    for _ in range(rng.randint(0, 3)):
        key = rng.choice(CARDS)
        card = f"{key:<8}= {rng.choice(VALUES):>20}".ljust(80)[:80].encode("ascii")
        at = out.find(f"{key:<8}=".encode())
        at = at if at >= 0 and at % 80 == 0 else out.find(b"END" + b" " * 77)
        if at >= 0:
            out[at : at + 80] = card
            if at + 80 <= len(out) and key not in content.decode("latin-1") and rng.random() < 0.8:
                out[at + 80 : at + 160] = b"END".ljust(80)
    return bytes(out)


def as_astropy_reads(path):
    """Image and WCS of the first image of a file, None where astropy cannot."""
    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(path.read_bytes())) as hdus:
            warnings.simplefilter("ignore")
            hdu = next(h for h in hdus if h.is_image and h.data is not None)
            return np.array(hdu.data, float), WCS(hdu.header)
    except Exception:
        return None
