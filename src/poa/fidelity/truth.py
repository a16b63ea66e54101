"""The truth of a task at one seed: subset retrainings per removed fraction, and values of contributors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch
from poa.evaluation.contributors import ContributorTruth, leave_one_out
from poa.evaluation.shapley import exact_shapley
from poa.evaluation.subsets import SubsetTruth, subset_truth
from poa.fidelity.tasks import FidelityTask, Run
from poa.files import alone, cache_home, write_atomic

SCHEMA = "poa.fidelity-truth/1"


@dataclass(frozen=True, eq=False)
class TaskTruth:
    """subsets: by percent removed. shapley (None where a task asks for none) and left_out: effects of contributors."""

    subsets: Mapping[str, SubsetTruth]
    shapley: ContributorTruth | None
    left_out: ContributorTruth

    @property
    def contributors(self) -> ContributorTruth:
        """The exact Shapley values, else what leaving one contributor out costs."""
        return self.left_out if self.shapley is None else self.shapley

    @staticmethod
    def of(task: FidelityTask, run: Run, seeds: Sequence[int]) -> TaskTruth:
        """Retrain; whoever asks for the same truth meanwhile waits for it instead of training too."""
        with alone(cache_home() / "truths" / plain_digest([run.digest, task.queries.digest])):
            subsets = {
                percent: subset_truth(run, task.queries, removed=float(percent) / 100, subsets=count, seeds=seeds)
                for percent, count in task.removed.items()
            }
            shapley = exact_shapley(run, task.queries, seeds) if task.coalitions else None
            return TaskTruth(subsets, shapley, leave_one_out(run, task.queries, seeds=seeds))

    @staticmethod
    def joined(parts: Sequence[TaskTruth]) -> TaskTruth:
        """Truths of several seeds as one; raises `Mismatch` where they are not of the same task."""
        first = parts[0]
        subsets = {percent: _subsets([part.subsets[percent] for part in parts]) for percent in first.subsets}
        values = [part.shapley for part in parts if part.shapley is not None]
        return TaskTruth(subsets, _values(values) if values else None, _values([part.left_out for part in parts]))

    def save(self, path: Path) -> None:
        """One file of arrays with a manifest; equal truths are equal bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        head: dict[str, Any] = {"schema": SCHEMA, "subsets": {}, "contributors": {}}
        for percent, truth in self.subsets.items():
            arrays |= {
                f"subsets/{percent}/masks": truth.masks.astype(np.uint8),
                f"subsets/{percent}/values": truth.values,
            }
            head["subsets"][percent] = {"removed": truth.removed, "seeds": list(truth.seeds)}
            head |= {"queries": list(truth.query_ids), "records": list(truth.train_ids)}
        for name, found in self._named().items():
            arrays |= {f"{name}/effects": found.effects, f"{name}/full": found.full}
            told = {"contributors": list(found.contributors), "queries": list(found.query_ids)}
            head["contributors"][name] = told | {"seeds": list(found.seeds)}
        write_atomic(path, _packed(arrays, head))

    @staticmethod
    def load(path: Path) -> TaskTruth:
        """Read what `save` wrote; raises `Corrupt` for other bytes and `Mismatch` for another schema."""
        arrays, head = _unpacked(path)
        subsets = {
            percent: SubsetTruth(
                arrays[f"subsets/{percent}/masks"].astype(np.float64),
                arrays[f"subsets/{percent}/values"],
                tuple(told["seeds"]),
                tuple(head["queries"]),
                tuple(head["records"]),
                float(told["removed"]),
            )
            for percent, told in head["subsets"].items()
        }
        found = {
            name: ContributorTruth(
                arrays[f"{name}/effects"],
                arrays[f"{name}/full"],
                tuple(told["contributors"]),
                tuple(told["queries"]),
                tuple(told["seeds"]),
            )
            for name, told in head["contributors"].items()
        }
        return TaskTruth(subsets, found.get("shapley"), found["left_out"])

    def _named(self) -> dict[str, ContributorTruth]:
        return {"left_out": self.left_out} | ({} if self.shapley is None else {"shapley": self.shapley})


def _packed(arrays: Mapping[str, npt.NDArray[Any]], head: Mapping[str, Any]) -> bytes:
    """A line of JSON, then the arrays in the order of their names."""
    order = sorted(arrays)
    bodies = [np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<")).tobytes() for name in order]
    told = [[name, arrays[name].dtype.newbyteorder("<").str, list(arrays[name].shape)] for name in order]
    body = b"".join(bodies)
    return json.dumps({**head, "arrays": told, "digest": sha256(body)}, sort_keys=True).encode() + b"\n" + body


def _unpacked(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        head: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise Corrupt(f"{path} does not begin with a manifest") from error
    if head.get("schema") != SCHEMA:
        raise Mismatch(f"{path} has schema {head.get('schema')!r}, must be {SCHEMA!r}")
    if sha256(body) != head["digest"]:
        raise Corrupt(f"{path} does not have the digest that its manifest promises")
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, kind, shape in head["arrays"]:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(body, kind, count, start).reshape(shape)
        start += count * np.dtype(kind).itemsize
    return arrays, head


def _subsets(parts: Sequence[SubsetTruth]) -> SubsetTruth:
    first = parts[0]
    for other in parts[1:]:
        if (other.query_ids, other.train_ids) != (first.query_ids, first.train_ids):
            raise Mismatch("truths of other records or queries cannot be joined")
        if not np.array_equal(other.masks, first.masks):
            raise Mismatch("truths over other subsets cannot be joined")
    values = np.concatenate([part.values for part in parts])
    seeds = tuple(seed for part in parts for seed in part.seeds)
    return SubsetTruth(first.masks, values, seeds, first.query_ids, first.train_ids, first.removed)


def _values(parts: Sequence[ContributorTruth]) -> ContributorTruth:
    first = parts[0]
    for other in parts[1:]:
        if (other.query_ids, other.contributors) != (first.query_ids, first.contributors):
            raise Mismatch("truths of other contributors or queries cannot be joined")
    effects, full = (np.concatenate([getattr(part, name) for part in parts]) for name in ("effects", "full"))
    seeds = tuple(seed for part in parts for seed in part.seeds)
    return ContributorTruth(effects, full, first.contributors, first.query_ids, seeds)
