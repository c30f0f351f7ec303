"""FITS files read by position: the same pixels as astropy's, and every damage named."""

import gzip
import http.server
import os
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from cutouts_field import add_galaxy, noise_field, sources, wcs_of, write_image, write_psf

from galbatch.cutouts import open_survey
from galbatch.cutouts.fits import images
from galbatch.cutouts.fits.header import read_image, scan_images
from galbatch.cutouts.fits.images import ImagePool, Plane, read_boxes
from galbatch.cutouts.fits.source import open_bytes
from galbatch.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GALBATCH_CACHE", str(tmp_path / "cache"))


def expected(image, y0, x0, h, w, fill=np.nan):
    out = np.full((len(y0), h, w), fill, np.float64)
    ny, nx = image.shape
    for i, (a, b) in enumerate(zip(y0, x0, strict=True)):
        for r in range(h):
            for c in range(w):
                if 0 <= a + r < ny and 0 <= b + c < nx:
                    out[i, r, c] = image[a + r, b + c]
    return out


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", "i8", "u1", "u2"])
@pytest.mark.parametrize("count", [1, 40])
def test_boxes_equal_the_pixels_also_across_edges(tmp_path, dtype, count):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 100, (50, 37)).astype(dtype)
    path = write_image(tmp_path / "a.fits", image)
    source = open_bytes(str(path))
    hdu = scan_images(source)[0]
    y0, x0 = rng.integers(-9, 50, count), rng.integers(-9, 37, count)
    stamps, ok = read_boxes(source, hdu, y0, x0, 8, 6)
    assert ok.all() and stamps.dtype == np.float32 and stamps.dtype.isnative
    np.testing.assert_array_equal(stamps, expected(image, y0, x0, 8, 6).astype(np.float32))
    if np.dtype(dtype).kind in "iu":
        whole, _ = read_boxes(source, hdu, y0, x0, 8, 6, fill=0)
        assert whole.dtype == np.int64
        np.testing.assert_array_equal(whole, expected(image, y0, x0, 8, 6, 0).astype(np.int64))


WIDE = np.arange(400 * 30000, dtype=np.float32).reshape(400, 30000)
SMALL = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(("image", "y0", "x0", "side"), [
    (WIDE, [10, 300], [-3, 29000], 16),
    (WIDE, np.arange(60), np.arange(60) * 400, 16),
    (SMALL, [-2], [-3], 9),  # wider than the image
    (SMALL, [-2, -1, 0, 1], [0, -4, 2, -7], 9),
])  # fmt: skip
def test_wide_images_and_wide_stamps(tmp_path, image, y0, x0, side):
    source = open_bytes(str(write_image(tmp_path / "a.fits", image)))
    stamps, ok = read_boxes(source, scan_images(source)[0], y0, x0, side, side)
    assert ok.all() or image is SMALL
    np.testing.assert_array_equal(stamps, expected(image, y0, x0, side, side).astype(np.float32))


def test_scaling_and_blank(tmp_path):
    header = fits.Header({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": -1})
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.arange(-1, 11, dtype=np.int16).reshape(3, 4)).writeto(path)
    raw = bytearray(path.read_bytes())
    cards = "".join(c.image for c in header.cards)
    end = raw.index(b"END" + b" " * 77)
    raw[end : end + len(cards) + 80] = cards.encode() + b"END" + b" " * 77
    path.write_bytes(raw)
    source = open_bytes(str(path))
    stamps, _ = read_boxes(source, scan_images(source)[0], [0], [0], 3, 4)
    want = np.arange(-1, 11).reshape(3, 4) * 0.5 + 10
    want[0, 0] = np.nan
    np.testing.assert_allclose(stamps[0], want)


def test_extension_by_name_and_the_names_that_exist(tmp_path):
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(np.ones((4, 4), "f4"), name="SCI"),
        fits.ImageHDU(np.zeros((4, 4), "f4"), name="ERR"),
        fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="HDRTAB"),
    ]
    path = str(tmp_path / "i2d.fits")
    fits.HDUList(hdus).writeto(path)
    pool = ImagePool()
    image = pool.open(Plane(path, ("SCI_BKSUB", "sci")))
    assert read_image(image.source, image.hdu).sum() == 16
    assert pool.open(Plane(path, ("2",))).hdu.name == "ERR"
    with pytest.raises(InputError, match="no image extension WHT: it holds SCI, ERR"):
        pool.open(Plane(path, ("WHT",)))


