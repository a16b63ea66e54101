"""Per-example gradients of the tracked linear layers from forward inputs and output gradients.

For y_t = W x_t the gradient of one example is sum_t s_t x_t^T with s_t = d(loss)/d(y_t). Asking autograd for the
s_t alone never forms a batch weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from poa.errors import Unsupported
from poa.records import Record

if TYPE_CHECKING:
    from poa.protocols import Task


@dataclass(frozen=True)
class Block:
    """Where one layer stands in a row of gradients: columns [start, stop), to be viewed as `shape` (out, in)."""

    name: str
    start: int
    stop: int
    shape: tuple[int, int]


def layout(modules: Mapping[str, nn.Module]) -> tuple[Block, ...]:
    """Columns of each tracked layer in order; a bias is one more input that is always 1."""
    blocks: list[Block] = []
    start = 0
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            raise Unsupported(f"layer {name} is a {type(module).__name__}; this version captures linear layers only")
        out, inner = module.weight.shape
        shape = (int(out), int(inner) + ("bias" in dict(module.named_parameters())))
        stop = start + shape[0] * shape[1]
        blocks.append(Block(name, start, stop, shape))
        start = stop
    if not blocks:
        raise Unsupported("the model has no trainable linear layer to attribute through")
    return tuple(blocks)


@contextmanager
def _recorded(modules: Mapping[str, nn.Module]) -> Generator[dict[str, list[tuple[Tensor, GradientEdge]]]]:
    """Collect (input, place of the output in the graph) of each call; hooks are gone when the block ends.

    The edge, not the tensor: an activation that works in place (ReLU(inplace=True)) turns the tensor into its own
    output, and its gradient would then silently be that of another layer.
    """
    calls: dict[str, list[tuple[Tensor, GradientEdge]]] = {name: [] for name in modules}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, given, out: calls[name].append((given[0].detach(), get_gradient_edge(out)))

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def example_gradients(task: Task, model: nn.Module, records: Sequence[Record], side: str) -> Tensor:
    """[n, p] gradients, one row per record, in the model's dtype.

    side="train": -grad of the training loss (the direction in which training on the record moved the weights);
    side="query": +grad of the measurement. Both are *sums* over supervised tokens, so a positive dot product means
    "helped". Records of the batch do not mix: nothing here normalises over the batch.
    """
    if model.training:
        raise Unsupported("the model is in train mode: active dropout or BatchNorm has no per-example gradient")
    modules = task.tracked(model)
    blocks = layout(modules)
    batch = task.batch(records, whole=side == "query")
    with torch.enable_grad(), _recorded(modules) as calls:
        total = task.measurement(model, batch).sum() if side == "query" else -task.loss(model, batch).sum()
        flat = [(block, given, out) for block in blocks for given, out in calls[block.name]]
        signals = torch.autograd.grad(total, [out for _, _, out in flat])
    rows = torch.zeros(len(records), blocks[-1].stop, dtype=total.dtype)
    for (block, given, _), signal in zip(flat, signals, strict=True):
        rows[:, block.start : block.stop] += _outer(given, signal, block)
    return rows


def _outer(given: Tensor, signal: Tensor, block: Block) -> Tensor:
    """sum_t s_t [x_t; 1]^T per example, flattened to [n, out*in]."""
    if block.shape[1] == given.shape[-1] + 1:
        given = torch.cat([given, given.new_ones(*given.shape[:-1], 1)], -1)
    if given.ndim == 2:  # no token axis
        given, signal = given.unsqueeze(1), signal.unsqueeze(1)
    return torch.bmm(signal.transpose(1, 2), given).flatten(1)
