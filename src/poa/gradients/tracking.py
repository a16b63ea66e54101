"""Which modules of a model hold what training moved, and whether the loss reads their parameters only through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn


def trainable(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with trainable parameters of their own, by name in order of definition.

    After a full fine-tune that is everything (embeddings, norms, a tied head under both of its names), under LoRA the
    factors and nothing else.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    }


def reads(each: Tensor, parameters: Collection[Tensor]) -> Counter[int]:
    """How often the graph behind `each` reads each of `parameters`, keyed by id().

    Capture sees what passes through a module. A weight that is also used by hand (`x @ embedding.weight.T`) is read
    more often than its modules are called, and a gradient without that part would be silently wrong.
    """
    wanted = {id(parameter) for parameter in parameters}
    found: Counter[int] = Counter()
    seen: set[Any] = set()
    waiting: list[Any] = [each.grad_fn]
    while waiting:
        node = waiting.pop()
        for child, _ in () if node is None else node.next_functions:
            leaf = getattr(child, "variable", None)
            if id(leaf) in wanted:
                found[id(leaf)] += 1
            elif child not in seen:
                seen.add(child)
                waiting.append(child)
    return found
