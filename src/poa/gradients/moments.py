"""Values that are known by parameter name, as columns of gradient rows, and back.

Optimizers, files and rows of gradients order parameters differently; rows also put a bias beside its weight and turn
HF `Conv1D` weights into the layout of `Linear`. Names are the only safe bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from poa.errors import Mismatch

if TYPE_CHECKING:
    from poa.gradients.capture import Block
    from poa.protocols import Moments, TrainingRun


def row_of(blocks: Sequence[Block], modules: Mapping[str, nn.Module], values: Mapping[str, Tensor]) -> Tensor:
    """[p] `values` (by parameter name, shaped like the parameters) in the columns of `blocks`.

    `modules`: the tracked ones by name. Raises `Mismatch` that names a parameter without a value or of another shape.
    """
    return torch.cat([_part(block, modules, values).flatten() for block in blocks])


def _part(block: Block, modules: Mapping[str, nn.Module], values: Mapping[str, Tensor]) -> Tensor:
    """The values of one block, in an order that flattens to its columns."""
    # groups of a convolution are blocks of their own, called layer/0, layer/1, ...
    name, group = (block.name, "0") if block.name in modules else tuple(block.name.rsplit("/", 1))
    module = modules[name]
    own = dict(module.named_parameters(recurse=False))

    def value(key: str) -> Tensor:
        return _value(f"{name}.{key}", own[key], values)

    if "weight" not in own or block.shape[0] == 1 != own["weight"].shape[0]:
        # a module of unknown kind: its trainable parameters one after another
        return torch.cat([value(key).flatten() for key, p in own.items() if p.requires_grad])
    weight = value("weight").T if type(module).__name__ == "Conv1D" else value("weight")
    table = weight.flatten(1) if weight.ndim > 1 else weight.unsqueeze(1)
    if "bias" in own:
        table = torch.cat([table, value("bias").unsqueeze(1)], 1)
    return table.chunk(getattr(module, "groups", 1))[int(group)]


def _value(name: str, parameter: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    if name not in values:
        raise Mismatch(f"there is no value for parameter {name}")
    if values[name].shape != parameter.shape:
        raise Mismatch(f"parameter {name} has shape {tuple(parameter.shape)}, its value {tuple(values[name].shape)}")
    return values[name].detach()


def moment_rows(blocks: Sequence[Block], modules: Mapping[str, nn.Module], moments: Moments) -> tuple[Tensor, Tensor]:
    """[p] first and [p] second moment in the columns of `blocks`, of +grad loss, without bias correction."""
    first = {name: pair[0] for name, pair in moments.state.items()}
    second = {name: pair[1] for name, pair in moments.state.items()}
    return row_of(blocks, modules, first), row_of(blocks, modules, second)


def adam_rows(
    run: TrainingRun, blocks: Sequence[Block], position: int, moments: Moments
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`moment_rows` of the run's tracked modules in float64."""
    model = run.model(position)
    first, second = moment_rows(blocks, run.task.tracked(model), moments)
    return first.double().numpy(), second.double().numpy()


def share_of_a_record(run: TrainingRun, position: int) -> float:
    """By what a record's summed gradient is multiplied to be that of a batch made of the record alone.

    Mean over the steps before the checkpoint of records in the batch / denominator: 1 where losses are averaged over
    records, 1 / tokens of a mean record where they are averaged over tokens.
    """
    first = run.checkpoints[position - 1] if position else 0
    steps = slice(first, run.checkpoints[position])
    return float(((run.steps.records[steps] >= 0).sum(1) / run.steps.denominator[steps]).mean())
