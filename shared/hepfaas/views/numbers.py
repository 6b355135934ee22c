"""Cells of tables, and numbers as a person reads them: as many digits as they deserve, thousands separators,
uncertainties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NONE = "–"
ROUNDING = 1e-12
"""An uncertainty below this share of its value is a rounding error."""


class Quantity(str):
    """A text that is a number for the eye, such as '0.796 ± 0.017': aligned to the right in a table."""

    __slots__ = ()


@dataclass(frozen=True)
class Best:
    """A cell that is marked as the best of its row."""

    value: Any


Cell = str | float | tuple[str, ...] | Best | None
"""A cell of a table; a tuple has a line for each item."""


def number(value: float | None, digits: int = 4) -> Quantity:
    """Return a number with so many significant digits, a whole number with all of them."""
    if value is None or math.isnan(value):
        return Quantity(NONE)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return Quantity(f"{int(value):,}")
    if not math.isfinite(value):
        return Quantity("∞" if value > 0 else "−∞")
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 15:
        return Quantity(f"{value:,.{max(0, digits - 1 - size)}f}")
    return Quantity(f"{value:.{digits - 1}e}")


def measured(value: float | None, uncertainty: float | None) -> Quantity:
    """Return a value with its uncertainty, rounded to two significant digits of the uncertainty."""
    if value is None:
        return Quantity(NONE)
    if uncertainty is None or not math.isfinite(uncertainty) or not math.isfinite(value):
        return number(value)
    if not uncertainty > ROUNDING * abs(value):
        return number(value)
    places = 1 - math.floor(math.log10(uncertainty))
    if places > 12 or places < -14:
        return Quantity(f"{value:.4g} ± {uncertainty:.2g}")
    rounded, error = round(value, places), round(uncertainty, places)
    return Quantity(f"{rounded:,.{max(0, places)}f} ± {error:,.{max(0, places)}f}")


def percent(part: float | None, whole: float | None = 1.0) -> Quantity:
    """Return a share in percent with three significant digits."""
    if part is None or whole is None or not whole > 0:
        return Quantity(NONE)
    share = 100 * part / whole
    return Quantity(f"{share:.1f} %" if abs(share) >= 10 else f"{share:.3g} %")
