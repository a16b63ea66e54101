"""A finished LoRA fine-tune once more, step by step, held to its stored checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from poa.errors import Mismatch
from poa.factory import adapters
from poa.factory.descent import Descent, published
from poa.protocols import Step

if TYPE_CHECKING:
    from poa.factory.run import LoRARun

# Relative distance from a stored checkpoint beyond which a replay is another training.
DRIFT = 1e-2


def replayed(run: LoRARun) -> Iterator[Step]:
    """Every step of `run` before its update.

    With the versions and the number of threads of the training, the same bytes. Otherwise sums round differently:
    at each checkpoint the stored weights and moments take over, and a replay that has drifted by more than `DRIFT`
    is refused with `Mismatch`.
    """
    descent = Descent.start(run.parent, run.recipe)
    log = run.steps
    for number, row in enumerate(log.records):
        places = row[row >= 0]
        yield Step(
            number,
            descent.model,
            places,
            np.ones(len(places)),
            float(log.rate[number]),
            float(log.denominator[number]),
            descent.moments(number),
        )
        descent.step([run.corpus[int(i)] for i in places], log, number)
        if number + 1 in run.checkpoints:
            _hold(descent, run, run.checkpoints.index(number + 1))


def _hold(descent: Descent, run: LoRARun, checkpoint: int) -> None:
    weights = load_file(run.checkpoint_folder(checkpoint) / adapters.FILES[1])
    far = drift(descent.trained, weights)
    if not far <= DRIFT:
        raise Mismatch(
            f"the replay is {far:.2g} (relative) from the stored checkpoint {run.checkpoints[checkpoint]}: this is not "
            f"how {run.folder} was trained; library versions and the number of threads "
            f"({torch.get_num_threads()} here) matter"
        )
    if far:
        descent.restore(weights, run.moments(checkpoint))


def drift(trained: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Euclidean distance of all trained parameters from published `weights`, relative to the latter."""
    with torch.no_grad():
        pairs = [(p.double(), weights[published(name)].double()) for name, p in trained.items()]
        gap = sum(float((here - there).square().sum()) for here, there in pairs)
        size = sum(float(there.square().sum()) for _, there in pairs)
    return float(np.sqrt(gap / size)) if gap else 0.0
