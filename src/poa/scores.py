"""Scores: how much each training record helped each query, with axes, sign and unit in the type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poa.errors import Corrupt, Mismatch, PoaError

if TYPE_CHECKING:
    import pandas as pd

SIGN = "positive = including the record raised the measurement (it helped)"
SCHEMA = "poa.scores/2"
Array = npt.NDArray[np.floating[Any]]


class Hit(NamedTuple):
    """One entry of `Scores.top`."""

    train_id: str
    score: float


@dataclass(frozen=True, eq=False)
class Scores:
    """values[query, train].

    Shape (queries, train records or groups). Sign: positive = helped. Unit: `"nats"` where the method estimates the
    change of the measurement itself, `"uncalibrated"` where only order and relative size mean something: those may
    be shown, never paid, until `scaled` by a slope measured against retraining.
    `groups` maps "contributor", "datanet", ... to one label per train column. `stderr` has the shape of `values`.
    `meta` is plain data that travels with the scores: method identity, run digest, damping, residuals, dtype.
    """

    values: Array
    query_ids: tuple[str, ...]
    train_ids: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    unit: str = "uncalibrated"
    method: str = ""
    stderr: Array | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        shape = (len(self.query_ids), len(self.train_ids))
        if self.values.shape != shape:
            raise PoaError(f"scores have shape {self.values.shape}, ids say {shape} (query, train)")
        if self.stderr is not None and self.stderr.shape != shape:
            raise PoaError(f"standard errors have shape {self.stderr.shape}, scores {shape}")
        if self.stderr is not None and not bool((np.isfinite(self.stderr) & (self.stderr >= 0)).all()):
            raise PoaError("standard errors must be finite and 0 or more")
        if not bool(np.isfinite(self.values).all()):
            bad = np.argwhere(~np.isfinite(self.values))[0]
            raise PoaError(
                f"score of query {self.query_ids[bad[0]]!r}, record {self.train_ids[bad[1]]!r} is not finite"
            )
        for name, labels in self.groups.items():
            if len(labels) != shape[1]:
                raise PoaError(f"group {name!r} has {len(labels)} labels for {shape[1]} train columns")
        if self.unit not in ("nats", "uncalibrated"):
            raise PoaError(f"unit is {self.unit!r}, must be 'nats' or 'uncalibrated'")

    def __repr__(self) -> str:
        return f"Scores({len(self.query_ids)} queries x {len(self.train_ids)} train, {self.unit}, {self.method})"

    def __getitem__(self, query: int | str) -> Array:
        """All scores of one query, by position or id."""
        if isinstance(query, str) and query not in self.query_ids:
            raise PoaError(f"there are no scores of query {query!r}")
        return self.values[self.query_ids.index(query) if isinstance(query, str) else query]

    def top(self, k: int = 10, *, opponents: bool = False) -> list[list[Hit]]:
        """Per query the k highest (proponents) or lowest (opponents) scores; ties by position, so it is unique."""
        if k < 0:
            raise PoaError(f"k is {k}, must be 0 or more")
        order = np.argsort(self.values if opponents else -self.values, axis=1, kind="stable")[:, :k]
        return [
            [Hit(self.train_ids[j], float(row[j])) for j in picks]
            for row, picks in zip(self.values, order, strict=True)
        ]

    def by(self, group: str) -> Scores:
        """Signed sums per label of `group` ("contributor", "datanet", "cluster"), labels sorted. Nothing is clipped.

        Standard errors add up as if records were independent; those of an ensemble are not, see `Ensemble.attribute`.
        """
        if group not in self.groups:
            raise PoaError(f"no group {group!r}; these scores know {sorted(self.groups)}")
        labels = self.groups[group]
        names, codes = np.unique(np.asarray(labels), return_inverse=True)
        sums = np.zeros((len(self.query_ids), len(names)), np.float64)
        np.add.at(sums.T, codes, self.values.T.astype(np.float64))
        kept = {group: tuple(map(str, names))} | {
            other: tuple(str(np.asarray(values)[codes == c][0]) for c in range(len(names)))
            for other, values in self.groups.items()
            if other != group and all(len(set(np.asarray(values)[codes == c])) == 1 for c in range(len(names)))
        }
        errors = None
        if self.stderr is not None:
            errors = np.zeros_like(sums)
            np.add.at(errors.T, codes, self.stderr.T.astype(np.float64) ** 2)
            errors = np.sqrt(errors)
        return replace(self, values=sums, train_ids=kept[group], groups=kept, stderr=errors)

    def with_groups(self, **groups: Sequence[str]) -> Scores:
        """The same scores with further labels per train column, for `by`."""
        return replace(self, groups=dict(self.groups) | {name: tuple(labels) for name, labels in groups.items()})

    def scaled(self, slope: float, note: str) -> Scores:
        """Scores in nats: `slope` (nats per unit) was measured against retraining as `note` says."""
        errors = None if self.stderr is None else self.stderr * abs(slope)
        meta = dict(self.meta) | {"slope": slope, "calibration": note}
        return replace(self, values=self.values * slope, stderr=errors, unit="nats", meta=meta)

    def concat(self, other: Scores) -> Scores:
        """Further queries below these; train columns, unit and method must agree."""
        if self.train_ids != other.train_ids or self.unit != other.unit or self.method != other.method:
            raise Mismatch("scores can only be joined over queries: train ids, unit and method must be equal")
        errors = None
        if self.stderr is not None and other.stderr is not None:
            errors = np.concatenate([self.stderr, other.stderr])
        values = np.concatenate([self.values, other.values])
        return replace(self, values=values, query_ids=self.query_ids + other.query_ids, stderr=errors)

    def select(self, queries: Sequence[int]) -> Scores:
        """The rows at `queries`, in that order."""
        rows = np.asarray(queries, int)
        return replace(
            self,
            values=self.values[rows],
            query_ids=tuple(self.query_ids[i] for i in rows),
            stderr=None if self.stderr is None else self.stderr[rows],
        )

    @property
    def digest(self) -> str:
        """SHA-256 of ids and value bytes (little-endian, C order): equal digests are equal scores."""
        from poa.digests import plain_digest, sha256

        body = np.ascontiguousarray(self.values).astype(self.values.dtype.newbyteorder("<"), copy=False)
        return plain_digest([self.query_ids, self.train_ids, str(body.dtype), self.unit, sha256(body.tobytes())])

    def to_frame(self) -> pd.DataFrame:
        """Long form: one row per (query, train) with score and, where known, stderr."""
        import pandas as pd

        columns: dict[str, object] = {
            "query": [name for name in self.query_ids for _ in self.train_ids],
            "train": list(self.train_ids) * len(self.query_ids),
            "score": self.values.reshape(-1),
        }
        if self.stderr is not None:
            columns["stderr"] = self.stderr.reshape(-1)
        return pd.DataFrame(columns)

    def save(self, path: str | Path) -> None:
        """One safetensors file; the header carries schema, axes, sign, unit, ids, groups and meta."""
        from safetensors.numpy import save

        from poa.files import write_atomic

        tensors = {"values": np.ascontiguousarray(self.values)}
        if self.stderr is not None:
            tensors["stderr"] = np.ascontiguousarray(self.stderr)
        body = json.dumps(
            {
                "unit": self.unit,
                "method": self.method,
                "query_ids": self.query_ids,
                "train_ids": self.train_ids,
                "groups": dict(self.groups),
                "meta": dict(self.meta),
            },
            sort_keys=True,
        )
        header = {"schema": SCHEMA, "axes": "query,train", "sign": SIGN, "body": body} | {
            "digest": self.digest,
            "seal": _seal(body, self.stderr),
        }
        # One entry: safetensors writes several in an order that changes from process to process.
        write_atomic(Path(path), save(tensors, metadata={"poa": json.dumps(header, sort_keys=True)}))

    @staticmethod
    def load(path: str | Path) -> Scores:
        """Read what `save` wrote; refuses another schema or sign (`Mismatch`) and changed contents (`Corrupt`)."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as stored:
                header: dict[str, str] = json.loads((stored.metadata() or {}).get("poa", "{}"))
                if header.get("schema") != SCHEMA or header.get("sign") != SIGN:
                    raise Mismatch(f"{path} is not a {SCHEMA} file with the sign '{SIGN}'")
                names = set(stored.keys())
                values = np.asarray(stored.get_tensor("values"))
                errors = np.asarray(stored.get_tensor("stderr")) if "stderr" in names else None
        except FileNotFoundError as error:
            raise PoaError(f"{path} does not exist") from error
        except SafetensorError as error:
            raise Corrupt(f"{path} is not a readable safetensors file: {error}") from error
        if _seal(header["body"], errors) != header.get("seal"):
            raise Corrupt(f"{path}: ids, groups, meta or standard errors are not the ones that were saved")
        body = json.loads(header["body"])
        scores = Scores(
            values,
            tuple(body["query_ids"]),
            tuple(body["train_ids"]),
            {name: tuple(labels) for name, labels in body["groups"].items()},
            body["unit"],
            body["method"],
            errors,
            body["meta"],
        )
        if scores.digest != header["digest"]:
            raise Corrupt(f"{path}: values do not have the digest that the header promises")
        return scores

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(query)}</td><td>"
            + ", ".join(f"{escape(hit.train_id)} ({hit.score:+.3g})" for hit in hits)
            + "</td></tr>"
            for query, hits in zip(self.query_ids[:8], self.top(3), strict=False)
        )
        return f"<p>{escape(repr(self))}</p><table><tr><th>query</th><th>proponents</th></tr>{rows}</table>"


def _seal(body: str, stderr: Array | None) -> str:
    """SHA-256 of everything in a file that `Scores.digest` leaves out."""
    from poa.digests import plain_digest, sha256

    if stderr is None:
        return plain_digest([body])
    plain = np.ascontiguousarray(stderr).astype(stderr.dtype.newbyteorder("<"), copy=False)
    return plain_digest([body, str(plain.dtype), sha256(plain.tobytes())])
