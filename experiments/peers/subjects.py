"""What peers and poa are both run on: the same checkpoints, the same records, the same losses.

A peer sees a run through `Tables`: plain tensors, and poa's own loss and measurement of the task as functions of
parameters, so that a difference in scores is a difference between methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.protocols import TrainingRun
from poa.records import Corpus, Record

Matrix = npt.NDArray[np.floating[Any]]
Data = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Subject:
    """A run and queries about it."""

    run: TrainingRun
    queries: Corpus


def digits_subject(train: int = 320, queries: int = 24, hidden: int = 32) -> Subject:
    """An MLP 64-`hidden`-10 in float32 after each of five epochs.

    Every record is in exactly one step between two checkpoints and every batch is full, so that TracIn weights all
    records of a checkpoint by the same rate: the only case that peers without a step log can express.
    """
    corpus = digits(train + queries, contributors=5, seed=0)
    epoch = train // 32
    run = train_classifier(corpus[:train], hidden=(hidden,), steps=5 * epoch, batch=32, lr=0.3, keep=5, dtype="float32")
    return Subject(run, corpus[train:])


def logistic_subject(train: int = 160, queries: int = 16) -> Subject:
    """Logistic regression on digits: one layer, so that a damping by layer is one number."""
    corpus = digits(train + queries, contributors=5, seed=0)
    run = train_classifier(corpus[:train], steps=40, batch=train, lr=0.5, keep=1, dtype="float32")
    return Subject(run, corpus[train:])


def dense_subject(train: int = 96, queries: int = 6) -> Subject:
    """Four noisy classes of six features none of which is constant, so that no covariance has a null space."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 6))
    labels = rng.integers(0, 4, train + queries)
    rows = centres[labels] * 0.6 + rng.standard_normal((train + queries, 6))
    corpus = Corpus(
        Record(f"dense-{i}", features=tuple(map(float, row)), label=int(label))
        for i, (row, label) in enumerate(zip(rows, labels, strict=True))
    )
    run = train_classifier(corpus[:train], hidden=(5,), steps=60, batch=train, lr=0.3, keep=1, dtype="float32")
    return Subject(run, corpus[train:])


@dataclass(frozen=True, eq=False)
class Tables:
    """A run as tensors: `train` and `asked` hold one tensor per input of the model, examples along axis 0."""

    run: TrainingRun
    queries: Corpus

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.run.task.batch([self.run.corpus[0]]))

    @cached_property
    def _both(self) -> Data:
        # One batch, so that sequences of both sides are padded to one width.
        batch = self.run.task.batch([*self.run.corpus, *self.queries], whole=False)
        return tuple(batch[key] for key in self.keys)

    @property
    def train(self) -> Data:
        return tuple(table[: len(self.run.corpus)] for table in self._both)

    @property
    def asked(self) -> Data:
        return tuple(table[len(self.run.corpus) :] for table in self._both)

    def batch(self, data: Sequence[Tensor]) -> dict[str, Tensor]:
        """Tensors as the task's batch; an example without a batch axis becomes a batch of one."""
        return {
            key: value.unsqueeze(0) if value.ndim < whole.ndim else value
            for key, value, whole in zip(self.keys, data, self._both, strict=True)
        }

    def losses(self, model: Callable[..., Any], data: Sequence[Tensor]) -> Tensor:
        """[B] the task's loss, summed over supervised predictions; `model` may be any function of its inputs."""
        return self.run.task.loss(model, self.batch(data))  # type: ignore[arg-type]

    def measurements(self, model: Callable[..., Any], data: Sequence[Tensor]) -> Tensor:
        """[B] the task's measurement."""
        return self.run.task.measurement(model, self.batch(data))  # type: ignore[arg-type]


def at(model: nn.Module, weights: Mapping[str, Tensor]) -> Callable[..., Any]:
    """`model` as a function with `weights` in place of its parameters."""
    return lambda *inputs, **named: functional_call(model, dict(weights), inputs, named)


def linearised(model: nn.Module, weights: Mapping[str, Tensor], point: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """The first-order expansion of `model` at `point`, evaluated at `weights`.

    A loss of it has the same gradient at `point` as a loss of the model, and its Hessian there is the Gauss-Newton
    matrix: a way to make a library that differentiates twice use the matrix that poa uses.
    """

    def call(*inputs: Any, **named: Any) -> Tensor:
        def of(values: Mapping[str, Tensor]) -> Tensor:
            return functional_call(model, dict(values), inputs, named)  # type: ignore[no-any-return]

        moved = {name: weights[name] - point[name].detach() for name in weights}
        here = {name: point[name].detach() for name in weights}
        value, change = torch.func.jvp(of, (here,), (moved,))
        return value + change

    return call


def rates(run: TrainingRun) -> list[float]:
    """TracIn's weight of each checkpoint; raises where records of a checkpoint have different ones."""
    from poa.methods.tracin import record_rates

    out: list[float] = []
    for position, last in enumerate(run.checkpoints):
        found = record_rates(run, run.checkpoints[position - 1] if position else 0, last)
        if np.ptp(found) > 1e-12 * found.max():
            raise ValueError(f"records have different rates before checkpoint {position}: no peer can express that")
        out.append(float(found[0]))
    return out


def is_classifier(run: TrainingRun) -> bool:
    return isinstance(getattr(run, "source", run), ClassifierRun)
