"""LinearIndex: every method whose score is linear in the query's features, as one matrix per checkpoint.

score(q, i) = sum_c <T_c[i], f_c(v_c(q))> with v_c(q) the query gradient at checkpoint c, f_c the lens through which it
is looked at, and T_c the training rows after projection, preconditioning, normalisation and weighting. GradDot, cosine,
TracIn, damped influence, DataInf, LoGra, K-FAC, TRAK, LESS and TrackStar differ only in T_c and f_c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.gradients.eigenbases import KroneckerInverse
from poa.gradients.lens import Lens
from poa.gradients.projection import projection_of
from poa.gradients.store import Gradients, gradients
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.gradients.projection import Projection
    from poa.protocols import TrainingRun
    from poa.records import Corpus

Matrix = npt.NDArray[np.floating[Any]]
KIND = "linear"


@dataclass(frozen=True, eq=False)
class LinearIndex(Pretrained):
    """maps: one [N, k] matrix per entry of `positions` (indices into `run.checkpoints`), in the model's dtype.

    lenses: how a query is looked at, one per position; they share their projection. side: which number of a query is
    differentiated, see `poa.gradients.outputs`.
    """

    run: TrainingRun
    method: str
    positions: tuple[int, ...]
    maps: tuple[Matrix, ...]
    lenses: tuple[Lens, ...]
    side: str = "query"
    unit: str = "uncalibrated"
    notes: Mapping[str, Any] | None = None
    coordinates: str = "adapter"

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def attribute(self, queries: Corpus) -> Scores:
        """One matrix-vector product per query and checkpoint, so a score does not depend on its neighbours."""
        total = np.zeros((len(queries), len(self.run.corpus)), np.float64)
        residuals: list[float] = []
        for position, train, lens in zip(self.positions, self.maps, self.lenses, strict=True):
            rows = gradients(self.run, position, queries, self.side, self.coordinates)
            features, found = lens.certified(rows)
            residuals += found
            for row, feature in zip(total, features, strict=True):
                row += train @ feature
        return Scores(
            total.astype(np.float32) if self.maps[0].dtype == np.float32 else total,
            queries.ids,
            self.run.corpus.ids,
            self.run.groups,
            self.unit,
            self.method,
            meta={"run": self.run.digest, "dtype": str(self.maps[0].dtype)}
            | ({"residual": residuals} if residuals else {})
            | dict(self.notes or {}),
        )

    def directions(self, train_ids: Sequence[str] | None = None) -> tuple[Matrix, ...]:
        """Per checkpoint the sum of the rows of some training records (all by default).

        Its inner product with a query's features is the sum of their scores. Raises `PoaError` for an unknown id.
        """
        places = slice(None) if train_ids is None else [self._place(name) for name in train_ids]
        return tuple(train[places].sum(0, dtype=np.float64) for train in self.maps)

    def _place(self, train_id: str) -> int:
        if train_id not in self.run.corpus.ids:
            raise PoaError(f"no training record {train_id!r} in this index")
        return self.run.corpus.ids.index(train_id)

    def save(self, folder: str | Path) -> None:
        first = self.lenses[0]
        arrays = {f"map{i}": np.asarray(m) for i, m in enumerate(self.maps)}
        for name in ("scale", "whitening"):
            parts = {f"{name}{i}": getattr(lens, name) for i, lens in enumerate(self.lenses)}
            arrays |= {key: np.asarray(part) for key, part in parts.items() if part is not None}
        for i, lens in enumerate(self.lenses):
            kept = {} if lens.inverse is None else lens.inverse.arrays()
            arrays |= {f"inverse{i}.{key}": part for key, part in kept.items()}
        meta = {
            "columns": Columns.of(self.run).plain(),
            "method": self.method,
            "positions": list(self.positions),
            "projection": None if first.projection is None else _plain(first.projection),
            "unit_query": first.unit,
            "side": self.side,
            "unit": self.unit,
            "coordinates": self.coordinates,
            "notes": dict(self.notes or {}),
        }
        save_index(Path(folder), KIND, arrays, meta)

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> LinearIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, arrays, meta = load_columns(Path(folder), KIND, run)
        projection = None if meta["projection"] is None else projection_of(meta["projection"])
        count = len(meta["positions"])
        return LinearIndex(
            run,
            meta["method"],
            tuple(meta["positions"]),
            tuple(arrays[f"map{i}"] for i in range(count)),
            tuple(
                Lens(
                    projection,
                    arrays.get(f"scale{i}"),
                    arrays.get(f"whitening{i}"),
                    meta["unit_query"],
                    _inverse(arrays, f"inverse{i}."),
                )
                for i in range(count)
            ),
            meta["side"],
            meta["unit"],
            meta["notes"],
            meta["coordinates"],
        )


def _plain(projection: Projection) -> dict[str, Any]:
    return {"kind": projection.kind, "settings": asdict(projection)}  # type: ignore[call-overload]


def _inverse(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> KroneckerInverse | None:
    mine = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    return KroneckerInverse.read(mine) if mine else None


def fit_linear(
    run: TrainingRun,
    method: object,
    checkpoints: str,
    train_map: Callable[[Gradients, int], Matrix],
    *,
    lens: Lens | Callable[[int], Lens] | None = None,
    side: str = "train",
    unit: str = "uncalibrated",
    notes: Mapping[str, Any] | None = None,
    coordinates: str = "adapter",
) -> LinearIndex:
    """Build an index from `train_map(gradients, position) -> T [N, k]` at the last or all checkpoints.

    `lens` is how queries are looked at, everywhere or by position (default: as they are); `side` is "train" or
    "train-margin" (queries likewise).
    Maps are stored row by row: another memory order would sum a score in another order.
    """
    positions = positions_of(run, checkpoints)
    maps = tuple(
        np.ascontiguousarray(train_map(rows, position), rows.values.dtype)
        for position in positions
        for rows in [gradients(run, position, run.corpus, side, coordinates)]
    )
    lenses = tuple(lens(position) if callable(lens) else lens or Lens() for position in positions)
    asked = side.replace("train", "query")
    return LinearIndex(run, repr(method), positions, maps, lenses, asked, unit, notes, coordinates)


def positions_of(run: TrainingRun, checkpoints: str) -> tuple[int, ...]:
    """Checkpoint positions that a method reads: "last" or "all"."""
    if checkpoints not in ("last", "all"):
        raise Unsupported(f"checkpoints is {checkpoints!r}, must be last or all")
    return tuple(range(len(run.checkpoints))) if checkpoints == "all" else (len(run.checkpoints) - 1,)
