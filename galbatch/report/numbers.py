"""How measured quantities are named and written: labels, units, and digits that the error bar allows."""

from __future__ import annotations

import math

LABELS: dict[str, tuple[str, str]] = {
    "mag_ab": ("magnitude", "AB"),
    "flux_njy": ("flux", "nJy"),
    "r_half": ("r half light", "arcsec"),
    "r_petro": ("r Petrosian", "arcsec"),
    "ellipticity": ("ellipticity", ""),
    "concentration": ("concentration C", ""),
    "asymmetry": ("asymmetry A", ""),
    "gini": ("Gini", ""),
    "m20": ("M20", ""),
    "sersic_n": ("Sersic n", ""),
}


def with_error(p16: float, p50: float, p84: float) -> tuple[str, str, str]:
    """(value, plus, minus) as text, rounded to two digits of the larger error; '-' where not finite."""
    if not all(map(math.isfinite, (p16, p50, p84))):
        return (plain(p50), "", "")
    plus, minus = p84 - p50, p50 - p16
    errors = [e for e in (plus, minus) if e > 0]
    digits = _digits(max(errors)) if errors else 3
    value, up, down = (f"{round(v, digits):.{max(digits, 0)}f}" for v in (p50, plus, minus))
    return value, up, down


def plain(value: float, like: float = math.nan) -> str:
    """A number alone, with the digits of an error of size ``like``, else four significant ones."""
    if not math.isfinite(value):
        return "-"
    if math.isfinite(like) and like > 0:
        digits = _digits(like)
        return f"{round(value, digits):.{max(digits, 0)}f}"
    return f"{value:.4g}"


def _digits(error: float) -> int:
    return min(4, 1 - math.floor(math.log10(error)))
