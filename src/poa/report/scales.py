"""From values to places and shades: percent positions, round ticks, diverging steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = 4
FAINT = 0.04  # below this fraction of the strongest value a cell stays unshaded


@dataclass(frozen=True)
class Scale:
    """A linear scale from [low, high] to [0, 100] percent."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Percent position of `value`, kept inside the chart."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))

    def ticks(self, wanted: int = 4) -> list[float]:
        """Round values (1, 2 or 5 times a power of ten apart) inside the scale."""
        rough = (self.high - self.low) / max(1, wanted)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]


def covering(values: Iterable[float], zero: bool = True, margin: float = 0.0) -> Scale:
    """The scale that just holds `values` (and zero), with a margin as a fraction of its width on both sides."""
    known = [*values, 0.0] if zero else list(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-12):
        low, high = low - (0.5 if low else 0.0), high + (0.5 if low else 1.0)
    pad = margin * (high - low)
    return Scale(low - pad, high + pad)


def shade(value: float, top: float) -> str:
    """Step of the diverging scale: p1..p4 for helped, n1..n4 for hurt, z for (almost) nothing.

    `top` > 0 is the magnitude at full colour; steps are linear in |value| / top.
    """
    if top <= 0 or abs(value) < FAINT * top:
        return "z"
    step = min(STEPS, math.ceil(STEPS * abs(value) / top - 1e-9))
    return f"{'p' if value > 0 else 'n'}{step}"
