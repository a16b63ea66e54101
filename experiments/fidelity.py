"""How well every method agrees with retraining: a network on digits, subsets and contributors, each with its ceiling.

    python experiments/fidelity.py [--seeds 0 1 2] [--ensemble 10] [--record]

Truth, all of it *masked* removal: LDS over random subsets that lack 1, 5 and 50 % of the records, and exact Shapley
values of the contributors by all coalitions. A method is fitted on the run of each seed (its own-run LDS is against the
truth of that seed) and averaged over an ensemble of other seeds (against the truth of the seeds above, none of which it
has seen). Intervals are two-way bootstraps over queries and subsets. The last line printed is one JSON object;
`--record` keeps it as experiments/results/fidelity.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa import methods
from poa.benchmarks._figures import environment
from poa.errors import PoaError
from poa.evaluation.bootstrap import Interval, two_way
from poa.evaluation.correlation import mean_spearman, spearman_rows
from poa.evaluation.shapley import exact_shapley, payout_error, shares
from poa.evaluation.subsets import SubsetTruth, subset_truth
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.files import write_atomic
from poa.records import Corpus
from poa.scores import Scores

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments/results/fidelity.json"
# The fractions removed, and how many subsets each.
FRACTIONS: Mapping[float, int] = {0.01: 200, 0.05: 200, 0.5: 100}
TRAIN, QUERIES, CONTRIBUTORS = 1200, 100, 8
# Whole trainings are walked through: the oracle, not what it is to judge. Spans read text.
EXACT = ("magic",)
LEFT_OUT = ("adamw_influence", "spans", "bm25", "captum", "in_run")
# What a method is beside its defaults. "last": one checkpoint, which the figures of single checkpoints are about.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "influence, last": ("influence", {"checkpoints": "last"}),
    "trak, last": ("trak", {"checkpoints": "last"}),
}
MANY = ("tracin", "tracin_last", "tracin_projection", "source", "less")
Array = npt.NDArray[np.floating[Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ensemble", type=int, default=10, help="runs of an ensemble, seeds 100 and on")
    parser.add_argument("--methods", nargs="*", default=None)
    parser.add_argument("--record", action="store_true", help=f"keep the result as {RESULT.relative_to(ROOT)}")
    told = parser.parse_args(arguments)
    began = time.perf_counter()
    result = digits_mlp(told.seeds, told.ensemble, told.methods) | {"seconds": time.perf_counter() - began}
    named = "" if told.methods is None else f" --methods {' '.join(told.methods)}"
    seeds = " ".join(map(str, told.seeds))
    result["command"] = f"python experiments/fidelity.py --seeds {seeds} --ensemble {told.ensemble}{named} --record"
    result["environment"] = environment()
    if told.record:
        write_atomic(RESULT, (json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    print(json.dumps(result, sort_keys=True, allow_nan=False))
    return 0


def trained(corpus: Corpus, seed: int) -> ClassifierRun:
    """64-32-10, AdamW, six passes in batches of 100; what is explained is the log-probability of a digit's label."""
    return train_classifier(
        corpus, (32,), steps=72, batch=100, lr=0.01, optimizer="adamw", seed=seed, measures="log-probability"
    )


def digits_mlp(seeds: Sequence[int], ensemble: int, names: Sequence[str] | None) -> dict[str, Any]:
    corpus = digits(TRAIN + QUERIES, contributors=CONTRIBUTORS)
    train, queries = corpus[:TRAIN], corpus[TRAIN:]
    runs = {seed: trained(train, seed) for seed in seeds}
    first = runs[seeds[0]]
    began = time.perf_counter()
    truths = {
        removed: subset_truth(first, queries, removed=removed, subsets=count, seeds=seeds)
        for removed, count in FRACTIONS.items()
    }
    value = exact_shapley(first, queries, seeds)
    spent = time.perf_counter() - began
    began = time.perf_counter()
    trained(train, seeds[0])
    once = time.perf_counter() - began
    others = [trained(train, 100 + place) for place in range(ensemble)]
    rows: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for label, method in subjects(names).items():
        try:
            rows[label] = judged(label, method, runs, others, queries, truths, value, once)
        except PoaError as error:
            refused[label] = str(error)
    return {
        "kind": "fidelity",
        "task": "digits_mlp",
        "records": TRAIN,
        "queries": QUERIES,
        "seeds": list(seeds),
        "ensemble": ensemble,
        "removal": "masked",
        "subsets": {f"{100 * removed:g}": count for removed, count in FRACTIONS.items()},
        "truth": {"seconds": spent, "trainings_of_one": spent / once}
        | {f"{100 * removed:g}": {"reliability": t.reliability, "ceiling": t.ceiling} for removed, t in truths.items()},
        "contributors": {"ceiling": value.ceiling, "seed_against_seed": between(value.effects)},
        "methods": rows,
        "refused": refused,
        "figures": figures(rows, truths),
    }


def subjects(names: Sequence[str] | None) -> dict[str, Any]:
    """Methods by label."""
    plain = [name for name in methods.available() if name not in LEFT_OUT] if names is None else list(names)
    found: dict[str, Any] = {name: methods.method(name) for name in plain}
    return found | {label: methods.method(name, **told) for label, (name, told) in VARIANTS.items() if name in plain}


