"""The same forward pass with less traffic, where only first derivatives are wanted.

Two things that a language model does over and over in many small operations are done in one here: the head with its
cross entropy, which never lays out a [tokens, vocabulary] table, and GELU in the tanh form, which transformers spells
out in eight passes over the activations. Values agree with the plain pass to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.errors import Unsupported
from poa.gradients.gelu import gelu

# Rows of logits at a time: fewer pay for packing the head again and again, more fall out of a processor's cache;
# an accelerator has no such cache and wants few launches.
ROWS, ROWS_ELSEWHERE = 384, 16384


def head_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """[M] cross entropy (nats) of `labels` [M] under softmax(hidden W^T + b); hidden [M, d], weight [V, d].

    The gradient with respect to `hidden` is made in the forward pass, block of rows by block of rows; the head gets
    none. First derivatives only.
    """
    found: Any = _HeadLosses.apply(hidden, weight, bias, labels)
    return found


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:  # type: ignore[override]
        losses, back = weight.new_empty(len(hidden)), torch.empty_like(hidden)
        rows = ROWS if hidden.device.type == "cpu" else ROWS_ELSEWHERE
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits, own = F.linear(hidden[part], weight, bias).to(weight.dtype), labels[part].unsqueeze(1)
            peak, chosen = logits.amax(1, keepdim=True), logits.gather(1, own)
            shares = logits.softmax(1)
            # log of the sum of exponentials: the largest share is never tiny, so its logarithm is exact enough
            losses[part] = (peak - shares.amax(1, keepdim=True).log() - chosen).squeeze(1)
            back[part] = shares.scatter_add_(1, own, shares.new_full(own.shape, -1.0)) @ weight
        ctx.save_for_backward(back)
        return losses

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (back,) = ctx.saved_tensors
        return back * signal.unsqueeze(1), None, None, None


def fused_log_probabilities(body: Callable[..., Any], head: Any, given: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """[B] log-probability of the supervised tokens (label != -100) of each example; `given` goes to the body."""
    targets = F.pad(labels[:, 1:], (0, 1), value=-100)
    owners, places = torch.nonzero(targets != -100, as_tuple=True)
    hidden: Tensor = body(**given, use_cache=False).last_hidden_state
    losses = head_losses(hidden[owners, places], head.weight, head.bias, targets[owners, places])
    return losses.new_zeros(len(labels)).index_add(0, owners, losses, alpha=-1)


def body_and_head(model: Any) -> tuple[Callable[..., Any], nn.Module]:
    """(body, head) of a causal language model with logits = head(body(...).last_hidden_state).

    That this holds is tried on two tokens: models that scale or cap their logits, and whatever else is not a body and
    a linear head, are refused with `Unsupported`.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    body, head = getattr(inner, "base_model", None), inner.get_output_embeddings()
    if body is None or body is inner or not isinstance(head, nn.Linear):
        raise Unsupported(f"a {type(inner).__name__} is not a body with a linear head")
    ids = torch.tensor([[0, 1]], device=head.weight.device)
    with torch.no_grad():
        logits = inner(input_ids=ids, use_cache=False).logits
        again = head(body(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(logits, again, rtol=1e-4, atol=1e-5):
        raise Unsupported(f"a {type(inner).__name__} changes its logits after the head")
    return body, head


@contextmanager
def fused_activations(model: nn.Module) -> Generator[None]:
    """GELU in the tanh form by one kernel (`poa.gradients.gelu`) while the block lasts; modules stay as they are."""
    swapped = [
        module for module in model.modules() if type(module).__name__ in ("NewGELUActivation", "FastGELUActivation")
    ]
    for module in swapped:
        module.forward = gelu  # an attribute of this one object, over its class's method
    try:
        yield
    finally:
        for module in swapped:
            del module.forward
