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
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.gradients.program import Program
    from poa.protocols import TrainingRun
    from poa.records import Corpus

KIND = "unrolled"
# Relative distance of the program's measurements to those of the run that it stands for: rounding through all steps.
NEAR = {"float32": 1e-2, "float64": 1e-8}
Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnrolledIndex(Pretrained):
    """Nothing is stored but the settings: training is run and reversed when queries are asked, `stack` at a time.

    smooth: the least metasmoothness (`metasmoothness`) at which a derivative is answered, 0 = not asked. probes: how
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
        columns = Columns.of(self.run)
        if len(queries) == 0:
            none = np.zeros((0, len(columns.train_ids)))
            return Scores(
                none, (), columns.train_ids, columns.groups, "nats", self.method, meta={"run": self.run.digest}
            )
        given, program = self._programmed
        asked = given.arrays(queries)
        meta: dict[str, Any] = {"run": self.run.digest, "steps": self.run.steps.steps}
        if self.smooth > 0:
            meta["metasmoothness"] = smooth = metasmoothness(program, given.weights, asked, self.seed)
            if smooth < self.smooth:
                raise Unsupported(
                    f"this training is not smooth in its records' weights (metasmoothness {smooth:.3f}, at least "
                    f"{self.smooth} is asked for): a derivative would not say what removal does; use larger batches or "
                    "a smaller rate, or smooth=0"
                )
        if self.probes is not None and self.probes < len(queries):
            found = probed(program, given.weights, asked, self.probes, self.stack)
            values, slopes = found.values, found.slopes
            meta |= {"probes": self.probes, "kept": found.kept}
        else:
            values, slopes = program.metagradient(given.weights, asked, self.stack)
        if not np.isfinite(slopes).all():
            raise PoaError("the metagradient is not finite: the training is not smooth where it went")
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


def metasmoothness(
    program: Program, weights: Matrix64, queries: Any, seed: int = 0, *, removed: float = 0.05, draws: int = 8
) -> float:
    """Mean agreement in sign of two half steps towards a removal: 1 where measurements are linear in the weights.

    For each of `draws` random sets of records (a fraction `removed`), the change of every measurement as their weights
    go from 1 to 1/2 and from 1/2 to 0; signs are weighted by the size of the first change (the empirical
    metasmoothness of Engstrom et al. 2025, arXiv 2503.13751, with queries as coordinates). 2 draws + 1 trainings.
    """
    rng = np.random.default_rng(seed)
    count = max(1, round(removed * len(weights)))
    rows = [weights]
    for _ in range(draws):
        gone = rng.choice(len(weights), count, replace=False)
        for factor in (0.5, 0.0):
            row = np.array(weights, np.float64)
            row[gone] *= factor
            rows.append(row)
    values = program.measured(np.stack(rows), queries)
    half, whole = values[1::2], values[2::2]
    first, second = half - values[0], whole - half
    size = np.abs(first).sum()
    return float((np.abs(first) * np.sign(first) * np.sign(second)).sum() / size) if size > 0 else 0.0


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
