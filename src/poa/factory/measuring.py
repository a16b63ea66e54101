"""Measurements of responses under the tuned and the base model, and held-out loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poa.factory.causal import CausalLM
from poa.factory.run import LoRARun
from poa.progress import track
from poa.records import Corpus

Floats = npt.NDArray[np.float64]


@torch.no_grad()
def measurements(task: CausalLM, model: Any, responses: Corpus) -> Floats:
    """[Q] total log-probability of each response (nats), one at a time so that neighbours do not matter."""
    rows = [task.measurement(model, task.batch([record])) for record in track(responses, "measure", len(responses))]
    return np.asarray([float(row.double()) for row in rows])


def tuned_and_base(run: LoRARun, responses: Corpus) -> tuple[Floats, Floats]:
    return measurements(run.task, run.model(), responses), measurements(run.task, run.base(), responses)


def nats_per_token(task: CausalLM, responses: Corpus, measured: Floats) -> float:
    """Mean loss per supervised token."""
    tokens = sum(int(task.supervised(task.batch([record]))) for record in responses)
    return -float(measured.sum()) / tokens
