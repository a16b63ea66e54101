"""Benchmarks: every public module here has `run() -> Figures`; `poa bench NAME` prints the result as one JSON line."""

from __future__ import annotations

from pkgutil import iter_modules

from poa.benchmarks._figures import Figures, environment
from poa.benchmarks._timing import Ratio, interleave, wall

__all__ = ["Figures", "Ratio", "available", "environment", "interleave", "wall"]


def available() -> list[str]:
    """Names of the benchmarks, without importing them."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
