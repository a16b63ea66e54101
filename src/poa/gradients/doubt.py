"""Doubt: how far a model is from being sure of a record, the weight that TRAK gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from poa.gradients.outputs import log_probabilities, predictions
from poa.progress import track

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


def doubts(run: TrainingRun, position: int) -> npt.NDArray[np.float64]:
    """[N] mean over a record's predictions of 1 - p(label), at one checkpoint; records one at a time.

    For a classifier it is d loss / d (log-odds) with its sign changed, TRAK's Q. For text that derivative belongs to
    each token; the mean over tokens keeps one weight a record and the same range.
    """
    model = run.model(position)
    out = np.zeros(len(run.corpus))
    with torch.no_grad():
        for at, record in enumerate(track(run.corpus, "doubts", len(run.corpus))):
            found = predictions(run.task, model, run.task.batch([record], whole=False))
            out[at] = float(-torch.expm1(log_probabilities(found).double()).mean())
    return out
