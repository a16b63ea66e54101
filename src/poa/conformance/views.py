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
from poa.gradients.unrolled import offering
from poa.protocols import Moments, Optimizer, Step
from poa.records import Corpus
from poa.steplog import StepLog

if TYPE_CHECKING:
    from torch import nn

    from poa.gradients.program import Lane, Program
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

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Those of the run, by record of the view; 0 for one that the run does not know."""
        known = dict(zip(self.source.corpus.ids, offering(self.source).weights, strict=True))
        return np.asarray([known.get(record, 0.0) for record in self.corpus.ids])

    def program(self) -> Program:
        """The run's, over the records of the view; one that the run does not know enters the steps of its equal."""
        theirs = offering(self.source).program()
        here = {record: place for place, record in enumerate(self.corpus.ids)}
        there = {record: place for place, record in enumerate(self.source.corpus.ids)}
        by_digest = {record.digest: there[record.id] for record in self.source.corpus}
        rows = np.asarray([there.get(record.id, by_digest[record.digest]) for record in self.corpus])
        moved = np.asarray([here[record] for record in self.source.corpus.ids])
        copies = [place for record, place in here.items() if record not in there]
        lanes = tuple(_moved(lane, rows, moved, copies) for lane in theirs.lanes)
        return replace(theirs, lanes=lanes, records=len(rows))

    def arrays(self, queries: Corpus) -> Any:
        return offering(self.source).arrays(queries)


def _moved(lane: Lane, rows: npt.NDArray[Any], moved: npt.NDArray[Any], copies: list[int]) -> Lane:
    """`lane` with the data of source records `rows`, source record i in the places of `moved[i]`."""
    places = np.where(lane.places >= 0, moved[lane.places], -1)
    twins = [np.where((lane.places == rows[copy]).any(1), copy, -1)[:, None] for copy in copies]
    data = {name: values[rows] for name, values in lane.data.items()}
    return replace(lane, data=data, places=np.concatenate([places, *twins], 1))


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
