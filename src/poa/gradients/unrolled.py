"""UnrolledIndex: the derivative of queries' measurements by record weights, through the whole training as a program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import Mismatch, PoaError, Unsupported
from poa.gradients.probes import probed
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.protocols import Programmed
from poa.records import Corpus, require_corpus
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.gradients.program import Program
    from poa.protocols import TrainingRun

KIND = "unrolled"
# Relative distance of the program's measurements to those of the run that it stands for: rounding through all steps.
NEAR = {"float32": 1e-2, "float64": 1e-8}
Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnrolledIndex(Pretrained):
    """Nothing is stored but the settings: training is run and reversed when queries are asked, `stack` at a time.

    smooth: the least metasmoothness (`HalfSteps`) at which a derivative is answered, 0 = not asked. probes: how
    many reversals answer all queries that are asked together (`poa.gradients.probes`), None = one for each.
    """

    run: TrainingRun
    method: str
    stack: int | None
    smooth: float
    seed: int
    probes: int | None = None

    @property
    def run_digest(self) -> str:
        return self.run.digest

    @cached_property
    def _programmed(self) -> tuple[Programmed, Program]:
        """Kept, because making it opens the run's model."""
        return programmed(self.run)

    def attribute(self, queries: Corpus) -> Scores:
        require_corpus(queries, "queries")
        columns = Columns.of(self.run)
        if len(queries) == 0:
            none = np.zeros((0, len(columns.train_ids)))
            return Scores(
                none, (), columns.train_ids, columns.groups, "nats", self.method, meta={"run": self.run.digest}
            )
        given, program = self._programmed
        asked = given.arrays(queries)
        meta: dict[str, Any] = {"run": self.run.digest, "steps": self.run.steps.steps}
        steps = HalfSteps.of(program, given.weights, asked, self.seed) if self.smooth > 0 else None
        if steps is not None:
            meta["metasmoothness"] = steps.smoothness
            meta["metasmoothness_by_query"] = steps.of_queries.tolist()
            _require_smooth(steps, self.smooth)
        if self.probes is not None and self.probes < len(queries):
            found = probed(program, given.weights, asked, self.probes, self.stack)
            values, slopes = found.values, found.slopes
            meta |= {"probes": self.probes, "kept": found.kept}
        else:
            values, slopes = program.metagradient(given.weights, asked, self.stack)
        if not np.isfinite(slopes).all():
            raise PoaError("the metagradient is not finite: the training is not smooth where it went")
        if steps is not None:
            meta["unforetold"] = _foretelling(steps, slopes)
        meta["measured"] = stands_for(self.run, queries, values, program.dtype)
        return Scores(slopes, queries.ids, columns.train_ids, columns.groups, "nats", self.method, meta=meta)

    def save(self, folder: str | Path) -> None:
        told = {"method": self.method, "stack": self.stack, "smooth": self.smooth, "seed": self.seed}
        told |= {"probes": self.probes}
        save_index(Path(folder), KIND, {}, {"columns": Columns.of(self.run).plain(), **told})

    @staticmethod
    def load(folder: str | Path, run: TrainingRun) -> UnrolledIndex:
        """Read what `save` wrote. Raises `Mismatch` for another kind or run, `Corrupt` for changed bytes."""
        _, _, meta = load_columns(Path(folder), KIND, run)
        return UnrolledIndex(run, meta["method"], meta["stack"], meta["smooth"], meta["seed"], meta["probes"])


def programmed(run: object) -> tuple[Programmed, Program]:
    """(the run, its program); raises `Unsupported` where it has none or trains in less than float32."""
    found = offering(run)
    program = found.program()
    if program.dtype not in NEAR:
        raise Unsupported(f"a training in {program.dtype} is not differentiated: rounding outweighs what a record does")
    return found, program


def offering(run: object) -> Programmed:
    """`run`, if it offers a program; raises `Unsupported` otherwise."""
    if not isinstance(run, Programmed):
        raise Unsupported("this run is no program of arrays: only trainings of poa's own can be differentiated whole")
    return run