KNOWN = {"BITPIX": -32, "NAXIS1": 260}


def test_damaged_files_are_named(tmp_path):
    good = write_image(tmp_path / "good.fits", noise_field(), wcs_of()).read_bytes()
    card = lambda name, value: good.replace(  # noqa: E731
        f"{name:8}={KNOWN[name]:>21}".encode(), f"{name:8}={value:>21}".encode()
    )
    cases = {
        "empty": (b"", "is empty"),
        "text": (b"hello" * 999, "not a FITS file"),
        "half": (good[: len(good) // 2], "truncated"),
        "header": (good[:1000], "truncated or damaged"),
        "cards": (card("BITPIX", -33), "BITPIX"),
        "axes": (card("NAXIS1", "'many'"), "impossible axes"),
        "negative": (card("NAXIS1", -260), "impossible axes"),
        "huge": (card("NAXIS1", 9999999999999), "truncated"),
        "ascii": (good.replace(b"BITPIX  =", b"BITPIX\xff\xfe="), "not ASCII"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.fits"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            ImagePool().open(Plane(str(path)))
    with pytest.raises(InputError, match=r"none.fits cannot be opened: No such file"):
        ImagePool().open(Plane(str(tmp_path / "none.fits")))
    if os.getuid():
        os.chmod(tmp_path / "good.fits", 0)
        with pytest.raises(InputError, match="Permission denied"):
            ImagePool().open(Plane(str(tmp_path / "good.fits")))


def test_a_file_that_changes_while_open_is_an_error_and_not_a_signal(tmp_path):
    path = write_image(tmp_path / "a.fits", noise_field())
    pool = ImagePool()
    image = pool.open(Plane(str(path)))
    os.truncate(path, 100_000)
    with pytest.raises(InputError, match="changed during the run"):
        image.boxes([290], [10], 8, 8)
    _, ok = read_boxes(image.source, image.hdu, [0, 290], [10, 10], 8, 8)
    assert ok.tolist() == [True, False]
    write_image(path, noise_field(1))
    with pytest.raises(InputError, match="changed during the run"):  # as another process finds it
        ImagePool(pool.pins).open(Plane(str(path)))


def pack(tmp_path, image):
    """The same image plain, gzipped, tile-compressed (without loss), and as both."""
    plain = write_image(tmp_path / "a.fits", image, wcs_of())
    zipped = tmp_path / "a.fits.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    tiled = tmp_path / "a.fits.fz"
    hdu = fits.CompImageHDU(image, wcs_of().to_header(), compression_type="GZIP_2", quantize_level=0.0)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tiled)
    both = tmp_path / "b.fits.fz.gz"
    both.write_bytes(gzip.compress(tiled.read_bytes()))
    return plain, zipped, tiled, both


def cut_of(tmp_path, rows, sci, err):
    """A whole cut (pixels, variance, mask, segments, PSF, WCS) of a survey file that names these planes."""
    text = f'[bands.b]\nsci = "{sci}"\nerr = "{err}"\npsf = "psf.fits"\nunit = "nJy"\n'
    (tmp_path / "s.toml").write_text(text)
    batch = open_survey(tmp_path / "s.toml").cut(rows, 32)
    stamps = batch.bands[0]
    found = [getattr(stamps, n).tobytes() for n in ("data", "sigma", "mask", "seg", "psf", "wcs")]
    assert not batch.failures and stamps.mask[0].any() and not stamps.mask[0].all()
    return found + [v.tobytes() for v in stamps.columns.values()], batch.flags.tolist()


@pytest.mark.parametrize("place", ["folder", pytest.param("server", marks=pytest.mark.ci("aiohttp"))])
def test_the_same_galaxy_through_every_packing(tmp_path, place):
    """Plain, .gz, .fz and both, unpacked once; and at a server."""
    image, err = noise_field(), np.full((300, 260), 0.5, np.float32)
    add_galaxy(image, 120, 100)
    image[118, 95], err[122, 104] = np.nan, 0
    (tmp_path / "err").mkdir()
    pairs = list(zip(pack(tmp_path, image), pack(tmp_path / "err", err), strict=True))
    write_psf(tmp_path / "psf.fits")
    rows = sources([100.0, 3.0], [120.0, 200.0])
    if place == "server":
        with served(tmp_path) as (url, _):
            cuts = [cut_of(tmp_path, rows, f"{url}/{n}", f"{url}/err/{n}") for n in ("a.fits", "a.fits.gz")]
        cuts.append(cut_of(tmp_path, rows, *pairs[0]))
    else:
        cuts = [cut_of(tmp_path, rows, *pair) for pair in pairs]
        assert len(list((tmp_path / "cache").glob("*/*.fits"))) == 8
        before = {p: p.stat().st_ino for p in (tmp_path / "cache").iterdir()}
        ImagePool().open(Plane(str(tmp_path / "a.fits.gz")))
        assert {p: p.stat().st_ino for p in (tmp_path / "cache").iterdir()} == before
    assert all(c == cuts[0] for c in cuts)


def test_a_truncated_gzip_is_named_and_leaves_nothing(tmp_path):
    _, zipped, *_ = pack(tmp_path, noise_field())
    zipped.write_bytes(zipped.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged or truncated gzip"):
        ImagePool().open(Plane(str(zipped)))
    assert [p.name for p in (tmp_path / "cache").glob("*/*")] == ["CACHEDIR.TAG"]


@contextmanager
def served(folder):
    """A local HTTP server with byte ranges: yields (url, log of Range headers)."""
    log = []

    class Ranges(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            data, want = Path(self.translate_path(self.path)).read_bytes(), self.headers.get("Range")
            log.append(want)
            low, high = map(int, want.removeprefix("bytes=").split("-")) if want else (0, len(data) - 1)
            part = data[low : high + 1]
            self.send_response(206 if want else 200)
            if want:
                self.send_header("Content-Range", f"bytes {low}-{low + len(part) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.write(part)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.ci("aiohttp")
def test_remote_rows_are_fetched_in_few_coalesced_ranges(tmp_path):
    image = np.arange(600 * 5000, dtype=np.float32).reshape(600, 5000)
    write_image(tmp_path / "a.fits", image)
    with served(tmp_path) as (url, log):
        opened = ImagePool().open(Plane(f"{url}/a.fits"))
        log.clear()
        y0, x0 = np.array([100, 101, 500]), np.array([40, 90, 4000])
        stamps, ok = opened.boxes(y0, x0, 32, 32)
        assert ok.all()
        np.testing.assert_array_equal(stamps, expected(image, y0, x0, 32, 32).astype(np.float32))
        assert len(log) <= 4
        assert opened.source.bytes_read < 1.6e6
    with pytest.raises(InputError, match="cannot be opened"):
        ImagePool().open(Plane(f"{url}/none.fits"))


def test_a_tile_compressed_image_that_unpacks_to_none_is_damaged(tmp_path, monkeypatch):
    (packed,) = [path for path in pack(tmp_path, noise_field()) if path.name == "a.fits.fz"]
    scan, calls = images.scan_images, []
    monkeypatch.setattr(
        images, "scan_images", lambda s: calls.append(s) or ([] if len(calls) > 1 else scan(s))
    )
    with pytest.raises(InputError, match="unpacks to none"):
        ImagePool().open(Plane(str(packed)))
