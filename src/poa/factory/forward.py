"""What a Hugging Face model takes: the tensors of a batch that its `forward` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from poa.protocols import Batch


def innermost(model: Any) -> Any:
    """The model inside PEFT's wrapper, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def arguments(model: Callable[..., Any], batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """Those of `names` that are in `batch` and that the model takes.

    A function, and a module that does not name its first input (a wrapper around another), is trusted to pass on all.
    """
    known = _parameters(type(innermost(model))) if isinstance(model, nn.Module) else frozenset[str]()
    takes_all = names[0] not in known
    return {name: batch[name] for name in names if name in batch and (takes_all or name in known)}


@cache
def _parameters(kind: type[Any]) -> frozenset[str]:
    return frozenset(signature(kind.forward).parameters)
