"""How well each method agrees with retraining on LoRA text, over several draws of the quickstart's data.

    python experiments/lora_fidelity.py --draws 4 5 6 7 8 [--methods NAME ...] [--record]

A draw is the quickstart with another `select.seed`: other training records and other held-out queries of the same six
contributors. Truth is leave-one-contributor-out retraining, two seeds a draw. Draws 0 to 3 are not used: settings of
the quickstart were chosen or first measured on them. A method's number is the mean over all queries of all draws of the
rank correlation over contributors; differences to adapter-space GradDot are paired. Intervals are two-way bootstraps
over queries and contributors. The last line printed is one JSON object; `--record` keeps it as
experiments/results/lora_fidelity.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa import methods
from poa.benchmarks._figures import environment
from poa.commands import composition
from poa.datanets.snapshot import Snapshot
from poa.errors import PoaError
from poa.evaluation.bootstrap import Interval, paired, two_way
from poa.evaluation.contributors import leave_one_out
from poa.evaluation.correlation import spearman_rows
from poa.factory.finetune import finetune
from poa.files import write_atomic
from poa.pipeline.attribution import attribute
from poa.pipeline.instances import made
from poa.pipeline.selection import choose
from poa.pipeline.settings import Select, read

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments/results/lora_fidelity.json"
REFERENCE = "graddot"
# Not tried unless named: spans are no credit, and these multiply by the curvature many times for every query.
LEFT_OUT = ("spans", "exact_influence", "ekfac_cg", "astra")
# The estimator whose scores do not move with the factorisation of the adapter, at its default damping.
GAUGE_INVARIANT = "influence, balanced, by layer"
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    GAUGE_INVARIANT: ("influence", {"blocks": "layers", "coordinates": "balanced", "checkpoints": "last"}),
    "influence, as the quickstart pays": (
        "influence",
        {"damping": 1.0, "blocks": "layers", "coordinates": "balanced", "checkpoints": "last"},
    ),
    "graddot, balanced": ("graddot", {"coordinates": "balanced"}),
    "ekfac, balanced": ("ekfac", {"coordinates": "balanced"}),
}
Array = npt.NDArray[np.floating[Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[4, 5, 6, 7, 8])
    parser.add_argument("--methods", nargs="*", default=None, help=f"names (default: all but {', '.join(LEFT_OUT)})")
    parser.add_argument("--record", action="store_true", help=f"keep the result as {RESULT.relative_to(ROOT)}")
    told = parser.parse_args(arguments)
    result = measured(told.draws, subjects(told.methods)) | {"command": command(told.draws, told.methods)}
    if told.record:
        write_atomic(RESULT, (json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    print(json.dumps(result, sort_keys=True, allow_nan=False))
    return 0


def command(draws: Sequence[int], names: Sequence[str] | None) -> str:
    """What makes this result."""
    named = "" if names is None else f" --methods {' '.join(names)}"
    return f"python experiments/lora_fidelity.py --draws {' '.join(map(str, draws))}{named} --record"


def subjects(names: Sequence[str] | None) -> dict[str, Any]:
    """Methods by label: those named, at their defaults, and the variants above; GradDot is always among them."""
    plain = list(names) if names is not None else [name for name in methods.available() if name not in LEFT_OUT]
    if REFERENCE not in plain:
        plain.append(REFERENCE)
    found = {name: methods.method(name) for name in plain}
    return found | {label: methods.method(name, **settings) for label, (name, settings) in VARIANTS.items()}


def measured(draws: Sequence[int], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The result: one row a method, and the paired difference of each to GradDot."""
    truths: list[Array] = []
    ceilings: list[float] = []
    predictions: dict[str, list[Array]] = {label: [] for label in chosen}
    refused: dict[str, str] = {}
    for draw in draws:
        run, queries = drawn(draw)
        truth = leave_one_out(run, queries)
        truths.append(truth.mean)
        ceilings.append(truth.ceiling)
        for label, method in chosen.items():
            if label in refused:
                continue
            try:
                predictions[label].append(truth.aligned(attribute(label, method, run, [queries]).scores))
            except PoaError as error:
                refused[label] = str(error)
            else:
                found = float(spearman_rows(predictions[label][-1], truth.mean).mean())
                print(f"draw {draw}: {label} {found:+.3f}", file=sys.stderr, flush=True)
    together = np.concatenate(truths)
    rows = {label: np.concatenate(found) for label, found in predictions.items() if label not in refused}
    return {
        "kind": "lora_fidelity",
        "draws": list(draws),
        "queries": len(together),
        "contributors": together.shape[1],
        "ceiling": float(np.mean(ceilings)),
        "methods": {label: row(chosen[label], found, together) for label, found in rows.items()},
        "over_graddot": {
            label: plain(paired(agreement, found, rows[REFERENCE], together)) for label, found in rows.items()
        },
        "refused": refused,
        "figures": {"gauge_over_graddot": plain(paired(agreement, rows[GAUGE_INVARIANT], rows[REFERENCE], together))},
        "environment": environment(),
    }


def drawn(draw: int) -> tuple[Any, Any]:
    """The quickstart's run and its measured queries for one `select.seed`."""
    with composition.opened(composition.conf_folder()) as app:
        _, (job,) = composition.compose(app, ["experiment=quickstart", f"select.seed={draw}"], sweep=False)
    config = job.config
    chosen = choose(made(config["datanet"]), read(Select, config["select"], "select"))
    recipe = made(config["recipe"], "recipe", _convert_="object")
    return finetune(Snapshot.of(chosen.train), base=config["model"]["base"], recipe=recipe), chosen.queries


def agreement(predicted: Array, truth: Array) -> float:
    """Mean over queries of the rank correlation over contributors."""
    return float(spearman_rows(predicted, truth).mean())


def row(method: Any, found: Array, truth: Array) -> dict[str, Any]:
    interval = two_way(agreement, found, truth)
    told = {"spearman_vs_truth": interval.value, "interval": [interval.low, interval.high]}
    return {"identity": repr(method)} | told


def plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    sys.exit(main())
