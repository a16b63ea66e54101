"""A training run seen otherwise: with an empty cache, permuted, with a duplicate, under another digest."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest
from poa.gradients.trajectory import moments_of, optimizer_of, replay_of
from poa.protocols import Moments, Optimizer, Step
from poa.records import Corpus
from poa.steplog import StepLog

if TYPE_CHECKING:
    from torch import nn

    from poa.protocols import Task, TrainingRun


@dataclass(frozen=True, eq=False)
class RunView:
    """A `TrainingRun` with the weights and the task of `source`; everything else may differ."""

    source: TrainingRun
    corpus: Corpus
    groups: Mapping[str, tuple[str, ...]]
    steps: StepLog
    digest: str
    cache: Path

    @property
    def task(self) -> Task:
        return self.source.task

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return self.source.checkpoints

    def model(self, checkpoint: int = -1) -> nn.Module:
        return self.source.model(checkpoint)

    def base(self) -> nn.Module:
        return self.source.base()

    @property
    def optimizer(self) -> Optimizer:
        return optimizer_of(self.source)

    def moments(self, checkpoint: int = -1) -> Moments | None:
        return moments_of(self.source, checkpoint)

    def replay(self) -> Iterator[Step]:
        """The steps of the real run; records are the view's own, and one that the run does not know weighs 1."""
        for step in replay_of(self.source):
            row = self.steps.records[step.number]
            records = row[row >= 0]
            added = np.ones(len(records) - len(step.weights))
            yield step._replace(records=records, weights=np.concatenate([step.weights, added]))


@contextmanager
def isolated(run: TrainingRun) -> Generator[RunView]:
    """The same run with an empty cache of its own, which vanishes at the end."""
    with tempfile.TemporaryDirectory(prefix="poa-conformance-") as folder:
        yield RunView(run, run.corpus, run.groups, run.steps, run.digest, Path(folder))


def permuted(run: RunView, order: npt.NDArray[np.int64]) -> RunView:
    """The manifest in another order, the same weights: record `order[i]` comes at position i, in the same steps."""
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return replace(
        run,
        corpus=run.corpus.take(order),
        groups={name: tuple(labels[i] for i in order) for name, labels in run.groups.items()},
        steps=_with_records(run.steps, np.where(run.steps.records < 0, -1, inverse[run.steps.records])),
        digest=plain_digest([run.digest, "permuted", order.tolist()]),
    )


def duplicated(run: RunView, position: int, name: str) -> RunView:
    """A copy of the record at `position`, called `name`, at the end of the manifest and in the same steps."""
    count = len(run.corpus)
    there = run.steps.records == position
    # As many further columns as the record has places in a batch; rates and denominators are those of the real run.
    extra = np.where(np.arange(int(there.sum(1).max(initial=0))) < there.sum(1)[:, None], count, -1)
    return replace(
        run,
        corpus=run.corpus + Corpus([replace(run.corpus[position], id=name)]),
        groups={group: (*labels, labels[position]) for group, labels in run.groups.items()},
        steps=_with_records(run.steps, np.concatenate([run.steps.records, extra], axis=1)),
        digest=plain_digest([run.digest, "duplicated", position, name]),
    )


def foreign(run: RunView) -> RunView:
    """The same run under another digest: what an index must refuse to be loaded for."""
    return replace(run, digest=plain_digest([run.digest, "foreign"]))


def _with_records(steps: StepLog, records: npt.NDArray[np.integer[Any]]) -> StepLog:
    return replace(steps, records=records)
