"""Numbers read as a person writes them."""

from __future__ import annotations

import pytest

from poa.report import numerals


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (numerals.whole(1234567), "1,234,567"),
        (numerals.whole(None), "–"),
        (numerals.plain(0.0), "0"),
        (numerals.plain(-380.23, 4), "−380.2"),
        (numerals.plain(1310.0, 6), "1,310.00"),
        (numerals.plain(2.5e-7), "2.50 × 10⁻⁷"),
        (numerals.signed(0.6123, 2), "+0.61"),
        (numerals.signed(-0.6123, 2), "−0.61"),
        (numerals.signed(0.0), "0"),
        (numerals.power(3.1e-9), "3.1 × 10⁻⁹"),
        (numerals.with_error(0.7, 0.7), "+0.70 ± 0.70"),
        (numerals.with_error(-0.613, 1.1), "−0.6 ± 1.1"),
        (numerals.with_error(1523.4, 220.0), "+1,523 ± 220"),
        (numerals.with_error(0.7, None), "+0.700"),
        (numerals.tick(2.0), "2"),
        (numerals.tick(-0.0), "0"),
        (numerals.tick(-0.5), "−0.5"),
        (numerals.correlation(-0.001), "0.00"),
        (numerals.correlation(-0.25), "−0.25"),
        (numerals.percent(0.3412), "34 %"),
        (numerals.percent(0.0123), "1.2 %"),
        (numerals.percent(0.0001), "< 0.1 %"),
        (numerals.percent(-0.0001), "> −0.1 %"),
        (numerals.percent(0.0), "0 %"),
        (numerals.signed_percent(0.34), "+34 %"),
        (numerals.signed_percent(-0.042), "−4.2 %"),
        (numerals.seconds(0.84), "0.84 s"),
        (numerals.seconds(0.001), "< 0.01 s"),
        (numerals.seconds(125), "2 min 5 s"),
        (numerals.seconds(3780), "1 h 3 min"),
        (numerals.roughly(1_312_000), "1.3 million"),
        (numerals.roughly(36_864), "36,864"),
        (numerals.counted(1, "answer"), "1 answer"),
        (numerals.counted(2400, "record"), "2,400 records"),
    ],
)
def test_shown(made: str, shown: str) -> None:
    assert made == shown
