"""The optimizers of runs: made from their description, and their state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from poa.protocols import Moments, Optimizer


def made(rule: Optimizer, parameters: Mapping[str, Tensor], rate: float) -> torch.optim.Optimizer:
    """The torch optimizer that `rule` describes, over `parameters` in their order."""
    if rule.kind == "sgd":
        return torch.optim.SGD(parameters.values(), lr=rate, momentum=rule.momentum, weight_decay=rule.decay)
    return torch.optim.AdamW(parameters.values(), lr=rate, betas=rule.betas, eps=rule.eps, weight_decay=rule.decay)


def moments_of(
    rule: Optimizer, optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], steps: int
) -> Moments | None:
    """The optimizer's own tensors (not copies) after `steps` updates; None for SGD."""
    if rule.kind == "sgd":
        return None
    state = {name: _pair(optimizer, parameter) for name, parameter in parameters.items()}
    return Moments(state, steps, rule.betas, rule.eps)


def _pair(optimizer: torch.optim.Optimizer, parameter: Tensor) -> tuple[Tensor, Tensor]:
    found = optimizer.state.get(parameter)
    if not found:  # torch makes the state of a parameter at its first update
        return torch.zeros_like(parameter), torch.zeros_like(parameter)
    return found["exp_avg"], found["exp_avg_sq"]


def restore(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], moments: Moments) -> None:
    """Put copies of `moments` into an AdamW optimizer."""
    for name, parameter in parameters.items():
        first, second = moments.state[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(moments.steps)),
            "exp_avg": first.clone(),
            "exp_avg_sq": second.clone(),
        }


def copied(moments: Moments) -> Moments:
    """`moments` that later steps do not change."""
    state = {name: (first.clone(), second.clone()) for name, (first, second) in moments.state.items()}
    return moments._replace(state=state)


def flat(moments: Moments) -> dict[str, Tensor]:
    """As one mapping of tensors, "exp_avg.NAME" and "exp_avg_sq.NAME", for a file."""
    pairs = moments.state.items()
    return {f"exp_avg.{name}": first for name, (first, _) in pairs} | {
        f"exp_avg_sq.{name}": second for name, (_, second) in pairs
    }


def from_flat(tensors: Mapping[str, Tensor], steps: int, rule: Optimizer) -> Moments:
    """The inverse of `flat`; other keys are passed over."""
    names = [key.removeprefix("exp_avg.") for key in tensors if key.startswith("exp_avg.")]
    state = {name: (tensors[f"exp_avg.{name}"], tensors[f"exp_avg_sq.{name}"]) for name in names}
    return Moments(state, steps, rule.betas, rule.eps)
