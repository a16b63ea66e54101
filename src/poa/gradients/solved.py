"""SolvedIndex: influence whose inverse curvature is applied to the queries, by a solver, when they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from poa.errors import Mismatch, PoaError, Unsupported
from poa.gradients.astra import Astra
from poa.gradients.curvature import gram, mean_eigenvalue, settled
from poa.gradients.damping import NOTHING
from poa.gradients.eigenbases import KroneckerInverse
from poa.gradients.kronecker import kronecker
from poa.gradients.krylov import CG, BlockCG, Solution
from poa.gradients.operators import GaussNewton, Operator, Rows
from poa.gradients.passes import Fisher
from poa.gradients.solvers import Arnoldi, Explicit, LiSSA, Nystrom
from poa.gradients.store import Gradients, gradients
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus

KIND = "solved"
CURVATURES = ("gauss-newton", "fisher")
Matrix = npt.NDArray[np.floating[Any]]


class Solver(Protocol):
    """A frozen dataclass of plain settings."""

    def solve(self, operator: Operator, lam: float, rows: Matrix) -> Solution: ...


SOLVERS: Mapping[str, type[Any]] = {
    "explicit": Explicit,
    "cg": CG,
    "block_cg": BlockCG,
    "lissa": LiSSA,
    "arnoldi": Arnoldi,
    "nystrom": Nystrom,
    "astra": Astra,
}
Plain: TypeAlias = dict[str, Any]


@dataclass(frozen=True, eq=False)
class SolvedIndex(Pretrained):
    """score(q, i) = v_q^T (H + lambda)^-1 u_i / N, mean over checkpoint `positions`.

    curvature: "gauss-newton" or "fisher" (the empirical one); lambdas: one per position, in the units of H. solver: a
    value of `SOLVERS`. preconditioned: the EK-FAC inverse at the same lambda, from so many draws of labels a
    record, goes in front; 0 = nothing does. Nothing but settings is stored: rows of gradients and curvature belong to
    the run's cache.
    """

    run: TrainingRun
    method: str
    positions: tuple[int, ...]
    lambdas: tuple[float, ...]
    solver: Solver
    curvature: str = "gauss-newton"
    preconditioned: int = 0
    coordinates: str = "adapter"
    notes: Mapping[str, Any] | None = None

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def attribute(self, queries: Corpus) -> Scores:
        """One solve per query and checkpoint; residuals and products of a row by the curvature travel along."""
        total = np.zeros((len(queries), len(self.run.corpus)), np.float64)
        residuals: list[float] = []
        products = 0
        dtype = np.dtype(np.float64)
        for position, lam, operator in zip(self.positions, self.lambdas, self._operators, strict=True):
            train = self._rows(position, self.run.corpus, "train").values
            asked = self._rows(position, queries, "query").values
            found = self._solved(position, operator, lam, asked)
            residuals += found.residuals.tolist()
            products += found.products
            dtype = train.dtype
            for row, direction in zip(total, found.values.astype(train.dtype), strict=True):
                row += train @ direction / (len(train) * len(self.positions))
        meta = {"run": self.run.digest, "residual": residuals, "products": products, "lambda": list(self.lambdas)}
        values = total.astype(np.float32) if dtype == np.float32 else total
        columns = Columns.of(self.run)
        told = meta | dict(self.notes or {})
        return Scores(values, queries.ids, columns.train_ids, columns.groups, "uncalibrated", self.method, meta=told)

    def _solved(self, position: int, operator: Operator, lam: float, rows: Matrix) -> Solution:
        if not self.preconditioned:
            return self.solver.solve(operator, lam, rows)
        curvature = kronecker(self.run, (position,), Fisher(draws=self.preconditioned), corrected=True)
        front = KroneckerInverse(tuple(curvature.values()), lam).times
        made: Any = self.solver
        return made.solve(operator, lam, rows, front)

    @cached_property
    def _operators(self) -> tuple[Operator, ...]:
        return tuple(operator_of(self.run, position, self.curvature, self.coordinates) for position in self.positions)

    def _rows(self, position: int, records: Corpus, side: str) -> Gradients:
        return gradients(self.run, position, records, side, self.coordinates)

    def save(self, folder: str | Path) -> None:
        kind = next(name for name, made in SOLVERS.items() if type(self.solver) is made)
        settings: Any = self.solver
        meta: Plain = {
            "columns": Columns.of(self.run).plain(),
            "method": self.method,
            "positions": list(self.positions),
            "lambdas": list(self.lambdas),
            "solver": {"kind": kind, "settings": asdict(settings)},
            "curvature": self.curvature,
            "preconditioned": self.preconditioned,
            "coordinates": self.coordinates,
            "notes": dict(self.notes or {}),
        }
        save_index(Path(folder), KIND, {}, meta)

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> SolvedIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, _, meta = load_columns(Path(folder), KIND, run)
        named = meta["solver"]
        if named["kind"] not in SOLVERS:
            raise Mismatch(f"solver {named['kind']!r} is not known; known are {', '.join(SOLVERS)}")
        return SolvedIndex(
            run,
            meta["method"],
            tuple(meta["positions"]),
            tuple(meta["lambdas"]),
            SOLVERS[named["kind"]](**named["settings"]),
            meta["curvature"],
            meta["preconditioned"],
            meta["coordinates"],
            meta["notes"],
        )


def operator_of(run: TrainingRun, position: int, curvature: str, coordinates: str = "adapter") -> Operator:
    """The curvature of the mean training loss at one checkpoint."""
    if curvature not in CURVATURES:
        raise PoaError(f"curvature is {curvature!r}, must be {' or '.join(CURVATURES)}")
    if curvature == "fisher":
        return Rows(gradients(run, position, run.corpus, "train", coordinates).values)
    if coordinates != "adapter":
        raise Unsupported("the Gauss-Newton matrix multiplies in adapter coordinates; use curvature='fisher'")
    return GaussNewton(run, position)


def lambda_of(
    run: TrainingRun, position: int, curvature: str, damping: float | None, coordinates: str
) -> tuple[float, Plain]:
    """(lambda, evidence): `damping` x trace / N of the curvature.

    The Gauss-Newton matrix has the trace and, up to sampling, the spectrum of the Fisher, which is that of gradients
    with one label drawn from the model for each record. Raises `Unsupported` where every gradient is zero.
    """
    side = "train" if curvature == "fisher" else "sampled"
    kernel = gram(gradients(run, position, run.corpus, side, coordinates).values)
    scale = mean_eigenvalue(kernel)
    if scale == 0.0:
        raise Unsupported(NOTHING)
    evidence = settled(damping, kernel)
    return evidence["damping"] * scale, evidence


def fit_solved(
    run: TrainingRun,
    method: object,
    positions: tuple[int, ...],
    solver: Solver,
    damping: float | None,
    *,
    curvature: str = "gauss-newton",
    preconditioned: int = 0,
    coordinates: str = "adapter",
) -> SolvedIndex:
    """Settle lambda at every position and make what can be made before queries are known."""
    operators = tuple(operator_of(run, position, curvature, coordinates) for position in positions)
    found = [lambda_of(run, position, curvature, damping, coordinates) for position in positions]
    notes = {"damping": [evidence for _, evidence in found]}
    lambdas = tuple(lam for lam, _ in found)
    index = SolvedIndex(run, repr(method), positions, lambdas, solver, curvature, preconditioned, coordinates, notes)
    index.__dict__["_operators"] = operators  # what `cached_property` would make again
    return index