def judged(
    label: str,
    method: Any,
    runs: Mapping[int, ClassifierRun],
    others: Sequence[ClassifierRun],
    queries: Corpus,
    truths: Mapping[float, SubsetTruth],
    value: Any,
    once: float,
) -> dict[str, Any]:
    began = time.perf_counter()
    own = {seed: method.fit(run).attribute(queries) for seed, run in runs.items()}
    spent = (time.perf_counter() - began) / len(runs)
    pooled = mean([method.fit(run).attribute(queries) for run in others]) if others else None
    row: dict[str, Any] = {"identity": repr(method), "trainings": spent / once, "lds": {}}
    for removed, truth in truths.items():
        found = own_run(truth, own)
        told: dict[str, Any] = {"own_run": plain(found)}
        if pooled is not None:
            told["ensemble_one_seed"] = plain(each_seed(truth, pooled))
            told["ensemble_seed_mean"] = plain(truth.lds(pooled))
        row["lds"][f"{100 * removed:g}"] = told
    scores = pooled if pooled is not None else own[min(own)]
    predicted = value.aligned(scores)
    row["payout_tv"] = payout_error(predicted, value.mean)
    row["contributor_spearman"] = plain(value.agreement(scores))
    half, few = row["lds"]["50"], row["lds"]["5"]
    pooled_half = half["ensemble_one_seed"]["value"] if pooled is not None else float("nan")
    said = f"50 %: {half['own_run']['value']:.3f}, ensemble {pooled_half:.3f}; 5 %: {few['own_run']['value']:.3f}"
    print(f"{label}: {said}; payout {row['payout_tv']:.3f}; {spent:.1f} s", file=sys.stderr, flush=True)
    return row


def own_run(truth: SubsetTruth, own: Mapping[int, Scores]) -> Interval:
    """Mean over seeds of the LDS of a run's scores against the truth of its own seed."""
    predicted = np.concatenate([truth.predicted(scores) for scores in own.values()])
    values = np.concatenate([truth.of(seed).mean for seed in own])
    return two_way(mean_spearman, predicted, values)


def each_seed(truth: SubsetTruth, scores: Scores) -> Interval:
    """Mean over seeds of the LDS against the truth of one seed."""
    predicted = truth.predicted(scores)
    return two_way(
        mean_spearman,
        np.concatenate([predicted] * len(truth.seeds)),
        np.concatenate([truth.of(seed).mean for seed in truth.seeds]),
    )


def mean(parts: Sequence[Scores]) -> Scores:
    """One table: the mean of the scores of several runs."""
    return replace(parts[0], values=np.mean([part.values for part in parts], 0, dtype=np.float64))


def between(effects: Array) -> dict[str, float]:
    """How well one seed's contributor values agree with another's, as a yardstick for a method's."""
    pairs = [(a, b) for a in range(len(effects)) for b in range(a)]
    return {
        "spearman": float(np.mean([spearman_rows(effects[a], effects[b]).mean() for a, b in pairs])),
        "payout_tv": float(np.mean([payout_error(effects[a], effects[b]) for a, b in pairs])),
        "largest_share": float(shares(effects.mean(0)).max()),
    }


def figures(rows: Mapping[str, Any], truths: Mapping[float, SubsetTruth]) -> dict[str, Any]:
    """The numbers by which this task is judged; the best of several methods is named."""
    single = [label for label in rows if label not in (*EXACT, *MANY, "random", "trak", "influence")]
    out: dict[str, Any] = {}
    if "magic" in rows:
        for percent in ("1", "5"):
            out[f"magic_mlp_{percent}"] = rows["magic"]["lds"][percent]["own_run"]
        exact = rows["magic"]["lds"]["5"]["own_run"]["value"]
        if single:
            best = max(single, key=lambda label: rows[label]["lds"]["5"]["own_run"]["value"])
            out["best_over_magic_mlp"] = {"value": rows[best]["lds"]["5"]["own_run"]["value"] / exact, "method": best}
        for percent, truth in ((f"{100 * removed:g}", truth) for removed, truth in truths.items()):
            held = rows["magic"]["lds"][percent].get("ensemble_seed_mean")
            if held is not None:
                out[f"magic_mlp_ensemble_over_ceiling_{percent}"] = {"value": held["value"] / truth.ceiling}
    for name, key, among in (
        ("mlp_half_1", "own_run", single),
        ("mlp_half_10", "ensemble_one_seed", [label for label in rows if label not in EXACT]),
    ):
        found = {label: rows[label]["lds"]["50"][key] for label in among if key in rows[label]["lds"]["50"]}
        if found:
            best = max(found, key=lambda label: found[label]["value"])
            out[name] = found[best] | {"method": best}
    if cheap := [label for label in rows if label not in EXACT]:
        best = min(cheap, key=lambda label: rows[label]["payout_tv"])
        out["payout_tv_digits"] = {"value": rows[best]["payout_tv"], "method": best}
    return out


def plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    sys.exit(main())
