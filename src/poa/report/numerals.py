"""Numbers as a reader sees them: grouped, signed with a true minus, with few digits."""

from __future__ import annotations

import math

NONE = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def whole(number: int | None) -> str:
    """1234567 → 1,234,567."""
    return NONE if number is None else f"{number:,}".replace("-", "−")


def plain(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; powers of ten beyond 1e6 and below 1e-4."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 6 or size < -4:
        return power(value, digits)
    shown = f"{value:,.{max(0, digits - 1 - size)}f}"
    return shown.replace("-", "−")


def power(value: float, digits: int = 2) -> str:
    """3.1e-9 → 3.1 × 10⁻⁹."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', '−')} × 10{str(int(exponent)).translate(_RAISED)}"


def signed(value: float | None, digits: int = 3) -> str:
    """Like `plain`, with + for what is positive."""
    if value is None:
        return NONE
    return f"+{plain(value, digits)}" if value > 0 else plain(value, digits)


def with_error(value: float, error: float | None) -> str:
    """+0.70 ± 0.12: as many decimals as two digits of the error have."""
    if not error:
        return signed(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{abs(value):,.{decimals}f} ± {error:,.{decimals}f}"


def tick(value: float) -> str:
    """An axis number without trailing zeros."""
    return f"{value + 0.0:.6g}".replace("-", "−")


def correlation(value: float | None) -> str:
    """Two decimals and a true minus: 0.81, −0.07."""
    return NONE if value is None else f"{value + 0.0:.2f}".replace("-", "−").replace("−0.00", "0.00")


def percent(fraction: float | None) -> str:
    """0.3412 → 34 %, 0.0123 → 1.2 %; what is not nothing never reads 0 %."""
    if fraction is None:
        return NONE
    value = 100 * fraction
    if 0 < abs(value) < 0.05:
        return "< 0.1 %" if value > 0 else "> −0.1 %"
    shown = f"{value:.0f}" if abs(value) >= 9.95 or value == 0 else f"{value:.1f}"
    return f"{shown} %".replace("-", "−")


def signed_percent(fraction: float) -> str:
    shown = percent(fraction)
    return shown if fraction <= 0 or shown.startswith("<") else f"+{shown}"


def seconds(value: float | None) -> str:
    """0.84 s, 12 s, 2 min 5 s, 1 h 3 min."""
    if value is None:
        return NONE
    if value < 9.95:
        return f"{value:.2g} s" if value >= 0.01 or value == 0 else "< 0.01 s"
    total = round(value)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def roughly(number: int | None) -> str:
    """1_312_000 → 1.3 million."""
    if number is None:
        return NONE
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return whole(number)


def counted(number: int | None, noun: str, several: str = "") -> str:
    """1 record, 2,400 records."""
    return f"{whole(number)} {noun if number == 1 else several or noun + 's'}"
