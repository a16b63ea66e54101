"""Damping chosen from the spectrum, beside a grid of dampings judged by retraining.

    python experiments/damping.py --draws 3 4 5 [--record]

A cell is (problem, fraction removed, method, draw). Its numbers are the LDS (mean over queries of the rank correlation
over retrained subsets) of the method at its default damping and at every damping of a grid; the grid's best value knows
the answer, the default has seen neither queries nor retraining. Draws 0 to 2 served to choose the rule's constant
(`poa.gradients.damping.ROOT`), so the result is over others. The last line printed is one JSON object; `--record` keeps
it as experiments/results/damping.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa import methods
from poa.benchmarks._figures import environment
from poa.conformance.truth import measured as measurements
from poa.evaluation.correlation import mean_spearman
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.files import write_atomic
from poa.records import Corpus

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments/results/damping.json"
GRID = tuple(10.0**power for power in range(-4, 3))
SUBSETS, QUERIES = 64, 40
FRACTIONS = (0.05, 0.5)
SUBJECTS = ("influence", "datainf", "kfac", "ekfac")
NEAR = 0.03
Array = npt.NDArray[np.float64]

# Regression and two small networks: few directions and many, plain descent and AdamW.
PROBLEMS: Mapping[str, Callable[[Corpus, int], ClassifierRun]] = {
    "logistic regression": lambda corpus, seed: train_classifier(corpus, (), steps=200, lr=0.5, decay=1e-3, seed=seed),
    "network, SGD": lambda corpus, seed: train_classifier(corpus, (16,), steps=300, lr=0.5, decay=1e-3, seed=seed),
    "network, AdamW": lambda corpus, seed: train_classifier(
        corpus, (16,), steps=200, lr=0.01, decay=1e-3, seed=seed, optimizer="adamw"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--record", action="store_true", help=f"keep the result as {RESULT.relative_to(ROOT)}")
    told = parser.parse_args(arguments)
    cells = [cell for draw in told.draws for name in PROBLEMS for cell in judged(name, draw, told.records)]
    result = summary(cells, told.draws)
    if told.record:
        write_atomic(RESULT, (json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    print(json.dumps(result, sort_keys=True, allow_nan=False))
    return 0


def judged(problem: str, draw: int, records: int) -> list[dict[str, Any]]:
    """All cells of one problem and draw."""
    corpus = digits(records + QUERIES, seed=draw)
    train, queries = corpus.take(range(records)), corpus.take(range(records, records + QUERIES))
    run = PROBLEMS[problem](train, draw)
    banks = {fraction: bank(run, queries, fraction, draw) for fraction in FRACTIONS}
    out: list[dict[str, Any]] = []
    for name in SUBJECTS:
        kept = {damping: scored(name, damping, run, queries) for damping in (None, *GRID)}
        for fraction, (masks, truth) in banks.items():
            lds = {damping: mean_spearman(values @ masks.T, truth) for damping, values in kept.items()}
            default = lds.pop(None)
            cell = {"problem": problem, "draw": draw, "removed": fraction, "method": name, "default": default}
            cell |= {"grid": {f"{damping:g}": value for damping, value in lds.items()}, "best": max(lds.values())}
            print(f"{problem}, {fraction}, {name}: {default:.3f}, best {cell['best']:.3f}", file=sys.stderr, flush=True)
            out.append(cell)
    return out


def bank(run: ClassifierRun, queries: Corpus, fraction: float, draw: int) -> tuple[Array, Array]:
    """([subsets, records] 1 where kept, [queries, subsets] measurement after retraining on what is kept)."""
    rng = np.random.default_rng([draw, round(100 * fraction)])
    masks = np.ones((SUBSETS, len(run.corpus)))
    for mask in masks:
        mask[rng.choice(len(mask), round(fraction * len(mask)), replace=False)] = 0.0
    return masks, np.stack([measurements(run.retrained(mask), queries) for mask in masks], 1)


def scored(name: str, damping: float | None, run: ClassifierRun, queries: Corpus) -> Array:
    """[queries, records] scores of the last checkpoint."""
    last = {"checkpoints": "last"}
    settings = last if damping is None else last | {"damping": damping}
    return methods.method(name, **settings).fit(run).attribute(queries).values.astype(np.float64)


def summary(cells: Sequence[Mapping[str, Any]], draws: Sequence[int]) -> dict[str, Any]:
    """Means over draws per (problem, removed, method), and the share of those cells where the default is near."""
    keys = sorted({(cell["problem"], cell["removed"], cell["method"]) for cell in cells})
    rows: list[dict[str, Any]] = []
    for problem, removed, name in keys:
        mine = [c for c in cells if (c["problem"], c["removed"], c["method"]) == (problem, removed, name)]
        grid = {damping: float(np.mean([c["grid"][damping] for c in mine])) for damping in mine[0]["grid"]}
        best = max(grid, key=lambda damping: grid[damping])
        default = float(np.mean([c["default"] for c in mine]))
        rows.append({"problem": problem, "removed": removed, "method": name, "default": default})
        rows[-1] |= {"best": grid[best], "best_damping": float(best), "grid": grid}
    near = float(np.mean([row["best"] - row["default"] <= NEAR for row in rows]))
    return {
        "kind": "damping",
        "command": f"python experiments/damping.py --draws {' '.join(map(str, draws))} --record",
        "draws": list(draws),
        "subsets": SUBSETS,
        "queries": QUERIES,
        "cells": rows,
        "figures": {"auto_damping_cells": near},
        "environment": environment(),
    }


if __name__ == "__main__":
    sys.exit(main())
