"""Numbers with units: an astropy ``Quantity`` becomes a plain number in the unit that galbatch counts in, or
is refused. What has no unit passes as it is. astropy is only imported where a unit is met."""

from __future__ import annotations

from typing import Any

import numpy as np

from galbatch.errors import InputError


def plain(value: Any, unit: str, name: str, pixel_scale_arcsec: float | None = None) -> Any:
    """``value`` as a number in ``unit``: 'nJy' (per pixel), 'arcsec' or '' (none).

    Surface brightness becomes nJy per pixel of ``pixel_scale_arcsec``. Raises ``InputError``, with ``name``,
    for a unit of something else.
    """
    own = getattr(value, "unit", None)
    if own is None:
        return value
    from astropy import units as u

    wanted = {"nJy": u.nJy, "arcsec": u.arcsec, "": u.dimensionless_unscaled}[unit]
    pixel = u.arcsec**2 * (pixel_scale_arcsec or 0.0) ** 2
    areas = [pixel] if pixel_scale_arcsec and unit == "nJy" else []
    for factor in (u.dimensionless_unscaled, u.pix, *areas):
        try:
            return (u.Quantity(value) * factor).to_value(wanted)
        except (u.UnitConversionError, u.UnitTypeError, TypeError):
            continue
    raise InputError(
        f"{name} is in {str(own) or 'no unit'}, which cannot be converted to {unit or 'a plain number'}. "
        f"Give a quantity of that kind, or plain numbers{f' in {unit}' if unit else ''}."
    )


def same_kind(where: str, **values: Any) -> None:
    """Raise ``InputError`` where some of ``values`` have a unit and others are plain numbers (None and 0 are
    either)."""
    given = {k: v for k, v in values.items() if v is not None and not (np.ndim(v) == 0 and v == 0)}
    having = [k for k, v in given.items() if getattr(v, "unit", None) is not None]
    if having and len(having) < len(given):
        without = next(k for k in given if k not in having)
        raise InputError(
            f"{where}: {having[0]} has a unit ({getattr(given[having[0]], 'unit', '')}) and {without} has "
            "none. Give both with a unit, or both as plain numbers in one unit."
        )
