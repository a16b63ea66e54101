"""What a benchmark returns, and what must be known about the machine to read it."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import poa
from poa.errors import PoaError

LIBRARIES = ("numpy", "torch", "transformers", "peft", "numba", "faiss-cpu", "pyarrow")


@dataclass(frozen=True)
class Figures:
    """Numbers by id, and for those that vary from run to run the range (low, high) that they were seen to have.

    Speeds are ratios against a peer or a limit measured in the same run, so that they mean the same elsewhere.
    """

    figures: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    def __post_init__(self) -> None:
        for name, value in self.figures.items():
            if not math.isfinite(value):
                raise PoaError(f"figure {name!r} is {value}, must be finite")
        for name, (low, high) in self.ranges.items():
            if name not in self.figures:
                raise PoaError(f"range {name!r} belongs to no figure; figures are {sorted(self.figures)}")
            if not low <= self.figures[name] <= high:
                raise PoaError(f"figure {name!r} is {self.figures[name]}, outside its range [{low}, {high}]")

    def line(self, bench: str) -> str:
        """The result of `bench` as one line of JSON with sorted keys."""
        ranges = {name: list(limits) for name, limits in self.ranges.items()}
        result = {"bench": bench, "figures": dict(self.figures), "ranges": ranges, "environment": environment()}
        return json.dumps(result, sort_keys=True, allow_nan=False)


def environment() -> dict[str, str | int]:
    """Versions, processor and thread settings; nothing that names the machine or its owner."""
    libraries = {name: found for name in LIBRARIES if (found := _installed(name))}
    return {
        "poa": poa.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 0,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "unset"),
    } | libraries


def _processor() -> str:
    description = Path("/proc/cpuinfo")
    if description.is_file():
        for line in description.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
