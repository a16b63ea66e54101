"""Damping chosen from the spectrum, beside a grid of dampings judged by retraining.

    python experiments/damping.py --draws 3 4 5 [--jobs FOLDER...] [--record]

A cell is (problem, fraction removed, method, draw). Its numbers are the LDS (mean over queries of the rank correlation
over retrained subsets) of the method at its default damping (`logra`: width) and at every one of a grid; the best of it
knows the answer, the default has seen neither queries nor retraining. Draws 0 to 2 served to choose the rule's
constant (`poa.gradients.damping.ROOT`), so the result is over others. `--jobs`: finished jobs of experiment=fidelity,
whose runs and truths are further problems. The last line printed is one JSON object; `--record` keeps it as
experiments/results/damping.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poa import methods
from poa.benchmarks._figures import environment
from poa.conformance.truth import measured as measurements
from poa.evaluation.correlation import mean_spearman
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.fidelity.job import TRUTH
from poa.fidelity.result import jobs
from poa.fidelity.truth import TaskTruth
from poa.files import write_atomic
from poa.pipeline.instances import made
from poa.records import Corpus

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments/results/damping.json"
GRID = tuple(10.0**power for power in range(-4, 3))
SUBSETS, QUERIES = 64, 40
FRACTIONS = (0.05, 0.5)
SUBJECTS = ("influence", "datainf", "kfac", "ekfac")
WIDTHS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
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
    parser.add_argument("--jobs", type=Path, nargs="*", default=[], help="folders of experiment=fidelity")
    parser.add_argument("--jobs-command", default="", help="how the jobs were made")
    told = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cells = [cell for draw in told.draws for name in PROBLEMS for cell in judged(name, draw, told.records)]
    cells += [cell for found in jobs_of(told.jobs) for cell in cells_of(*found)]
    result = summary(cells, told.draws, " --jobs runs/fidelity/DATE" if told.jobs else "")
    if told.jobs:
        result["jobs"] = told.jobs_command
    if told.record:
        write_atomic(RESULT, (json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    print(json.dumps(result, sort_keys=True, allow_nan=False))
    return 0


def judged(problem: str, draw: int, records: int) -> list[dict[str, Any]]:
    """All cells of one problem and draw."""
    corpus = digits(records + QUERIES, seed=draw)
    train, queries = corpus.take(range(records)), corpus.take(range(records, records + QUERIES))
    run = PROBLEMS[problem](train, draw)
    return cells_of(problem, draw, run, queries, {part: bank(run, queries, part, draw) for part in FRACTIONS})


def jobs_of(folders: Sequence[Path]) -> Iterator[tuple[str, int, Any, Corpus, Mapping[float, tuple[Array, Array]]]]:
    """What `cells_of` takes, of every task and seed of finished jobs."""
    done = [job for job in jobs(folders) if "refused" not in job.summary] if folders else []
    found = {(job.summary["task"], job.summary["seed"]): job for job in done}
    for (name, seed), job in sorted(found.items()):
        task = made(job.config()["task"], "task", _convert_="all")
        truth = TaskTruth.load(job.folder / TRUTH).subsets
        banks = {float(percent) / 100: (subsets.masks, subsets.mean) for percent, subsets in truth.items()}
        yield name, seed, task.run(seed), task.queries, banks


def cells_of(
    problem: str, draw: int, run: Any, queries: Corpus, banks: Mapping[float, tuple[Array, Array]]
) -> list[dict[str, Any]]:
    """Every method and fraction on one run; banks: (masks, truth) as of `bank` by fraction."""
    out: list[dict[str, Any]] = []
    for name in (*SUBJECTS, "logra"):
        option, grid = ("width", WIDTHS) if name == "logra" else ("damping", GRID)
        kept = {value: scored(name, run, queries, {option: value}) for value in (None, *grid)}
        for fraction, (masks, truth) in banks.items():
            lds = {value: mean_spearman(values @ masks.T, truth) for value, values in kept.items()}
            default = lds.pop(None)
            cell = {"problem": problem, "draw": draw, "removed": fraction, "method": name, "default": default}
            cell |= {"grid": {f"{value:g}": found for value, found in lds.items()}, "best": max(lds.values())}
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


def scored(name: str, run: Any, queries: Corpus, options: Mapping[str, Any]) -> Array:
    """[queries, records] scores of the last checkpoint; an option of None is left at its default."""
    given = {key: value for key, value in options.items() if value is not None}
    return methods.method(name, checkpoints="last", **given).fit(run).attribute(queries).values.astype(np.float64)


def summary(cells: Sequence[Mapping[str, Any]], draws: Sequence[int], more: str = "") -> dict[str, Any]:
    """Means over draws per (problem, removed, method), and the share of those cells where the default is near."""
    keys = sorted({(cell["problem"], cell["removed"], cell["method"]) for cell in cells})
    rows: list[dict[str, Any]] = []
    for problem, removed, name in keys:
        mine = [c for c in cells if (c["problem"], c["removed"], c["method"]) == (problem, removed, name)]
        grid = {damping: float(np.mean([c["grid"][damping] for c in mine])) for damping in mine[0]["grid"]}
        best = max(grid, key=lambda damping: grid[damping])
        default = float(np.mean([c["default"] for c in mine]))
        rows.append({"problem": problem, "removed": removed, "method": name, "default": default})
        rows[-1] |= {"best": grid[best], "best_at": float(best), "grid": grid}
    near = float(np.mean([row["best"] - row["default"] <= NEAR for row in rows]))
    return {
        "kind": "damping",
        "command": f"python experiments/damping.py --draws {' '.join(map(str, draws))}{more} --record",
        "draws": list(draws),
        "subsets": SUBSETS,
        "queries": QUERIES,
        "cells": rows,
        "figures": {"auto_damping_cells": near},
        "environment": environment(),
    }


if __name__ == "__main__":
    sys.exit(main())
