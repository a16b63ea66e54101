"""Representer points: the logits of a refitted last layer as a sum over training records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.progress import track

if TYPE_CHECKING:
    from torch import nn

    from poa.protocols import Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores

_Matrix = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Representer:
    """score(q, i) = alpha_i[y_q] <h_i, h_q>: what record i adds to the logit of the query's label.

    The last layer is fitted anew on the final model's hidden states h (with a 1 for the bias), multinomial with an L2
    term `decay` |W|^2, to a stationary point: there W = sum_i alpha_i h_i^T with
    alpha_i[c] = (1[c = y_i] - p_i[c]) / (2 decay N) (theorem 3.1), so that scores add up to the refitted logit exactly.
    Unit: logits of that layer, not nats. How far the fit is from stationary travels with the scores (`residual`:
    |W - sum_i alpha_i h_i^T| / |W|). Needs one label a record: text models are refused.
    """

    decay: float = 1e-3

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint, labels"
    cost: ClassVar[str] = "N forward passes; one logistic regression"
    citation: ClassVar[str] = (
        "Yeh et al., Representer point selection for explaining deep neural networks, NeurIPS 2018, arXiv 1811.09720"
    )

    def __post_init__(self) -> None:
        if not self.decay > 0:
            raise PoaError(f"representer.decay is {self.decay}, must be above 0: without it nothing is stationary")

    def fit(self, run: TrainingRun) -> RepresenterIndex:
        for record in run.corpus:
            if record.label < 0:
                raise Unsupported(f"representer points need a label a record, record {record.id!r} has none")
        model = run.model()
        states = np.stack([state(run.task, model, record, False) for record in track(run.corpus, "hidden states")])
        labels = np.asarray([record.label for record in run.corpus], np.int64)
        classes = _classes(run.task, model, run.corpus[0])
        # In the order of digests, so that the manifest's order cannot move a digit.
        order = np.asarray(sorted(range(len(states)), key=lambda at: (run.corpus[at].digest, run.corpus[at].id)))
        weights = refitted(states[order], labels[order], classes, self.decay)
        alphas = _alphas(states, labels, weights, self.decay)
        residual = float(np.linalg.norm(weights - alphas.T @ states) / max(np.linalg.norm(weights), 1e-300))
        return RepresenterIndex(Columns.of(run), self, states, alphas, residual, run.task, model)


@dataclass(frozen=True, eq=False)
class RepresenterIndex(Pretrained):
    """states [train, d + 1] and alphas [train, classes], float64, and the model that gives the states of queries."""

    columns: Columns
    method: Representer
    states: _Matrix
    alphas: _Matrix
    residual: float
    task: Task
    model: nn.Module

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] contributions to the refitted logit of each query's label, uncalibrated."""
        rows = [self._row(query) for query in queries]
        return self.columns.scores(rows, queries, self.method, residual=self.residual)

    def _row(self, query: Record) -> _Matrix:
        if not 0 <= query.label < self.alphas.shape[1]:
            raise PoaError(f"query {query.id!r} has label {query.label}, must be 0 to {self.alphas.shape[1] - 1}")
        similar: _Matrix = (self.states * state(self.task, self.model, query, True)).sum(axis=1)
        return similar * self.alphas[:, query.label]

    def save(self, folder: Path) -> None:
        """States and alphas; the model stays with its run."""
        meta = {"columns": self.columns.plain(), "method": asdict(self.method), "residual": self.residual}
        save_index(folder, "representer", {"states": self.states, "alphas": self.alphas}, meta)

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> RepresenterIndex:
        """Read what `save` wrote and take the model from `run`."""
        columns, arrays, meta = load_columns(folder, "representer", run)
        method = Representer(**meta["method"])
        return RepresenterIndex(
            columns, method, arrays["states"], arrays["alphas"], meta["residual"], run.task, run.model()
        )


def state(task: Task, model: nn.Module, record: Record, whole: bool) -> _Matrix:
    """[d + 1] hidden state of one record and a 1, float64."""
    import torch

    with torch.no_grad():
        hidden = task.hidden(model, task.batch([record], whole=whole))[0]
    return np.append(hidden.to(torch.float64).cpu().numpy(), 1.0)


def _classes(task: Task, model: nn.Module, record: Record) -> int:
    import torch

    from poa.gradients.outputs import predictions

    with torch.no_grad():
        return int(predictions(task, model, task.batch([record], whole=False)).logits.shape[1])


def refitted(states: _Matrix, labels: _Ints, classes: int, decay: float) -> _Matrix:
    """[classes, d + 1] argmin of mean cross entropy + `decay` |W|^2, by L-BFGS and Newton steps to rounding."""
    from scipy.optimize import minimize
    from scipy.sparse.linalg import LinearOperator, cg
    from scipy.special import log_softmax, softmax

    hits = np.eye(classes)[labels]

    def loss(flat: _Matrix) -> tuple[float, _Matrix]:
        weights = flat.reshape(classes, -1)
        logits = states @ weights.T
        value = -float((log_softmax(logits, 1) * hits).sum()) / len(states) + decay * float(flat @ flat)
        gradient = (softmax(logits, 1) - hits).T @ states / len(states) + 2 * decay * weights
        return value, gradient.ravel()

    start = np.zeros(classes * states.shape[1])
    flat: _Matrix = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "gtol": 1e-9}).x
    for _ in range(3):
        chances = softmax(states @ flat.reshape(classes, -1).T, 1)

        def times(direction: _Matrix, chances: _Matrix = chances) -> _Matrix:
            moved = states @ direction.reshape(classes, -1).T
            bent = chances * (moved - (chances * moved).sum(1, keepdims=True))
            out: _Matrix = (bent.T @ states / len(states)).ravel() + 2 * decay * direction
            return out

        made: Any = LinearOperator
        operator = made((len(flat), len(flat)), matvec=times, dtype=np.float64)
        step, _ = cg(operator, loss(flat)[1], rtol=1e-10, maxiter=1000)
        flat = flat - step
    return flat.reshape(classes, -1)


def _alphas(states: _Matrix, labels: _Ints, weights: _Matrix, decay: float) -> _Matrix:
    from scipy.special import softmax

    # One record at a time: equal records get equal bytes.
    chances = np.stack([softmax(weights @ row) for row in states])
    return (np.eye(len(weights))[labels] - chances) / (2 * decay * len(states))
