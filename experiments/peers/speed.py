"""How long poa and its peers take for the same work, in the same rounds, one thread each.

    OMP_NUM_THREADS=1 .venv-peers/bin/python experiments/peers/speed.py [--only FIGURE] [--rounds N] [--write]

Every figure is the median over rounds of time(peer) / time(poa), `ekfac_over_kronfluence` the other way round, with the
interval that `poa.benchmarks.interleave` gives. The last line is one JSON object; --write keeps it as
experiments/benchmarks/peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "0"  # dattri's LoGra as it is shipped, compiled; the first round pays for that

import quiet  # noqa: F401

# isort: split
import fits
import numpy as np
import ours
import torch
from environment import versions

from language import token_records
from poa.benchmarks import interleave
from poa.evaluation.correlation import mean_spearman

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "peers.json"


@dataclass(frozen=True)
class Figure:
    """`ways(examples)` -> (numerator, denominator)."""

    name: str
    ways: Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]]
    examples: int
    rounds: int
    goal: str


def _against(peer: Callable[..., Any], *settings: Any) -> Callable[[int], tuple[Any, Any]]:
    def ways(examples: int) -> tuple[Any, Any]:
        run = fits.untrained_run(examples)
        return peer(run, *settings), ours.fit(run)

    return ways


def _ekfac(examples: int) -> tuple[Any, Any]:
    run = fits.untrained_run(examples)
    queries = token_records(8, fits.VOCABULARY, fits.LONGEST, seed=1)
    poa = ours.ekfac(run, queries)
    mine = poa()
    theirs = fits.kronfluence_ekfac(run, queries, damping=mine.meta["lambda"][0])
    agreement = mean_spearman(np.asarray(mine.values, np.float64), np.asarray(theirs(), np.float64))
    print(f"EK-FAC: mean per-query rank agreement with kronfluence {agreement:.4f}", file=sys.stderr)
    AGREEMENT["ekfac_rank_agreement"] = agreement
    return poa, theirs


AGREEMENT: dict[str, float] = {}
FIGURES = (
    Figure("vs_bergson", _against(fits.bergson_build), 64, 9, ">= 1.2"),
    Figure("vs_dattri_logra", _against(fits.dattri_logra, 16, False), 64, 9, ">= 1.5"),
    Figure("vs_dattri_logra_sorted", _against(fits.dattri_logra), 64, 9, "none: sorted by us, batches of 4"),
    Figure("vs_trak_64", _against(fits.trak, 64), 32, 7, "none: 64 columns against 4,096"),
    Figure("vs_trak", _against(fits.trak, 512), 32, 3, ">= 5"),
    Figure("vs_dattri_trak_64", _against(fits.dattri_trak, 64), 32, 5, "none: 64 columns against 4,096"),
    Figure("vs_dattri_trak", _against(fits.dattri_trak, 512), 32, 3, ">= 15"),
    Figure("ekfac_over_kronfluence", _ekfac, 192, 3, "<= 0.6"),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="this figure alone")
    options.add_argument("--rounds", type=int, default=0, help="rounds of every figure (default: each its own)")
    options.add_argument("--examples", type=int, default=0, help="training records (default: each figure its own)")
    options.add_argument("--write", action="store_true", help=f"keep the result as {RESULT.name}")
    given = options.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    ranges: dict[str, list[float]] = {}
    for figure in FIGURES:
        if given.only not in ("", figure.name):
            continue
        above, below = figure.ways(given.examples or figure.examples)
        ratio = interleave(above, below, given.rounds or figure.rounds)
        figures[figure.name] = ratio.median
        ranges[figure.name] = [ratio.low, ratio.high]
        said = f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        print(f"{figure.name}: {said}, goal {figure.goal}", file=sys.stderr, flush=True)
    result = {
        "bench": "peers",
        "figures": figures | AGREEMENT,
        "ranges": ranges,
        "environment": versions(),
    }
    line = json.dumps(result, sort_keys=True, allow_nan=False)
    if given.write:
        RESULT.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
