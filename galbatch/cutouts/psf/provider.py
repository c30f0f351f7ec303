"""The PSF of each source of a batch, from the PSF file of its band and tile.

Cubes go by ``psf_index`` (counted from 0) or the nearest position, grids are interpolated bilinearly
between their four neighbours and held constant outside (flag PSF_EXTRAPOLATED), PSFEx polynomials are
evaluated. What fails the checks is flagged PSF_BAD and replaced by nothing: the caller must not use it.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from galbatch.cutouts.psf.check import CheckedPsf, check_psf, shape_of, unusable
from galbatch.cutouts.psf.file import PsfFile, read_psf
from galbatch.display import count
from galbatch.errors import ConfigError
from galbatch.types import PSF_ERROR_PARTS, Finding, Flag

if TYPE_CHECKING:
    from galbatch.cutouts.survey.config import TileConfig

NORM_OFF = 0.03, 0.1  # of a PSF's sum, by which fluxes may be wrong: said, warned of
LEAST_PIXELS = 2.0  # in the FWHM of a PSF: with fewer, what a shift by parts of a pixel does is not known


class PsfProvider:
    """PSFs of one band in one tile. ``scale_arcsec``: of a PSF pixel.

    Raises ``InputError`` for an unreadable file, ``ConfigError`` for a missing ``psf_frame``.
    """

    def __init__(self, tile: TileConfig, band_scale_arcsec: float, subject: str = "") -> None:
        self.tile, self.subject, self.band_scale = tile, subject, band_scale_arcsec
        self.file: PsfFile = read_psf(tile.psf.path, tile.psf.ext)
        if self.file.needs_frame and tile.psf_frame is None:
            raise ConfigError(
                f"{subject}: {tile.psf.path} varies with position: say in which pixels, psf_frame = "
                '"mosaic" or "detector" (then columns psf_x and psf_y are needed).'
            )
        given = tile.psf_scale_arcsec or self.file.scale_arcsec
        self.scale_known = given is not None
        self.scale_arcsec = given or band_scale_arcsec / (self.file.per_detector or 1.0)
        digest = hashlib.blake2b(np.ascontiguousarray(self.file.cube).data, digest_size=4)
        digest.update(repr((self.scale_arcsec, tile.psf_norm, tile.psf_centre, self.file.poly)).encode())
        self.digest = digest.hexdigest()
        self._ready: dict[int, CheckedPsf] = {}

    def plane(self, index: int) -> CheckedPsf:
        """Plane ``index`` of an image, cube or grid, checked once."""
        if index not in self._ready:
            self._ready[index] = self._check(self.file.cube[index])
        return self._ready[index]

    def _check(self, image: np.ndarray) -> CheckedPsf:
        return check_psf(image, self.band_scale / self.scale_arcsec, self.tile.psf_centre, self.tile.psf_norm)

    def at(
        self, rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """PSFs of sources at pixels (x, y) (n,) of the band, with the catalogue's columns in ``rows``.

        Returns n images (p, p) float32 (p may differ), ids (n,) str, flags (n,) int64.
        """
        n, kind = len(x), self.file.kind
        if kind in ("grid", "psfex"):
            if self.tile.psf_frame == "detector":
                x, y = (
                    np.asarray(rows[k], float) - 1 if k in rows else np.full(n, np.nan)
                    for k in ("psf_x", "psf_y")
                )
            made = [self._at_position(px + 1.0, py + 1.0) for px, py in zip(x, y, strict=True)]
        else:
            made = [self._at_index(i) for i in self._indices(rows, x, y)]
        images = [m[0].image for m in made]
        flags = np.array([m[2] | (int(Flag.PSF_BAD) if m[0].problem else 0) for m in made], np.int64)
        return images, np.array([m[1] for m in made], dtype=object), flags

    def _indices(self, rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.file.kind == "image":
            return np.zeros(len(x), int)
        if self.file.kind == "nearest":
            return self._nearest(rows, x, y)
        if "psf_index" not in rows:
            return np.full(len(x), -1)
        index = np.asarray(rows["psf_index"], float)
        good = np.isfinite(index) & (index >= 0) & (index < len(self.file.cube)) & (index == np.floor(index))
        return np.where(good, index, -1).astype(int)

    def _nearest(self, rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from scipy.spatial import cKDTree  # slow to import, and few PSF files need it

        pixels = np.stack([np.asarray(x) + 1.0, np.asarray(y) + 1.0], 1)
        wanted = _unit(rows["ra"], rows["dec"]) if self.file.sky else pixels
        good = np.all(np.isfinite(wanted), 1)
        index = np.full(len(wanted), -1)
        index[good] = cKDTree(self._points()).query(wanted[good])[1]
        return index

    def _points(self) -> np.ndarray:
        """(m, 2) pixels or (m, 3) unit vectors where the planes of a file are."""
        positions = np.zeros((0, 2)) if self.file.positions is None else self.file.positions
        return _unit(*positions.T) if self.file.sky else positions

    def _at_index(self, index: int) -> tuple[CheckedPsf, str, int]:
        if index < 0:
            return unusable("index is missing"), f"{self.digest}:none", 0
        return self.plane(int(index)), f"{self.digest}:{index}", 0

    def _at_position(self, x: float, y: float) -> tuple[CheckedPsf, str, int]:
        if not (np.isfinite(x) and np.isfinite(y)):
            return self._at_index(-1)
        image, outside = self._psfex(x, y) if self.file.kind == "psfex" else self._grid(x, y)
        return (
            self._check(image),
            f"{self.digest}:{x:.1f},{y:.1f}",
            int(Flag.PSF_EXTRAPOLATED) if outside else 0,
        )

    def _grid(self, x: float, y: float) -> tuple[np.ndarray, bool]:
        xs, ys, plane = self.file.axes
        (i, j, u), (k, m, v) = _between(xs, x), _between(ys, y)
        cube = self.file.cube
        image = (1 - v) * ((1 - u) * cube[plane[k, i]] + u * cube[plane[k, j]]) + v * (
            (1 - u) * cube[plane[m, i]] + u * cube[plane[m, j]]
        )
        return image, not (xs[0] - 0.5 <= x <= xs[-1] + 0.5 and ys[0] - 0.5 <= y <= ys[-1] + 0.5)

    def _psfex(self, x: float, y: float) -> tuple[np.ndarray, bool]:
        zero, width, degree = self.file.poly
        with np.errstate(over="ignore", invalid="ignore"):  # a PSF that is not finite is PSF_BAD
            a, b = (x - zero[0]) / width[0], (y - zero[1]) / width[1]
            terms = [a**i * b**j for j in range(degree + 1) for i in range(degree + 1 - j)]
            return np.tensordot(terms, self.file.cube, 1), max(abs(a), abs(b)) > 1

    def _checked(self) -> list[CheckedPsf]:
        """Every plane; of a PSFEx model, the PSF in the middle."""
        if self.file.kind == "psfex":
            return [self._at_position(*self.file.poly[0])[0]]
        return [self.plane(i) for i in range(len(self.file.cube))]

    def fwhm_arcsec(self) -> float:
        """Median full width at half maximum of the usable PSFs, NaN without one."""
        widths = [c.fwhm_pix for c in self._checked() if not c.problem]
        return float(np.median(widths)) * self.scale_arcsec if widths else float("nan")

    @cached_property
    def scatter(self) -> np.ndarray:
        """(5,) ``PSF_ERROR_PARTS``, lengths in detector pixels, of a file of which sources take the nearest
        PSF: half of what a PSF differs from that nearest to it, rms; zero of other files."""
        good = [i for i in range(len(self.file.cube)) if not self.plane(i).problem]
        if self.file.kind != "nearest" or len(good) < 2:
            return np.zeros(len(PSF_ERROR_PARTS))
        from scipy.spatial import cKDTree

        points = self._points()[good]
        shapes = np.stack([shape_of(self.plane(i).image) for i in good])
        half = (shapes - shapes[cKDTree(points).query(points, 2)[1][:, 1]]) / 2
        width, y, x, *ellipticity, wings = (half**2).mean(0)
        parts = np.sqrt([width, (y + x) / 2, np.mean(ellipticity), wings, 0.0])
        return parts * np.array([self.scale_arcsec / self.band_scale] * 2 + [1.0] * 3)

    def findings(self, columns: list[str] | None) -> list[Finding]:
        """What a preflight says of the PSFs; ``columns``: names of the catalogue's columns, None if not
        known."""
        out, path = [], self.tile.psf.path
        if not self.scale_known:
            what = f"{path} states no pixel scale; {self.scale_arcsec:.4f} arcsec is used"
            out.append(Finding("warn", "psf_scale", self.subject, what, "Set psf_scale_arcsec."))
        needed = {"cube": ["psf_index"]}.get(self.file.kind, [])
        if self.file.needs_frame and self.tile.psf_frame == "detector":
            needed = ["psf_x", "psf_y"]
        missing = [k for k in needed if columns is not None and k not in columns]
        if missing:
            what = f"{path} needs the catalogue column {' and '.join(missing)}"
            out.append(Finding("error", "psf_column", self.subject, what, "Add it to the catalogue."))
        checked = self._checked()
        bad = [(i, c.problem) for i, c in enumerate(checked) if c.problem]
        if bad:
            level = "error" if len(bad) == len(checked) else "warn"
            what = f"{path}: {len(bad)} of {len(checked)} PSFs cannot be used; number {bad[0][0]} {bad[0][1]}"
            remedy = "Give another PSF: sources with this one fail (PSF_BAD)."
            out.append(Finding(level, "psf_bad", self.subject, what, remedy))
        good = [c for c in checked if not c.problem]
        return out + (self._shape_findings(good) if good else [])

    def _shape_findings(self, good: list[CheckedPsf]) -> list[Finding]:
        """On sum and width of the usable PSFs."""
        norms, width = [c.norm for c in good], self.fwhm_arcsec()
        off = max(abs(n - 1) for n in norms) if self.tile.psf_norm == "keep" else 0.0
        what = f"{count(len(good), 'PSF')}, FWHM {width:.3f} arcsec, sum {min(norms):.4f} to {max(norms):.4f}"
        remedy = "Nothing to do: they are used as they are."
        if off > NORM_OFF[0]:
            what += ": fluxes come out as if the rest of a point's light lay outside of the PSF image"
            remedy = 'Set psf_norm = "unit" unless the sum is the light that the PSF image holds.'
        out = [Finding("warn" if off > NORM_OFF[1] else "info", "psf_norm", self.subject, what, remedy)]
        if width < LEAST_PIXELS * self.scale_arcsec:
            what = (
                f"{self.tile.psf.path}: a FWHM of {width / self.scale_arcsec:.1f} of its own pixels; the "
                "model of sources of S/N above 1000 at their peak rings along rows and columns"
            )
            remedy = "Give a PSF with pixels of half the size or less."
            out.append(Finding("warn", "psf_coarse", self.subject, what, remedy))
        return out


def _between(axis: np.ndarray, value: float) -> tuple[int, int, float]:
    if len(axis) == 1:
        return 0, 0, 0.0
    high = int(np.clip(np.searchsorted(axis, value), 1, len(axis) - 1))
    step = (value - axis[high - 1]) / (axis[high] - axis[high - 1])
    return high - 1, high, float(np.clip(step, 0.0, 1.0))


def _unit(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], 1)
