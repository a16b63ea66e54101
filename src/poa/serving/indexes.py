"""Fitted indexes of a run: made once, kept under the run's cache, opened again; or opened from a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poa import methods
from poa.digests import file_digest, plain_digest
from poa.errors import Corrupt, Mismatch, PoaError

if TYPE_CHECKING:
    from poa.factory.run import LoRARun
    from poa.protocols import Index, TrainingRun

_HOMES: Mapping[str, tuple[str, str]] = {
    "linear": ("poa.gradients.linear", "LinearIndex"),
    "bm25": ("poa.methods.bm25", "BM25Index"),
    "captum": ("poa.methods.captum_tracin", "CaptumIndex"),
    "knn-shapley": ("poa.methods.knn_shapley", "KNNShapleyIndex"),
    "random": ("poa.methods.random", "RandomIndex"),
    "repsim": ("poa.methods.repsim", "RepSimIndex"),
    "spans": ("poa.methods.spans", "SpansIndex"),
}


_MANIFEST, _PART = "manifest.json", "rule"


@dataclass(frozen=True, eq=False)
class Fitted:
    """One method's index of one run. name: as configured; identity: with settings; digest: of the stored index."""

    name: str
    identity: str
    channel: str
    digest: str
    index: Index


def fitted(name: str, run: LoRARun, query_run: TrainingRun) -> Fitted:
    """The index of method `name` with its default settings, fitted on `run` if it is not kept yet.

    `query_run` is the same run with another cache: what queries leave behind goes there. Raises `PoaError` for an
    unknown method, with the nearest name.
    """
    method = methods.method(name)
    folder = run.cache / "indexes" / plain_digest([1, type(method).__module__, repr(method), run.digest])[:24]
    if not (_described(folder) / _MANIFEST).is_file():
        method.fit(run).save(folder)
    return opened(folder, query_run, name)


def opened(folder: Path, run: TrainingRun, name: str | None = None) -> Fitted:
    """The index that `index.save(folder)` wrote.

    Raises `Mismatch` for an index of another run or of no known kind, `Corrupt` for altered bytes.
    """
    described = _described(folder)
    kind = _kind(described / _MANIFEST)
    if kind not in _HOMES:
        raise Mismatch(f"{folder} holds an index of kind {kind!r}, must be one of {', '.join(_HOMES)}")
    module, cls = _HOMES[kind]
    index: Any = getattr(import_module(module), cls).load(folder, run)
    identity = index.method if isinstance(index.method, str) else repr(index.method)
    family = {made.__name__: (known, made.family) for known, made in methods.available().items()}
    known, channel = family[identity.partition("(")[0]]
    return Fitted(name or known, identity, str(channel), file_digest(described / _MANIFEST), index)


def _described(folder: Path) -> Path:
    """Where the manifest is: an index of several parts keeps the one that names its kind in a folder of its own."""
    return folder / _PART if (folder / _PART / _MANIFEST).is_file() else folder


def _kind(path: Path) -> str:
    """What the manifest says, unchecked: loading checks it together with everything else."""
    try:
        return str(json.loads(path.read_bytes())["body"]["kind"])
    except OSError as error:
        raise PoaError(f"{path.parent} holds no index: {path.name}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is not an index manifest") from error
