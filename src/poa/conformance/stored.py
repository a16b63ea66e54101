"""Laws of storage: an index on disk is the same index, belongs to its run, and cannot change unnoticed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from poa.conformance.law import ConformanceError, require, require_same_bytes
from poa.conformance.views import foreign, isolated
from poa.errors import Mismatch, PoaError
from poa.methods import load_index
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.conformance.views import RunView
    from poa.protocols import Attributor, Index, TrainingRun
    from poa.records import Corpus


@runtime_checkable
class Stored(Protocol):
    """An index that can be written to a folder and read again for its run."""

    def attribute(self, queries: Corpus) -> Scores: ...

    def save(self, folder: Path) -> None: ...

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> Index: ...


def _fitted(method: Attributor, view: RunView) -> Stored:
    index = method.fit(view)
    if not isinstance(index, Stored):
        raise ConformanceError(f"{type(index).__name__} has no save(folder) and load(folder, run)")
    return cast(Stored, index)


def save_load(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A saved index, loaded where the cache is empty, gives the same bytes; so do saved scores."""
    with tempfile.TemporaryDirectory(prefix="poa-conformance-") as place:
        folder = Path(place) / "index"
        with isolated(run) as view:
            index = _fitted(method, view)
            expected = index.attribute(queries)
            index.save(folder)
        with isolated(run) as view:
            found = index.load(folder, view).attribute(queries)
            require_same_bytes(found, expected, "loaded index")
            if type(method).__module__.startswith("poa.methods."):
                # one of poa's own: `poa.load_index` must know its kind
                require_same_bytes(load_index(folder, view).attribute(queries), expected, "poa.load_index")
            require(
                found.method == expected.method and dict(found.groups) == dict(expected.groups),
                "loaded index: method or groups differ",
            )
        expected.save(Path(place) / "scores.safetensors")
        require_same_bytes(Scores.load(Path(place) / "scores.safetensors"), expected, "loaded scores")


def foreign_run(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """An index is not loaded for a run that it was not fitted on: `Mismatch`."""
    with tempfile.TemporaryDirectory(prefix="poa-conformance-") as place, isolated(run) as view:
        index = _fitted(method, view)
        index.save(Path(place) / "index")
        try:
            index.load(Path(place) / "index", foreign(view))
        except Mismatch:
            return
    raise ConformanceError("an index was loaded for a run with another digest; load must raise Mismatch")


def tampering(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Changing one byte of any file of a saved index makes loading it a `PoaError`."""
    with tempfile.TemporaryDirectory(prefix="poa-conformance-") as place, isolated(run) as view:
        folder = Path(place) / "index"
        index = _fitted(method, view)
        index.save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
        require(bool(files), "save wrote no file")
        for path in files:
            intact = path.read_bytes()
            for at in (len(intact) // 2, len(intact) - 1):
                path.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
                _require_refused(index, folder, view, f"byte {at} of {path.relative_to(folder)}")
            path.write_bytes(intact)
        index.load(folder, view)


def _require_refused(index: Stored, folder: Path, view: RunView, what: str) -> None:
    try:
        index.load(folder, view)
    except PoaError:
        return
    raise ConformanceError(f"{what} was changed and the index loaded all the same; load must raise Corrupt")
