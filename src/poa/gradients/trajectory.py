"""What happened between checkpoints, for runs that tell: optimizer, moments, rates, and the steps themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from poa.errors import Unsupported
from poa.protocols import Recorded, Replayable

if TYPE_CHECKING:
    from poa.protocols import Moments, Optimizer, Step, TrainingRun


def optimizer_of(run: TrainingRun) -> Optimizer:
    """How the run's steps moved its weights; `Unsupported` where the run does not say."""
    if not isinstance(run, Recorded | Replayable):
        raise Unsupported("this run does not say by which optimizer it was trained (it has no `optimizer`)")
    return run.optimizer


def moments_of(run: TrainingRun, checkpoint: int) -> Moments | None:
    """AdamW's state at a checkpoint, None for SGD; `Unsupported` where the run keeps no optimizer state."""
    if not isinstance(run, Recorded):
        raise Unsupported("this run keeps no optimizer state (it has no `moments`)")
    return run.moments(checkpoint)


def replay_of(run: TrainingRun) -> Iterator[Step]:
    """The run's steps in order; `Unsupported` where the run cannot be replayed."""
    if not isinstance(run, Replayable):
        raise Unsupported("this run cannot be replayed step by step (it has no `replay`)")
    return run.replay()


def segment_rate(run: TrainingRun, position: int) -> float:
    """Mean learning rate of the steps that led to `run.checkpoints[position]` from the checkpoint before it."""
    first = run.checkpoints[position - 1] if position else 0
    return float(run.steps.rate[first : run.checkpoints[position]].mean())


def record_rates(run: TrainingRun, first: int, last: int) -> np.ndarray:
    """[N] sum of rate/denominator over the occurrences of each record in steps first <= t < last."""
    log = run.steps
    out = np.zeros(len(run.corpus))
    for step in range(first, last):
        places = log.records[step][log.records[step] >= 0]
        np.add.at(out, places, float(log.rate[step]) / float(log.denominator[step]))
    return out
