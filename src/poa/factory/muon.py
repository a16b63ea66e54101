"""Muon in float32: momentum, orthogonalised per weight matrix.

`torch.optim.Muon` runs its Newton-Schulz iteration in bfloat16, whatever the weights are. On processors without
bfloat16 instructions that is an order of magnitude slower than float32 and takes most of the training time; here the
iteration stays in the weights' dtype and equal shapes share one batched product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Quintic coefficients of Jordan et al. 2024 (Muon): singular values land in about [0.7, 1.2] after five rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """[k, m, n] nearest semi-orthogonal matrices (U V^T of each), approximately, by Newton-Schulz."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; step size lr * sqrt(max(1, rows / columns)). No weight decay.

    Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. Parameters must be matrices
    (`ValueError` otherwise); embeddings, heads and gains belong to another optimizer.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon updates matrices; a parameter has shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, members in alike.items():
                steps = torch.stack([self._momentum(parameter, group["momentum"]) for parameter in members])
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, change in zip(members, orthogonalised(steps), strict=True):
                    parameter.sub_(change, alpha=rate)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        running = state.setdefault("momentum", torch.zeros_like(gradient))
        running.lerp_(gradient, 1 - momentum)
        return gradient.lerp(running, momentum)
