"""What crosses the stages: observations, posteriors, stamps, flags. No torch, no I/O.

Axis names: ``b`` source, ``k`` draw, ``c`` band, ``h w`` detector pixels, ``H W`` fine pixels
(``H = oversample * h``). The centre of a pixel has an integer coordinate, counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from galbatch.display import count, html_table
from galbatch.errors import InputError
from galbatch.flags import Flag, Level
from galbatch.quantity import plain, same_kind

__all__ = [
    "BandStamps",
    "Failure",
    "Finding",
    "Flag",
    "Level",
    "Observation",
    "Posterior",
    "StampBatch",
]


# What is known badly of a PSF, one standard deviation each, and its unit.
PSF_ERROR_PARTS = {
    "width": "detector pixels of FWHM",
    "shift": "detector pixels along an axis",
    "ellipticity": "of (a^2 - b^2) / (a^2 + b^2)",
    "wings": "fraction of the light in a halo of three times the FWHM",
    "rest": "fraction of the light of each pixel, for errors of other shapes",
}


_OPTIONAL = ("mask", "noise_acf", "sigma_white", "psf_error", "shift_pix", "neighbour")
_KINDS = {"mask": bool, "neighbour": bool}
_PER_PIXEL = {"sigma": "give one sigma per pixel.", "mask": "give one value per pixel (True = bad), or None."}
_PER_PIXEL |= dict.fromkeys(("sigma_white", "neighbour"), "give one value per pixel, or None.")


@dataclass(frozen=True)
class Observation:
    """Pixels of a batch of sources, what blurred them, and their noise.

    Non-finite data and sigma that is not finite and positive are masked. Astropy quantities are converted:
    ``data``, ``sigma`` and ``sigma_white`` to nJy per pixel (surface brightness too), scales to arcsec.

    Parameters
    ----------
    data : array (b, c, h, w)
        Flux per detector pixel, of b sources in c bands; one unit for all.
    sigma : array (b, c, h, w)
        1-sigma noise, in the unit of ``data``.
    psf : array (c, p, p) or (b, c, p, p)
        Point spread function; its sum is used as it is, not forced to one.
    mask : array of bool (b, c, h, w), optional
        True where a pixel must not be used.
    pixel_scale_arcsec : float
        Side of a detector pixel.
    psf_scale_arcsec : float, optional
        Pixel scale of the PSF; the detector's when None.
    noise_acf : array (c, r, r), r odd, optional
        Noise autocorrelation by lag in detector pixels, centre 1; None is white.
    sigma_white : array (b, c, h, w), optional
        The part of ``sigma`` that is independent from pixel to pixel all the same; None is zero.
    psf_error : array (c, 5), optional
        What is not known of the PSF, one standard deviation each, ``PSF_ERROR_PARTS`` in turn; None: it is
        exact.
    shift_pix : array (b, c, 2), optional
        How far from the corner that stamps sampled together share one begins, along y and x in detector
        pixels; None: there.
    neighbour : array of bool (b, c, h, w), optional
        True on other sources that are fitted too, where a misfit is not the source's; None: there are none.

    Raises
    ------
    InputError
        Shapes disagree, a unit is of something else, or only one of ``data`` and ``sigma`` has a unit.

    Examples
    --------
    >>> import numpy as np
    >>> import galbatch
    >>> data = np.random.default_rng(0).normal(size=(1, 1, 32, 32))
    >>> psf = np.zeros((1, 5, 5))
    >>> psf[0, 2, 2] = 1.0
    >>> obs = galbatch.Observation(data, np.ones_like(data), psf, pixel_scale_arcsec=0.03)
    >>> obs
    <galbatch observation: 1 source, 1 band, 32 x 32 pixels of 0.03 arcsec>
    >>> bool(obs.valid.all())
    True
    """

    data: np.ndarray
    sigma: np.ndarray
    psf: np.ndarray
    mask: np.ndarray | None = None
    pixel_scale_arcsec: float = 0.03
    psf_scale_arcsec: float | None = None
    noise_acf: np.ndarray | None = None
    sigma_white: np.ndarray | None = None
    psf_error: np.ndarray | None = None
    shift_pix: np.ndarray | None = None
    neighbour: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._without_units()
        for name in ("data", "sigma", "psf", *_OPTIONAL):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _to_numpy(value, _KINDS.get(name, np.float32)))
        if self.data.ndim != 4:
            raise InputError(f"Observation.data has shape {self.data.shape}: it must be (b, c, h, w).")
        for name, remedy in _PER_PIXEL.items():
            value = getattr(self, name)
            if value is not None and value.shape != self.data.shape:
                raise InputError(
                    f"Observation.{name} has shape {value.shape}, data {self.data.shape}: {remedy}"
                )
        b, c = self.data.shape[:2]
        if self.psf.ndim == 3:
            object.__setattr__(self, "psf", np.broadcast_to(self.psf, (b, *self.psf.shape)))
        if self.psf.ndim != 4 or self.psf.shape[:2] != (b, c) or self.psf.shape[2] != self.psf.shape[3]:
            raise InputError(
                f"Observation.psf has shape {self.psf.shape} for {b} sources in {c} bands: "
                "it must be (c, p, p) or (b, c, p, p)."
            )
        self._check_parts(b, c)

    def _check_parts(self, b: int, c: int) -> None:
        if self.noise_acf is not None and (
            self.noise_acf.ndim != 3
            or self.noise_acf.shape[0] != c
            or self.noise_acf.shape[1] % 2 == 0
            or self.noise_acf.shape[1] != self.noise_acf.shape[2]
        ):
            raise InputError(
                f"Observation.noise_acf has shape {self.noise_acf.shape}: it must be (c, r, r) "
                f"with c = {c} and r odd."
            )
        if self.psf_error is not None and (
            self.psf_error.shape != (c, len(PSF_ERROR_PARTS)) or not (self.psf_error >= 0).all()
        ):
            raise InputError(
                f"Observation.psf_error is {self.psf_error.tolist()}: it must be numbers of at least 0, "
                f"{', '.join(PSF_ERROR_PARTS)} for each of {c} bands; or None."
            )
        if self.shift_pix is not None and self.shift_pix.shape != (b, c, 2):
            raise InputError(
                f"Observation.shift_pix has shape {self.shift_pix.shape}: it must be ({b}, {c}, 2), or None."
            )
        if not self.pixel_scale_arcsec > 0:
            raise InputError(
                f"Observation.pixel_scale_arcsec is {self.pixel_scale_arcsec}: it must be positive."
            )

    def _without_units(self) -> None:
        same_kind("Observation", data=self.data, sigma=self.sigma, sigma_white=self.sigma_white)
        scale = plain(self.pixel_scale_arcsec, "arcsec", "Observation.pixel_scale_arcsec")
        object.__setattr__(self, "pixel_scale_arcsec", scale)
        kinds = {"data": "nJy", "sigma": "nJy", "sigma_white": "nJy", "psf_scale_arcsec": "arcsec"}
        for name in ("data", "sigma", "sigma_white", "psf_scale_arcsec", "psf", "noise_acf", "mask"):
            value = plain(getattr(self, name), kinds.get(name, ""), f"Observation.{name}", scale)
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        b, c, h, w = self.data.shape
        return (
            f"<galbatch observation: {count(b, 'source')}, {count(c, 'band')}, {h} x {w} pixels "
            f"of {self.pixel_scale_arcsec:.4g} arcsec>"
        )

    def _repr_html_(self) -> str:
        b, c, h, w = self.data.shape
        return html_table(
            "Observation",
            {
                "sources, bands": f"{b}, {c}",
                "pixels": f"{h} x {w} of {self.pixel_scale_arcsec:.4g} arcsec",
                "usable pixels": f"{self.valid.mean():.1%}",
                "PSF": f"{self.psf.shape[-1]} x {self.psf.shape[-1]} pixels",
                "noise": "white" if self.noise_acf is None else "correlated",
            },
        )

    @property
    def valid(self) -> np.ndarray:
        """(b, c, h, w) True where a pixel enters the likelihood."""
        good = np.isfinite(self.data) & (self.sigma > 0)
        good = good if self.mask is None else good & ~self.mask
        return good & informed(np.where(good, self.sigma, np.inf))


NO_DATA, LOWEST = 1e4, 9


def informed(sigma: np.ndarray) -> np.ndarray:
    """Whether pixels (..., h, w) tell anything: noise maps say 1e16, 1e8 or 9999 where nothing was measured.
    Their sigma is then ``NO_DATA`` times that of the ninth best pixel, or infinite."""
    flat = sigma.reshape(*sigma.shape[:-2], -1)
    best = np.partition(flat, min(LOWEST, flat.shape[-1]) - 1)[..., min(LOWEST, flat.shape[-1]) - 1]
    return np.isfinite(sigma) & (sigma < NO_DATA * best[..., None, None])


def _to_numpy(value: np.ndarray, dtype: type) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=dtype)


@dataclass(frozen=True)
class Posterior:
    """Posterior draws of the noise-free image at the target PSF, and what is known of their quality.

    ``sample_posterior`` makes it; b sources, k draws, c bands, H by W fine pixels.

    Attributes
    ----------
    samples : array (b, k, c, H, W) float32
        The draws: flux per fine pixel in the unit of the data.
    mean, std : array (b, c, H, W)
        Over the draws.
    chi2, chi2_p : array (b, c)
        Residual chi2 per valid pixel, averaged over draws, and its p-value.
    prior_driven : array (b, c, H, W)
        Between 0 (the data dominate) and 1 (the prior does).
    prior_driven_frac : array (b, c)
        Share of the flux in prior-dominated regions.
    flags : array (b,) int64
        Bits of ``Flag``, those of all bands together.
    scale : array (b, c)
        The flux scale used.
    n_evaluations : array (b,)
        Network evaluations per draw, all counted.
    n_draws_ok : array (b,)
        Finite draws.
    target_fwhm_pix : float
        FWHM of the Gaussian target PSF in fine pixels.
    info : dict
        ``model`` (b, c, h, w), the mean as the telescope would see it, and what else the sampler says.
    band_flags : array (b, c), optional
        Flags of each band; None: not known by band.

    Examples
    --------
    The flux of each draw, under the prior that pixels are independent and of unit variance:

    >>> import numpy as np
    >>> import galbatch
    >>> class White:
    ...     def denoise(self, x, sigma):
    ...         return x / (1 + sigma[:, None, None, None] ** 2)
    >>> data, psf = np.zeros((1, 1, 16, 16)), np.zeros((1, 5, 5))
    >>> psf[0, 2, 2] = 1.0
    >>> obs = galbatch.Observation(data, np.ones_like(data), psf)
    >>> posterior = galbatch.sample_posterior(White(), obs, draws=4, mode="fast")
    >>> posterior
    <galbatch posterior: 1 source, 4 draws, 1 band, 16 x 16 fine pixels>
    >>> posterior.samples.sum(axis=(-2, -1)).shape
    (1, 4, 1)
    """

    samples: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    chi2: np.ndarray
    chi2_p: np.ndarray
    prior_driven: np.ndarray
    prior_driven_frac: np.ndarray
    flags: np.ndarray
    scale: np.ndarray
    n_evaluations: np.ndarray
    n_draws_ok: np.ndarray
    target_fwhm_pix: float
    info: dict[str, Any] = field(default_factory=dict)
    band_flags: np.ndarray | None = None

    def __repr__(self) -> str:
        b, k, c, h, w = self.samples.shape
        counts = ", ".join((count(b, "source"), count(k, "draw"), count(c, "band")))
        return f"<galbatch posterior: {counts}, {h} x {w} fine pixels>"

    def _repr_html_(self) -> str:
        b, k, c, h, w = self.samples.shape
        return html_table(
            "Posterior",
            {
                "sources, draws, bands": f"{b}, {k}, {c}",
                "fine pixels": f"{h} x {w}, target PSF {self.target_fwhm_pix:g} pixels FWHM",
                "chi2 per pixel (median)": f"{np.nanmedian(self.chi2):.3f}" if self.chi2.size else "-",
                "prior-dominated flux (median)": f"{np.nanmedian(self.prior_driven_frac):.0%}"
                if self.prior_driven_frac.size
                else "-",
                "sources with flags": int(np.count_nonzero(self.flags)),
            },
        )


@dataclass(frozen=True)
class BandStamps:
    """Stamps of a batch of sources in one band, ready for the likelihood.

    ``data``, ``sigma`` (b, h, w) float32 nJy per pixel, native byte order; ``mask`` (b, h, w) bool, True is
    excluded (bad pixels, off-image area, neighbours under the policy 'mask'); where masked, ``sigma`` is inf
    and ``data`` is NaN only if the pixel itself was bad. ``seg`` (b, h, w) int32: 0 sky, 1 the source, 2 and
    more its neighbours. ``psf`` (b, p, p); ``psf_id`` (b,) str. ``wcs`` (b, 8) float64: crpix1 crpix2 crval1
    crval2 cd11 cd12 cd21 cd22 of the stamp (FITS convention, 1-based crpix). ``ratio``: detector pixels of
    this band per detector pixel of the finest band of the run, along a side. ``noise_acf`` (r, r) and
    ``sigma_white`` (b, h, w): see ``Observation``. ``columns``: per-source numbers for the catalogue by
    column stem, e.g. ``neighbour_frac``. ``flags`` (b,) int64 of this band; None is none. ``psf_error`` (5,):
    ``PSF_ERROR_PARTS``; None: the PSF is exact. ``to_scene`` (b, 2, 3): affine map of x, y in this stamp to
    pixels of the scene, which are one for all bands; None: the middles of all stamps are one place.
    """

    band: str
    data: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    seg: np.ndarray
    psf: np.ndarray
    psf_id: np.ndarray
    pixel_scale_arcsec: float
    psf_scale_arcsec: float
    wcs: np.ndarray
    noise_acf: np.ndarray | None = None
    ratio: int = 1
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    sigma_white: np.ndarray | None = None
    flags: np.ndarray | None = None
    psf_error: np.ndarray | None = None
    to_scene: np.ndarray | None = None

    def take(self, chosen: np.ndarray) -> BandStamps:
        """The stamps of ``chosen`` sources: places, or a mask."""
        per_source = (
            "data",
            "sigma",
            "mask",
            "seg",
            "psf",
            "psf_id",
            "wcs",
            "sigma_white",
            "flags",
            "to_scene",
        )
        kept = {name: v[chosen] for name in per_source if (v := getattr(self, name)) is not None}
        return replace(self, **kept, columns={k: np.asarray(v)[chosen] for k, v in self.columns.items()})


@dataclass(frozen=True)
class Failure:
    """Why one source of a batch cannot be processed: a row of ``failures.parquet``."""

    source_id: Any
    stage: str
    code: str
    message: str


@dataclass(frozen=True)
class StampBatch:
    """The stamps of a batch in all bands. Sources in ``failures`` keep their place, with everything
    masked."""

    source_id: np.ndarray
    bands: tuple[BandStamps, ...]
    flags: np.ndarray
    failures: dict[int, Failure] = field(default_factory=dict)

    def take(self, chosen: np.ndarray) -> StampBatch:
        """The stamps of ``chosen`` sources: places, or a mask."""
        places = np.arange(len(self.source_id))[chosen]
        failures = {n: self.failures[i] for n, i in enumerate(places.tolist()) if i in self.failures}
        bands = tuple(band.take(chosen) for band in self.bands)
        return StampBatch(self.source_id[chosen], bands, self.flags[chosen], failures)


@dataclass(frozen=True)
class Finding:
    """One line of a preflight: ``level`` 'error' (a run must not start), 'warn' or 'info'; what it is
    about; what was found, with its values; and what to do about it."""

    level: str
    code: str
    subject: str
    what: str
    remedy: str

    @property
    def line(self) -> str:
        """Subject, what was found and what to do, in one line."""
        stop = "" if self.what.endswith(".") else "."
        return f"{self.subject}: {self.what}{stop} {self.remedy}"
