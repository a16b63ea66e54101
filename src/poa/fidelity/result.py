"""From the folders of finished jobs to one result: all seeds of a task together, with ceilings and intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from poa.errors import Corrupt, PoaError
from poa.evaluation.bootstrap import Interval, across_runs, paired_spearman, two_way_spearman
from poa.evaluation.correlation import mean_spearman
from poa.evaluation.shapley import payout_error, shares
from poa.evaluation.subsets import SubsetTruth
from poa.evaluation.uncertainty import crossed
from poa.fidelity.figures import figures
from poa.fidelity.job import CONTRIBUTORS, JOB, POOLED, SCORES, TRUTH
from poa.fidelity.quantities import OWN, payout_interval, printed_error
from poa.fidelity.rows import ROWS, read_rows
from poa.fidelity.truth import TaskTruth
from poa.scores import Scores

SCHEMA = "poa.fidelity/1"
# What `summary.json` calls scores of another library on a job's run (`experiments/peers/fidelity.py`).
PEER, SHIPPED = "fidelity_peer", "as shipped"
# Rows of single jobs that a result repeats as means over seeds.
SINGLE = (
    *("brittleness", "tail_patch", "mislabel_auc", "recall_at_1", "recall_at_5", "mrr", "told_over_denied"),
    "placebo_over_real",
)
# What of a task's configuration changes neither runs nor truth: what else is measured of each method.
BESIDE = ("ensemble", "brittle", "mislabels")
Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Job:
    """One finished job and where its files lie."""

    folder: Path
    summary: Mapping[str, Any]

    def scores(self, name: str) -> Scores | None:
        """Raises `Corrupt` where these are not the scores that the job's summary tells the digest of."""
        path = self.folder / name
        if not path.is_file():
            return None
        found, promised = Scores.load(path), self.summary.get("digests", {}).get("scores")
        if name == SCORES and promised not in (None, found.digest):
            raise Corrupt(f"{path} holds other scores than the job made: run it again")
        return found

    def config(self) -> Mapping[str, Any]:
        """What the job was told; `PoaError` where that is gone or no mapping."""
        path = self.folder / "config.yaml"
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise PoaError(f"{path} is not readable: {error}") from error
        if not isinstance(found, dict) or "task" not in found:
            raise PoaError(f"{path} names no task: run the job again")
        return found


def jobs(folders: Iterable[Path]) -> list[Job]:
    """Finished jobs below `folders`, of a repeated (task, label, seed) the newest; `PoaError` where there is none.

    Raises `PoaError` for a folder without any `summary.json`: mistyped, it would silently be left out.
    """
    folders = list(folders)
    for folder in folders:
        if not any(folder.rglob("summary.json")):
            raise PoaError(f"{folder} holds no finished job of experiment=fidelity")
    found = _summaries(folders, JOB, ("task", "label", "seed"))
    if not found:
        raise PoaError("there is no finished job of experiment=fidelity in these folders")
    return found


def _summaries(folders: Iterable[Path], kind: str, keys: tuple[str, ...]) -> list[Job]:
    """Sorted by `keys`; of a repeated one the newest."""
    found: dict[tuple[Any, ...], Job] = {}
    for path in sorted((p for f in folders for p in f.rglob("summary.json")), key=lambda p: p.stat().st_mtime):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PoaError(f"{path} is not readable: {error}") from error
        if not isinstance(summary, dict):
            raise PoaError(f"{path} is no summary of a job")
        if summary.get("kind") == kind:
            if missing := [key for key in keys if key not in summary]:
                raise PoaError(f"{path} does not say its {missing[0]}")
            found[tuple(summary[key] for key in keys)] = Job(path.parent, summary)
    return [found[key] for key in sorted(found)]


