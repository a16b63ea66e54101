"""Fitted indexes of a run: made once, kept under the run's cache, opened again; or opened from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poa import methods
from poa.digests import file_digest, plain_digest
from poa.indexes import described

if TYPE_CHECKING:
    from poa.factory.run import LoRARun
    from poa.protocols import Index, TrainingRun

_MANIFEST = "manifest.json"


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
    if not (described(folder) / _MANIFEST).is_file():
        method.fit(run).save(folder)
    return opened(folder, query_run, name)


def opened(folder: Path, run: TrainingRun, name: str | None = None) -> Fitted:
    """The index that `index.save(folder)` wrote.

    Raises `Mismatch` for an index of another run or of no known kind, `Corrupt` for altered bytes.
    """
    index = methods.load_index(folder, run)
    identity = index.method if isinstance(index.method, str) else repr(index.method)
    family = {made.__name__: (known, made.family) for known, made in methods.available().items()}
    known, channel = family[identity.partition("(")[0]]
    return Fitted(name or known, identity, str(channel), file_digest(described(folder) / _MANIFEST), index)
