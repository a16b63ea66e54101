"""What every index has in common: the train columns of its scores, and a checked folder on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch, MissingExtra, PoaError
from poa.files import atomic_folder, write_atomic
from poa.records import Corpus, require_corpus
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

SCHEMA = "poa.index/1"
Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

_ARRAYS = "arrays.safetensors"
_MANIFEST = "manifest.json"
_PART = "rule"
# What can run code when it is opened has no place in an index.
_NEVER = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.py")


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
        require_corpus(queries, "queries")
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


class Pretrained(Protocol):
    """`save` and `load` under the names that Hugging Face made familiar; an index class inherits it."""

    @property
    def run_digest(self) -> str: ...

    def save(self, folder: Path) -> None: ...

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> Any: ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the index and a card (README.md) for it; an index in `folder` is replaced, anything else refused."""
        self.save(Path(folder))
        write_atomic(Path(folder) / "README.md", _card(Path(folder), self).encode())

    @classmethod
    def from_pretrained(cls, source: str | Path, run: TrainingRun, *, revision: str | None = None) -> Self:
        """Read an index from a folder or from a repository on the Hugging Face hub ("owner/name").

        `run` is the training run that it was fitted on: an index does not carry the model and is refused (`Mismatch`)
        for any other. Raises `Corrupt` for altered bytes and `PoaError` where the hub does not deliver.
        """
        return cls.load(local_folder(source, revision), run)


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """`source` if it is a folder, else the hub repository of that name ("owner/name"), downloaded or from its cache."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise PoaError(f"{name} holds no index: it is neither a folder nor a hub name (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{name!r} is no folder; to look on the hub: pip install 'poa[hub]'") from error
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=list(_NEVER)))
    except Exception as error:  # the hub client raises many unrelated types for "cannot be reached"
        raise PoaError(f"{name!r} is no folder here and the hub did not deliver it: {error}") from error


def described(folder: Path) -> Path:
    """Where the manifest is: an index of several parts keeps the one that names its kind in a folder of its own."""
    return folder / _PART if (folder / _PART / _MANIFEST).is_file() else folder


def kind_of(folder: Path) -> str:
    """Which kind of index `folder` holds. Raises `PoaError` where it holds none, `Corrupt` for a broken manifest."""
    return str(_manifest(described(folder))["kind"])


def _card(folder: Path, index: Pretrained) -> str:
    body = _manifest(described(folder))
    method = getattr(index, "method", "")
    said = method if isinstance(method, str) else repr(method)
    count = len(body["meta"].get("columns", {}).get("train_ids", ()))
    return f"""---
library_name: poa
tags:
- data-attribution
---
# Attribution index

`{said}` on {count} training records, kind `{body["kind"]}`.

It belongs to the training run `{index.run_digest}` and is refused for any other:

```python
import poa

index = poa.load_index("this folder", poa.load_run("the run"))
index.attribute(queries).top(5)
```
"""


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