def result(folders: Iterable[Path], command: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What is committed as experiments/results/fidelity.json."""
    folders = list(folders)
    every = jobs(folders)
    peers = _summaries(folders, PEER, ("task", "label", "setting", "seed"))
    tasks: dict[str, Any] = {}
    for name in _names(every, "task"):
        own, others = ([job for job in some if job.summary["task"] == name] for some in (every, peers))
        tasks[name] = _task(own, others)
    told = {"schema": SCHEMA, "kind": "fidelity", "command": command, "environment": dict(environment)}
    return told | {"tasks": tasks, "figures": figures(tasks)}


def _recipe(every: Sequence[Job]) -> dict[str, Any]:
    """The task's configuration without `BESIDE`; raises `PoaError` where jobs of one task differ in it."""
    found: dict[str, Path] = {}
    for job in every:
        kept = {key: value for key, value in job.config()["task"].items() if key not in BESIDE}
        found.setdefault(json.dumps(kept, sort_keys=True), job.folder)
    first, *others = found
    if others:
        told, other = json.loads(first), json.loads(others[0])
        wrong = sorted(key for key in told | other if told.get(key) != other.get(key))
        raise PoaError(
            f"jobs of {every[0].summary['task']} in {found[first].name} and {found[others[0]].name} differ in "
            f"{', '.join(wrong)}: they are not of one task"
        )
    recipe: dict[str, Any] = json.loads(first)
    return recipe


def _names(every: Sequence[Job], key: str) -> list[str]:
    return sorted({str(job.summary[key]) for job in every})


def _task(every: Sequence[Job], peers: Sequence[Job]) -> dict[str, Any]:
    recipe = _recipe(every)
    done = [job for job in every if "refused" not in job.summary]
    if not done:
        raise PoaError(f"no method applies to the task {every[0].summary['task']}")
    by_seed = {int(job.summary["seed"]): job for job in done}
    seeds = sorted(by_seed)
    truths = {seed: TaskTruth.load(by_seed[seed].folder / TRUTH) for seed in seeds}
    truth = TaskTruth.joined([truths[seed] for seed in seeds])
    rows: dict[str, Any] = {}
    for label in _names(done, "label"):
        own = {int(job.summary["seed"]): job for job in done if job.summary["label"] == label}
        rows[label] = _method(own, truths, truth)
    others = {
        label: _peer([job for job in peers if job.summary["label"] == label], done, truths)
        for label in _names(peers, "label")
    }
    refused = {str(job.summary["label"]): job.summary["refused"] for job in every if "refused" in job.summary}
    return {
        "config": recipe,
        "seeds": seeds,
        "records": len(_must(done[0], SCORES).train_ids),
        "queries": len(truth.left_out.query_ids),
        "contributors": len(truth.left_out.contributors),
        "removal": "masked",
        "truth": _truth(truth),
        "noise": _noise(truth, rows, done),
        "methods": rows,
        "peers": others,
        "refused": refused,
    }


def _truth(truth: TaskTruth) -> dict[str, Any]:
    several = len(truth.left_out.seeds) > 1
    subsets: dict[str, Any] = {}
    for percent, found in truth.subsets.items():
        told: dict[str, Any] = {"subsets": len(found.masks)}
        if several:
            told |= {"reliability": found.reliability, "ceiling": found.ceiling}
        subsets[percent] = told
    out: dict[str, Any] = {"subsets": subsets}
    if truth.shapley is not None:
        out["shapley"] = {"largest_share": float(shares(truth.shapley.mean).max())}
        if several:
            effects = truth.shapley.effects
            pairs = list(combinations(range(len(effects)), 2))
            agreement = [mean_spearman(effects[a], effects[b]) for a, b in pairs]
            distance = [payout_error(effects[a], effects[b]) for a, b in pairs]
            out["shapley"] |= {"ceiling": truth.shapley.ceiling, "seed_against_seed": float(np.mean(agreement))}
            out["shapley"]["payout_tv_between_seeds"] = float(np.mean(distance))
    return out


def _noise(truth: TaskTruth, rows: Mapping[str, Any], done: Sequence[Job]) -> dict[str, Any]:
    """Per fraction, of the best ensemble: standard deviation of its LDS with seeds, subsets or queries drawn anew, and
    how many subsets an interval of +- 0.02 needs with these queries (None: no number does).
    """
    told: dict[str, Any] = {}
    for percent, subsets in truth.subsets.items():
        found = {
            label: row["lds"][percent]["ensemble"]["value"]
            for label, row in rows.items()
            if "ensemble" in row["lds"][percent]
        }
        if not found:
            continue
        best = max(found, key=lambda label: found[label])
        pooled = _must(
            next(job for job in done if job.summary["label"] == best and (job.folder / POOLED).is_file()), POOLED
        )
        spread = subsets.spread(pooled)
        needed = subsets.needed(spread)
        told[percent] = {"method": best, "spread": spread}
        told[percent]["subsets_for_0.02"] = None if np.isinf(needed) else int(np.ceil(needed))
    return told


def _method(own: Mapping[int, Job], truths: Mapping[int, TaskTruth], truth: TaskTruth) -> dict[str, Any]:
    first = next(iter(own.values()))
    scores = {seed: _must(job, SCORES) for seed, job in own.items()}
    pooled, payees = first.scores(POOLED), first.scores(CONTRIBUTORS)
    told: dict[str, Any] = {"method": first.summary["method"], "identity": first.summary["identity"]}
    # A dear method may have been run for fewer seeds than the truth has: its own-run numbers are over these.
    told |= {"seeds": sorted(own), "lds": {}}
    for percent, subsets in truth.subsets.items():
        cell: dict[str, Any] = {"own_run": plain(_own_lds(percent, scores, truths))}
        if pooled is not None:
            cell["ensemble_one_seed"] = plain(_each_seed(percent, pooled, truths))
            if len(subsets.seeds) > 1:
                found = subsets.lds(pooled)
                cell["ensemble"] = plain(found)
                cell["ensemble_over_ceiling"] = _divided(found, subsets.ceiling)
        told["lds"][percent] = cell
    told["contributors"] = _contributors(scores, pooled, payees, truth)
    told["card"] = {name: float(np.median([job.summary["card"][name] for job in own.values()])) for name in _CARD}
    return told | _single(list(own.values()))


def _peer(asked: Sequence[Job], done: Sequence[Job], truths: Mapping[int, TaskTruth]) -> dict[str, Any]:
    """A peer's method in every setting, and in the best of them by the truth itself beside poa's default.

    settings: LDS at the largest fraction removed; lds: of the best, per fraction; shipped: of the peer's own defaults.
    `ahead`: poa's LDS minus the peer's, over the seeds that both were run for.
    """
    of = str(asked[0].summary["of"])
    ours = {int(job.summary["seed"]): _must(job, SCORES) for job in done if job.summary["label"] == of}
    told: dict[str, Any] = {"of": of, "settings": {}, "failed": {}}
    last = max(next(iter(truths.values())).subsets, key=float)
    scores: dict[str, dict[int, Scores]] = {}
    for setting in _names(asked, "setting"):
        these = [job for job in asked if job.summary["setting"] == setting]
        failed = [str(job.summary["failed"]) for job in these if "failed" in job.summary]
        if failed:
            told["failed"][setting] = failed[0]
            continue
        theirs = {seed: _must(job, SCORES) for job in these if (seed := int(job.summary["seed"])) in ours}
        if theirs:
            scores[setting] = theirs
            told["settings"][setting] = float(
                np.mean([truths[seed].subsets[last].correlation(found) for seed, found in theirs.items()])
            )
    if not scores:
        return told
    best = max(scores, key=lambda setting: told["settings"][setting])
    told |= {"best": best, "lds": _beside(scores[best], ours, truths)}
    if SHIPPED in scores:
        told["shipped"] = _beside(scores[SHIPPED], ours, truths)
    return told


def _beside(
    theirs: Mapping[int, Scores], ours: Mapping[int, Scores], truths: Mapping[int, TaskTruth]
) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for percent in next(iter(truths.values())).subsets:
        found = {seed: truths[seed].subsets[percent] for seed in theirs}
        mine, other = (np.concatenate([found[seed].predicted(side[seed]) for seed in found]) for side in (ours, theirs))
        ahead = paired_spearman(mine, other, np.concatenate([found[seed].mean for seed in found]))
        ahead = across_runs(
            ahead, [of.correlation(ours[seed]) - of.correlation(theirs[seed]) for seed, of in found.items()]
        )
        cells[percent] = {"own_run": plain(_own_lds(percent, theirs, truths)), "ahead": plain(ahead)}
    return cells


_CARD = ("seconds", "trainings", "bytes_per_record")


def _must(job: Job, name: str) -> Scores:
    found = job.scores(name)
    if found is None:
        raise PoaError(f"{job.folder} holds no {name}: run the job again")
    return found


def _own_lds(percent: str, scores: Mapping[int, Scores], truths: Mapping[int, TaskTruth]) -> Interval:
    """Mean over seeds of the LDS of a run's scores against the truth of its own seed."""
    return _lds([(truths[seed].subsets[percent], found) for seed, found in scores.items()])


def _each_seed(percent: str, pooled: Scores, truths: Mapping[int, TaskTruth]) -> Interval:
    """Mean over seeds of the LDS of an ensemble against the truth of one seed, none of which it has seen."""
    return _lds([(truth.subsets[percent], pooled) for truth in truths.values()])


def _lds(pairs: Sequence[tuple[SubsetTruth, Scores]]) -> Interval:
    """Mean over truths, over the queries of all of them at once, at least as uncertain as the truths differ."""
    predicted = np.concatenate([truth.predicted(scores) for truth, scores in pairs])
    found = two_way_spearman(predicted, np.concatenate([truth.mean for truth, _ in pairs]))
    return across_runs(found, [truth.correlation(scores) for truth, scores in pairs])


def _contributors(
    scores: Mapping[int, Scores], pooled: Scores | None, payees: Scores | None, truth: TaskTruth
) -> dict[str, Any]:
    """Against the mean over seeds: of the ensemble where there is one, else of the mean of the runs themselves."""
    if pooled is None:
        parts = list(scores.values())
        pooled = Scores(
            np.mean([part.values for part in parts], 0), parts[0].query_ids, parts[0].train_ids, parts[0].groups
        )
    told: dict[str, Any] = {"left_out_spearman": plain(truth.left_out.agreement(pooled))}
    if truth.shapley is not None:
        told["shapley_spearman"] = plain(truth.shapley.agreement(pooled))
        told["payout_tv"] = plain(payout_interval(truth.shapley, pooled))
        told["payout_tv_printed"] = printed_error(truth.shapley, pooled)
    if payees is not None and payees.stderr is not None:
        told["intervals"] = crossed(payees, truth.contributors.mean)
    return told


def _single(every: Sequence[Job]) -> dict[str, float]:
    """Means over seeds of what single jobs measured."""
    found: dict[str, list[float]] = {}
    for job in every:
        for row in read_rows(job.folder / ROWS):
            if row["quantity"] in SINGLE and row["scope"] == OWN:
                found.setdefault(row["quantity"], []).append(row["value"])
    return {name: float(np.mean(values)) for name, values in found.items()}


def plain(interval: Interval) -> dict[str, float]:
    """As JSON."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _divided(interval: Interval, ceiling: float) -> dict[str, float]:
    """LDS over ceiling; the ceiling's own error is not in it."""
    return {name: value / ceiling for name, value in plain(interval).items()} if ceiling > 0 else {}
