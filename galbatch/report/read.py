"""From a run folder to the ``SourceView`` of one source."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from galbatch.errors import GalbatchError, RunError
from galbatch.flags import names_of, quality_of
from galbatch.report.view import LABELS, Number, SourceView, Truth, find_truth, measure_truth, stamp_origin
from galbatch.store import MASK_EXCLUDED, Run, plan_batch
from galbatch.store.plan import PlanBatch, to_cut
from galbatch.types import BandStamps

if TYPE_CHECKING:
    from galbatch.cutouts.opened import Survey


QUALITY = ("0: good", "1: caution", "2: do not use")


class RunReader:
    """A run as the pictures need it; catalogue, plan and truth are read once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._cut: tuple = ("", (), {})  # the last source cut again
        self._rows: PlanBatch | None = None  # the last batch read from the plan
        self._record: tuple[str, dict[str, Any]] = ("", {})  # the last source whose row was read alone
        self._kept: dict[str, np.ndarray | None] = {}  # columns of statistics.parquet that were asked for

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Catalogue columns as plain arrays, NaN or '' where missing; empty while the run is not finished."""
        try:
            table = self.run.catalog
        except RunError:
            return {}
        return {name: _plain(table[name]) for name in table.colnames}

    @cached_property
    def truth(self) -> Truth | None:
        """The truth of a mock field, found beside the catalogue the run was made from; None without one."""
        return find_truth(self.run.manifest)

    def column(self, name: str) -> np.ndarray | None:
        """(n,) a column of the catalogue or, read when it is asked for, of the statistics; None where neither
        has it."""
        if name in self.columns or not self.columns:
            return self.columns.get(name)
        if name not in self._kept:
            self._kept[name] = self.run.values(name).get(name)
        return self._kept[name]

    def number(self, name: str, source_id: int | str) -> float:
        """One value of a source; NaN where there is none."""
        value = self._value(name, source_id)
        return np.nan if value is None else float(value)

    def _value(self, name: str, source_id: int | str) -> Any:
        """One value of a source, None where there is none: of the columns if they have been read, else of its
        row alone."""
        if "columns" in vars(self):
            values = self.column(name)
            return None if values is None else values[self.run.locate([source_id])[str(source_id)]]
        if self._record[0] != str(source_id):
            self._record = (str(source_id), self.run.record(source_id))
        return self._record[1].get(name)

    def view(
        self, source_id: int | str, band: str | None = None, draws: int | None = None, lean: bool = False
    ) -> SourceView:
        """One source in one band. ``draws``: only the first few; ``lean``: no PSF, truth or numbers, and
        nothing is drawn again.

        Raises ``InputError`` for an unknown id or band, ``RunError`` for a source that failed.
        """
        run, band = self.run, band or self.run.bands[0]
        run.refuse_failed(source_id)
        layout, number = run.layout, run.band_index(band)
        mean = run.mean(source_id, band)
        drawn = run.has_draws(source_id) and not (lean and layout.regenerate)  # it takes seconds per source
        samples = run.samples(source_id, band) if drawn else np.empty((0, *mean.shape), np.float32)
        finite = np.isfinite(samples).all(axis=(1, 2))
        if not (finite.any() if drawn else np.isfinite(mean).all()):
            raise RunError(
                f"Source {source_id} has no usable pixel or no finite draw in band {band}: "
                f"choose another of {', '.join(run.bands)}."
            )
        ratio = layout.pixel_ratio[number] if layout.pixel_ratio else 1
        scale = layout.pixel_scale_arcsec[number] / ratio
        more = {} if lean else self._more(source_id, band)
        return SourceView(
            source_id=str(source_id),
            band=band,
            observed=run.observed(source_id, band),
            sigma=run.sigma(source_id, band),
            mask=run.mask(source_id, band) & MASK_EXCLUDED != 0,
            model=run.model(source_id, band) if drawn or not layout.regenerate else None,
            mean=mean,
            std=run.std(source_id, band),
            prior_driven=run.prior_driven(source_id, band) if drawn or not layout.regenerate else None,
            samples=samples[finite][:draws],
            pixel_scale_arcsec=scale,
            **more,
        )

    def _more(self, source_id: int | str, band: str) -> dict:
        stamp, row = self.stamp(source_id, band)
        true = self._true(source_id, band, stamp, row)
        values = {} if true is None or stamp is None else self.truth_values(true, stamp, band)
        numbers = tuple(
            self._numbers(q, source_id, band, values.get(q, np.nan))
            for q in LABELS
            if np.isfinite(self.number(f"{q}_p50_{band}", source_id))
        )
        return {
            "truth": true,
            "numbers": numbers,
            "north_deg": _north(self.run, source_id, band),
            "facts": self._facts(source_id, band),
            "psf": None if stamp is None else stamp.psf[0],
            "psf_scale_arcsec": None if stamp is None else stamp.psf_scale_arcsec,
        }

    def _numbers(self, quantity: str, source_id: int | str, band: str, truth: float) -> Number:
        stats = (f"{quantity}_{stat}_{band}" for stat in ("p16", "p50", "p84", "obs"))
        p16, p50, p84, obs = (self.number(name, source_id) for name in stats)
        return Number(quantity, p16, p50, p84, obs, truth)

    def _true(
        self, source_id: int | str, band: str, stamp: BandStamps | None, row: dict[str, np.ndarray]
    ) -> np.ndarray | None:
        """(H, W) the truth of a source of a mock field; None without one."""
        if self.truth is None or stamp is None:
            return None
        origin = stamp_origin(self.run, source_id, row)
        return None if origin is None else self.truth.image(self.run, source_id, band, origin)

    def truth_values(self, true: np.ndarray, stamp: BandStamps, band: str) -> dict[str, float]:
        """The statistics of a true image, measured like the draws."""
        layout = self.run.layout
        return measure_truth(true, stamp, layout.oversample * stamp.ratio, layout.target_fwhm_pix)

    def truths(self) -> dict[str, dict[int | str, dict[str, float]]]:
        """Statistics of the truth by band and source id, of all that did not fail; empty without truth."""
        found: dict[str, dict] = {band: {} for band in self.run.bands}
        if self.truth is None:
            return {}
        for source_id in self.columns["source_id"].tolist():
            if self.run.status(source_id) == "failed":
                continue
            for band in self.run.bands:
                stamp, row = self.stamp(source_id, band)
                true = self._true(source_id, band, stamp, row)
                if true is not None and stamp is not None:
                    found[band][source_id] = self.truth_values(true, stamp, band)
        return found

    def _facts(self, source_id: int | str, band: str) -> dict[str, str]:
        run, facts = self.run, {}
        flags = self._flags_of(source_id, band)
        snr, chi2 = (
            self.number(f"sn_per_pixel_raw50_{band}", source_id),
            self.number(f"chi2_{band}", source_id),
        )
        if np.isfinite(snr):
            facts["S/N per pixel"] = f"{snr:.1f}"
        if np.isfinite(chi2):
            facts["chi2 per pixel"] = f"{chi2:.3f} (p = {self.number(f'chi2_p_{band}', source_id):.2g})"
        prior = self.number(f"prior_driven_frac_{band}", source_id)
        if np.isfinite(prior):
            facts["prior-dominated"] = f"{prior:.0%} of the flux"
        here, in_all = (QUALITY[int(quality_of(bits))] for bits in (flags, run.flags(source_id)))
        facts["quality"] = here if here == in_all else f"{here}; all bands {in_all}"
        if names := names_of(flags):
            facts["flags"] = ", ".join(names)
        return facts

    def _flags_of(self, source_id: int | str, band: str) -> int:
        """Flags of a source in a band, or of all its bands while the run is not finished."""
        flags = self._value(f"flags_{band}", source_id)
        return self.run.flags(source_id) if flags is None else int(flags)

    def stamp(self, source_id: int | str, band: str) -> tuple[BandStamps | None, dict]:
        """The source's stamp cut again from the survey's files (None when gone), and its plan row."""
        if self._cut[0] != str(source_id):
            self._cut = (str(source_id), *self._cut_again(source_id))
        _, stamps, row = self._cut
        return next((stamp for stamp in stamps if stamp.band == band), None), row

    def _cut_again(self, source_id: int | str) -> tuple[tuple[BandStamps, ...], dict]:
        position = self.run.index(source_id)
        batch, slot = divmod(position, self.run.layout.batch)
        if self._rows is None or self._rows.batch != batch:
            self._rows = plan_batch(self.run.paths.plan, position)
        if self._survey is None:
            return (), {}
        row = {name: values[slot : slot + 1] for name, values in self._rows.columns.items()}
        try:
            return self._survey.cut(to_cut(row), self.run.stamp_pix(source_id)).bands, row
        except (GalbatchError, OSError):
            return (), row

    @cached_property
    def _survey(self) -> Survey | None:
        from galbatch.run.redraw import survey_of

        try:
            return survey_of(self.run.manifest)
        except (GalbatchError, OSError, TypeError, KeyError):  # files gone; or keys of another version
            return None


def _plain(column: Any) -> np.ndarray:
    values = getattr(column, "value", column)
    if hasattr(values, "filled"):
        values = values.filled("") if values.dtype.kind == "U" else values.astype(float).filled(np.nan)
    return np.asarray(values)


def _north(run: Run, source_id: int | str, band: str) -> float | None:
    """Angle of north from +y, counter-clockwise, in degrees; None without a usable WCS."""
    wcs = run.wcs(source_id, band)
    cd = wcs.wcs.cd
    if not np.isfinite(cd).all() or abs(np.linalg.det(cd)) == 0:
        return None
    x, y = np.linalg.solve(cd, [0.0, 1.0])
    return float(np.degrees(np.arctan2(-x, y)))