@dataclass(frozen=True, eq=False)
class HalfSteps:
    """Trainings on the way to random removals: `rows` [2 draws, N] record weights, and what was measured.

    full [Q] at the run's own weights; half, whole [draws, Q] with the removed records' weights halved and at zero.
    """

    weights: Matrix64
    rows: Matrix64
    full: Matrix64
    half: Matrix64
    whole: Matrix64

    @staticmethod
    def of(
        program: Program, weights: Matrix64, queries: Any, seed: int = 0, *, removed: float = 0.05, draws: int = 8
    ) -> HalfSteps:
        """2 draws + 1 trainings; each of `draws` removes a random fraction `removed` of the records."""
        rng = np.random.default_rng(seed)
        count = max(1, round(removed * len(weights)))
        rows: list[Matrix64] = []
        for _ in range(draws):
            gone = rng.choice(len(weights), count, replace=False)
            for factor in (0.5, 0.0):
                row = np.array(weights, np.float64)
                row[gone] *= factor
                rows.append(row)
        values = program.measured(np.stack([weights, *rows]), queries)
        return HalfSteps(weights, np.stack(rows), values[0], values[1::2], values[2::2])

    @property
    def smoothness(self) -> float:
        """Mean agreement in sign of the two half steps: 1 where measurements are linear in the weights.

        Signs are weighted by the size of the first change (the empirical metasmoothness of Engstrom et al. 2025, arXiv
        2503.13751, with queries as coordinates).
        """
        agreed, size = self._agreement
        return float(agreed.sum() / size.sum()) if size.sum() > 0 else 0.0

    @property
    def of_queries(self) -> Matrix64:
        """[Q] the same of each query. The training is what is judged, over all queries asked: one may be rougher."""
        agreed, size = self._agreement
        return agreed / np.where(size > 0, size, 1.0)

    @property
    def _agreement(self) -> tuple[Matrix64, Matrix64]:
        first, second = self.half - self.full, self.whole - self.half
        return (np.abs(first) * np.sign(first) * np.sign(second)).sum(0), np.abs(first).sum(0)

    def unforetold(self, slopes: Matrix64) -> float:
        """How far the first half steps are from what `slopes` [Q, N] foretell, relative to their size; 1 = as if the
        slopes were zero. A training may be smooth at the size of a removal and have cusps between: there the derivative
        is exact and says nothing (AdamW with a tiny eps, where coordinates without much of a gradient turn over).
        """
        foretold = (self.rows[::2] - self.weights) @ slopes.T
        size = np.linalg.norm(self.half - self.full)
        return float(np.linalg.norm(self.half - self.full - foretold) / size) if size > 0 else 0.0


def _require_smooth(steps: HalfSteps, least: float) -> None:
    if steps.smoothness < least:
        raise Unsupported(
            f"this training is not smooth in its records' weights (metasmoothness {steps.smoothness:.3f}, at least "
            f"{least} is asked for): a derivative would not say what removal does; use larger batches or a smaller "
            "rate, or smooth=0"
        )


def _foretelling(steps: HalfSteps, slopes: Matrix64) -> float:
    error = steps.unforetold(slopes)
    if error >= 1:
        raise Unsupported(
            f"the derivative foretells half a removal worse than no change at all would (error {error:.2f} of its "
            "size): this training has cusps between its records' weights; use a larger eps of AdamW, larger batches or "
            "a smaller rate, or smooth=0"
        )
    return error


def stands_for(run: TrainingRun, queries: Corpus, values: Matrix64, dtype: str) -> float:
    """Largest relative distance to the run's own measurements; raises `Mismatch` where it is more than rounding."""
    import torch

    model = run.model()
    with torch.no_grad():
        own = [float(run.task.measurement(model, run.task.batch([query]))[0]) for query in queries]
    gap = float((np.abs(values - own) / np.maximum(1.0, np.abs(own))).max(initial=0.0))
    if not gap <= NEAR[dtype]:
        raise Mismatch(f"the program ends {gap:.1e} away from the measurements of the run that it should stand for")
    return gap
