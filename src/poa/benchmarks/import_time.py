"""How long `import poa` takes, as a multiple of `import numpy`, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from poa.benchmarks import Figures, interleave

SCRIPT = "import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"


def run(rounds: int = 9) -> Figures:
    """`import_time.poa_over_numpy`: median over `rounds` of the ratio of import times."""
    ratio = interleave(lambda: _seconds("poa"), lambda: _seconds("numpy"), rounds, _reported)
    name = "import_time.poa_over_numpy"
    return Figures({name: ratio.median}, {name: (ratio.low, ratio.high)})


def _seconds(name: str) -> float:
    # -I leaves out the working folder and the user's settings; the start of the interpreter itself is not counted.
    out = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT.format(name=name)], check=True, capture_output=True, text=True
    )
    return float(out.stdout)


def _reported(call: Callable[[], float]) -> float:
    return call()
