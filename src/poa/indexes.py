"""What every index has in common: the train columns of its scores, and a checked folder on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch, PoaError
from poa.files import atomic_folder
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus

SCHEMA = "poa.index/1"
Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

_ARRAYS = "arrays.safetensors"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Columns:
    """Whose columns an index scores: the run, its record ids in manifest order and their group labels."""

    run_digest: str
    train_ids: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(run: TrainingRun) -> Columns:
        return Columns(run.digest, run.corpus.ids, {name: tuple(labels) for name, labels in run.groups.items()})

    def scores(self, rows: Sequence[npt.NDArray[Any]], queries: Corpus, method: object, **meta: object) -> Scores:
        """Uncalibrated scores from one [train] row per query; `repr(method)` is their method."""
        values = np.stack(rows) if rows else np.zeros((0, len(self.train_ids)))
        return Scores(
            values,
            queries.ids,
            self.train_ids,
            self.groups,
            unit="uncalibrated",
            method=repr(method),
            meta={"run": self.run_digest, **meta},
        )

    def require(self, run: TrainingRun) -> None:
        """Raise `Mismatch` unless these are the columns of `run`."""
        if run.digest != self.run_digest:
            raise Mismatch(f"index belongs to run {self.run_digest}, not {run.digest}")

    def plain(self) -> dict[str, object]:
        """JSON-able form; `Columns.read` is its inverse."""
        groups = {name: list(labels) for name, labels in self.groups.items()}
        return {"run": self.run_digest, "train_ids": list(self.train_ids), "groups": groups}

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Columns:
        groups = {str(name): tuple(map(str, labels)) for name, labels in plain["groups"].items()}
        return Columns(str(plain["run"]), tuple(map(str, plain["train_ids"])), groups)


def save_index(folder: Path, kind: str, arrays: Arrays, meta: Mapping[str, object]) -> None:
    """Write `arrays` (safetensors) and a manifest with `kind`, `meta` and digests; whole or not at all.

    An index already in `folder` is replaced; a folder that holds anything else is refused with `PoaError`.
    """
    from safetensors.numpy import save

    if folder.exists() and not (folder / _MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise PoaError(f"{folder} exists and holds no index; choose an empty or new folder")
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    body = {"schema": SCHEMA, "kind": kind, "arrays": sha256(data), "meta": dict(meta)}
    # The digest covers the manifest too, so that ids and hyper-parameters cannot change unnoticed.
    manifest = json.dumps({"body": body, "digest": plain_digest(body)}, sort_keys=True, separators=(",", ":"))
    with atomic_folder(folder) as work:
        (work / _ARRAYS).write_bytes(data)
        (work / _MANIFEST).write_text(manifest, encoding="utf-8")


def load_index(folder: Path) -> tuple[str, dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """(kind, arrays, meta) of what `save_index` wrote.

    Raises `PoaError` where there is no index, `Corrupt` where bytes and digests differ and `Mismatch` for another
    schema.
    """
    from safetensors.numpy import load

    body = _manifest(folder)
    if body.get("schema") != SCHEMA:
        raise Mismatch(f"{folder} has schema {body.get('schema')!r}, must be {SCHEMA!r}")
    try:
        data = (folder / _ARRAYS).read_bytes()
    except OSError as error:
        raise Corrupt(f"{folder / _ARRAYS} cannot be read: {error.strerror or error}") from error
    if sha256(data) != body["arrays"]:
        raise Corrupt(f"{folder / _ARRAYS} does not have the digest that its manifest promises")
    return str(body["kind"]), load(data), dict(body["meta"])


def load_columns(
    folder: Path, kind: str, run: TrainingRun
) -> tuple[Columns, dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """(columns, arrays, meta) of an index of `kind` whose meta holds `Columns.plain()` under "columns".

    Raises `Mismatch` for an index of another kind or of another run than `run`, and what `load_index` raises.
    """
    found, arrays, meta = load_index(folder)
    if found != kind:
        raise Mismatch(f"{folder} holds an index of kind {found!r}, not {kind!r}")
    columns = Columns.read(meta["columns"])
    columns.require(run)
    return columns, arrays, meta


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PoaError(f"{folder} holds no index: {path.name}: {error.strerror or error}") from error
    try:
        manifest = json.loads(text.decode("utf-8"))
        body, digest = dict(manifest["body"]), str(manifest["digest"])
        intact = plain_digest(body) == digest
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is not an index manifest: {error}") from error
    if not intact:
        raise Corrupt(f"{path} does not have the digest that it promises")
    return body
