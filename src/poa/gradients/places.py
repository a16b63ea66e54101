"""Where the number of a gradient row's column lives among a model's parameters, and back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from poa.gradients.capture import capturing
from poa.gradients.moments import row_of

if TYPE_CHECKING:
    from poa.gradients.capture import Block
    from poa.protocols import Task


@dataclass(frozen=True, eq=False)
class Places:
    """names, shapes: of the parameters that attribution reads; at: [p] column -> place in them laid end to end."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    at: Tensor
    blocks: tuple[Block, ...]

    def parameters(self, row: Tensor) -> dict[str, Tensor]:
        """The numbers of a row [p] as tensors by parameter name; parameters without a column are 0."""
        flat = row.new_zeros(sum(shape.numel() for shape in self.shapes))
        flat[self.at] = row
        parts = flat.split([shape.numel() for shape in self.shapes])
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def row(self, values: Mapping[str, Tensor]) -> Tensor:
        """[p] the columns that tensors by parameter name hold: the transpose of `parameters`."""
        return torch.cat([values[name].flatten() for name in self.names])[self.at]


def places(task: Task, model: nn.Module) -> Places:
    """Of the tracked parameters of `model`, in adapter coordinates; a parameter that layers share is counted once."""
    with capturing(task, model) as capture:
        blocks = capture.blocks
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    modules = task.tracked(model)
    own: dict[str, tuple[str, Tensor]] = {
        f"{name}.{key}": (named[id(parameter)], parameter)
        for name, module in modules.items()
        for key, parameter in module.named_parameters(recurse=False)
    }
    shapes = {name: parameter.shape for name, parameter in own.values()}
    ends = itertools.accumulate(shape.numel() for shape in shapes.values())
    starts = dict(zip(shapes, [0, *ends], strict=False))
    numbers = {
        key: torch.arange(starts[name], starts[name] + parameter.numel()).view(parameter.shape)
        for key, (name, parameter) in own.items()
    }
    return Places(tuple(shapes), tuple(shapes.values()), row_of(blocks, modules, numbers), blocks)
