"""What is differentiated: one number per example, of a record that was trained on or of a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from poa.errors import PoaError, Unsupported

if TYPE_CHECKING:
    from poa.protocols import Predictions, Task
    from poa.records import Record

# A batch to the log-probability [n] of each example, for first derivatives only: -loss and measurement alike.
Fused: TypeAlias = "Callable[[Any], Tensor]"

# side -> whether records are queries, which must fit whole
SIDES = {"train": False, "query": True, "train-margin": False, "query-margin": True, "sampled": False}


def outputs(
    task: Task, model: nn.Module, records: Sequence[Record], side: str, draw: int = 0, fused: Fused | None = None
) -> Tensor:
    """[n] what is differentiated for each of `records`, larger = the record (or response) is likelier.

    train: -loss. query: the measurement; `fused` stands in for these two where it is given. train-margin, query-margin:
    the log-odds of the labels, summed over predictions. sampled: log-probability of labels drawn from the model itself,
    whose gradients have the (true) Fisher as their second moment; draw number `draw` of a record depends on nothing
    but the record and the model.
    Raises `PoaError` for an unknown side and `Unsupported` where the task does not say what it predicts.
    """
    if side not in SIDES:
        raise PoaError(f"side is {side!r}, must be one of {', '.join(SIDES)}")
    batch = _beside(model, task.batch(records, whole=SIDES[side]))
    if fused is not None and side in ("train", "query"):
        return fused(batch)
    if side == "train":
        return -task.loss(model, batch)
    if side == "query":
        return task.measurement(model, batch)
    found = predictions(task, model, batch)
    each = (
        margins(found)
        if side.endswith("margin")
        else log_probabilities(found._replace(labels=drawn(found, records, draw)))
    )
    return each.new_zeros(len(records)).index_add(0, found.owners.to(each.device), each)


def _beside(model: nn.Module, batch: Any) -> Any:
    """The batch on the model's device."""
    device = next(model.parameters()).device
    if device.type == "cpu" or not isinstance(batch, Mapping):
        return batch
    return {name: part.to(device) if isinstance(part, Tensor) else part for name, part in batch.items()}


def predictions(task: Task, model: nn.Module, batch: Any) -> Predictions:
    """`task.predictions`, or `Unsupported` with the reason where a task of somebody else has none."""
    if not hasattr(task, "predictions"):
        raise Unsupported(f"task {task.name} has no predictions(model, batch): its curvature and log-odds are unknown")
    return task.predictions(model, batch)


def log_probabilities(found: Predictions) -> Tensor:
    """[M] log-probability of each label (nats)."""
    return -nn.functional.cross_entropy(found.logits, found.labels, reduction="none")


def margins(found: Predictions) -> Tensor:
    """[M] log p - log(1 - p) of each label: its logit less logsumexp of the others, exact where p rounds to 1."""
    own = found.labels.unsqueeze(1)
    others = found.logits.scatter(1, own, float("-inf"))
    return found.logits.gather(1, own).squeeze(1) - others.logsumexp(1)


def drawn(found: Predictions, records: Sequence[Record], draw: int) -> Tensor:
    """[M] labels drawn from the predicted distributions by inversion, one stream of numbers per record."""
    with torch.no_grad():
        steps = found.logits.double().softmax(1).cumsum(1)
    numbers, owners = torch.zeros(len(found.labels), 1, dtype=torch.float64), found.owners.cpu()
    for at, record in enumerate(records):
        mine = owners == at
        word = sha256(f"poa/draw/1\n{draw}\n{record.digest}".encode()).digest()[:8]
        generator = np.random.Generator(np.random.Philox(int.from_bytes(word, "little")))
        numbers[mine, 0] = torch.from_numpy(generator.random(int(mine.sum())))
    last = found.logits.shape[1] - 1  # the sum of probabilities may fall short of 1 by rounding
    return torch.searchsorted(steps, numbers.to(steps.device) * steps[:, -1:]).squeeze(1).clamp(max=last)
