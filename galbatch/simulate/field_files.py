"""Files of a mock field: FITS images, PSF cubes, catalogue, survey TOML and truth.

Everything is written so that the same field gives the same bytes (no dates, no compression times).
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galbatch.errors import InputError
from galbatch.simulate.field import Field, FieldSpec, make_field

if TYPE_CHECKING:
    from astropy.wcs import WCS

RA_DEG, DEC_DEG, ROLL_DEG = 214.92, 52.87, 23.0
ZERO_POINT_AB = 31.4  # of 1 nJy


def field_wcs(shape: tuple[int, int], pixel_scale_arcsec: float) -> WCS:
    """A tangent-plane WCS, rotated, with the field's centre at (RA_DEG, DEC_DEG)."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA_DEG, DEC_DEG]
    wcs.wcs.crpix = [0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1)]
    c, s = np.cos(np.radians(ROLL_DEG)), np.sin(np.radians(ROLL_DEG))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * (pixel_scale_arcsec / 3600.0)
    wcs.wcs.cunit = ["deg", "deg"]
    return wcs


def write_files(field: Field, out: Path, name: str, overwrite: bool) -> list[Path]:
    """Write everything of ``field``; returns the paths, catalogue first. Replaces only if told to."""
    folder = out / name
    catalog, survey = out / f"{name}.parquet", out / f"{name}.toml"
    if catalog.exists() and not overwrite:
        raise InputError(f"{catalog} exists; give --overwrite to replace it, or another --name.")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [catalog, survey]
    wcs = field_wcs(field.spec.shape, field.spec.pixel_scale_arcsec)
    for c, band in enumerate(field.spec.bands):
        stem = folder / band.name
        cards = {"FILTER": band.name.upper(), "ORIGIN": "galbatch simulator", "SIMSEED": field.spec.seed}
        paths += [
            _write(Path(f"{stem}_sci.fits"), field.sci[c].astype(np.float32), wcs, {**cards, "BUNIT": "nJy"}),
            _write(
                Path(f"{stem}_err.fits.gz"), field.err[c].astype(np.float32), wcs, {**cards, "BUNIT": "nJy"}
            ),
            _write(Path(f"{stem}_mask.fits.gz"), field.mask[c], wcs, cards),
            _write(
                Path(f"{stem}_psf.fits"),
                field.psf[c].astype(np.float32),
                None,
                {**cards, "PIXSCALE": field.spec.pixel_scale_arcsec},
            ),
        ]
    _write_catalog(field, catalog, wcs)
    survey.write_text(_survey_toml(field, name))
    paths.append(_write_truth(field, folder / "truth.npz"))
    return paths


def _write(path: Path, data: np.ndarray, wcs: WCS | None, cards: dict[str, object]) -> Path:
    from astropy.io import fits

    header = wcs.to_header() if wcs is not None else fits.Header()
    for key, value in cards.items():
        header[key] = value
    buffer = io.BytesIO()
    fits.PrimaryHDU(data, header=header).writeto(buffer)
    content = buffer.getvalue()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)
    return path


def _write_catalog(field: Field, path: Path, wcs: WCS) -> None:
    """``source_id``, position measured with a small error, and which PSF of the cube to use."""
    from astropy.table import Table

    rng = np.random.default_rng(np.random.SeedSequence([field.spec.seed, 0xCA7]))
    t = field.table
    error = rng.normal(0.0, 0.2, (2, field.spec.n))
    ra, dec = wcs.all_pix2world(t["x"] + error[0], t["y"] + error[1], 0)
    table = Table(
        {
            "source_id": np.arange(1, field.spec.n + 1, dtype=np.int64) + 1000,
            "ra": ra,
            "dec": dec,
            "psf_index": t["psf_index"].astype(np.int32),
            "kind": t["kind"].astype(str),
        }
    )
    table["ra"].unit = table["dec"].unit = "deg"
    table.write(path, format="parquet", overwrite=True)


def _survey_toml(field: Field, name: str) -> str:
    spec = field.spec
    lines = [
        f"# Mock survey field made by: galbatch simulate field --name {name} --n {spec.n} --seed {spec.seed}",
        f'name = "{name}"',
        'layout = "generic"',
    ]
    for band in spec.bands:
        stem = f"{name}/{band.name}"
        lines += [
            "",
            f"[bands.{band.name}]",
            f'sci = "{stem}_sci.fits"',
            f'err = "{stem}_err.fits.gz"',
            f'mask = "{stem}_mask.fits.gz"',
            "mask_bits = 7               # 1 bad pixel, 2 saturated, 4 outside the chip; 8 is harmless",
            f'psf = "{stem}_psf.fits"       # a cube; psf_index of the catalogue chooses the plane',
            'psf_error = "none"          # the PSF of a simulation is exact',
            f"pixel_scale_arcsec = {spec.pixel_scale_arcsec}",
            'noise_acf = "measure"',
            f"zero_point_ab = {ZERO_POINT_AB}",
            'unit = "nJy"',
        ]
    return "\n".join(lines) + "\n"


def _write_truth(field: Field, path: Path) -> Path:
    """Truth stamps as float16 scaled by their peaks, and the true numbers of every source."""
    scale = field.truth.max((2, 3))
    arrays = {
        "source_id": np.arange(1, field.spec.n + 1, dtype=np.int64) + 1000,
        "bands": np.array([b.name for b in field.spec.bands]),
        "images": (field.truth / scale[:, :, None, None]).astype(np.float16),
        "scale_njy": scale.astype(np.float32),
        "target_fwhm_pix": np.array(field.spec.target_fwhm_pix),
        "pixel_scale_arcsec": np.array(field.spec.pixel_scale_arcsec),
    }
    columns = "x y x_corner y_corner truth_x0 truth_y0 peak_sn neighbour psf_index galaxy_index"
    for column in columns.split():
        arrays[column] = field.table[column]
    arrays["kind"] = field.table["kind"].astype(str)
    arrays["flux_njy"] = np.stack([field.table[f"flux_njy_{b.name}"] for b in field.spec.bands], -1)
    np.savez_compressed(path, **arrays)
    return path


def read_truth(path: str | Path) -> dict[str, np.ndarray]:
    """The truth of a mock field: ``images`` (n, bands, h, w) in nJy per pixel and the other arrays by name.

    Stamp ``i`` covers pixels ``truth_x0[i]``, ``truth_y0[i]`` and on of the mosaic.
    """
    with np.load(path, allow_pickle=False) as archive:
        truth = {name: archive[name] for name in archive.files}
    truth["images"] = truth["images"].astype(np.float32) * truth["scale_njy"][:, :, None, None]
    return truth


def write_field(
    out: str | Path, name: str = "demo", n: int = 48, seed: int = 1_000_000, overwrite: bool = False
) -> list[Path]:
    """Render a field; write ``name.parquet``, ``name.toml`` and the folder ``name/``; returns the paths."""
    return write_files(make_field(FieldSpec(seed=seed, n=n)), Path(out), name, overwrite)
