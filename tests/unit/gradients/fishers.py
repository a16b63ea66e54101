"""Fisher matrices of small runs written out token by token, with nothing of poa's capture or curvature in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poa.gradients.outputs import drawn


@dataclass(frozen=True)
class Example:
    """One record under one draw: what a layer read [T, in + bias] and the gradient at its output [T, out]."""

    inputs: np.ndarray
    signals: np.ndarray

    @property
    def gradient(self) -> np.ndarray:
        return sum(np.outer(s, a).ravel() for s, a in zip(self.signals, self.inputs, strict=True))  # type: ignore[return-value]


def examples(run: Any, labels: str, draws: int, checkpoint: int = -1) -> dict[str, list[Example]]:
    """Per tracked layer every record under every draw; the layer's bias is its last input."""
    model, task = run.model(checkpoint), run.task
    modules = task.tracked(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(_: Any, given: tuple[Tensor], out: Tensor) -> None:
            seen[name] = (given[0], out)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    found: dict[str, list[Example]] = {name: [] for name in modules}
    for record in run.corpus:
        for draw in range(draws):
            told = task.predictions(model, task.batch([record], whole=False))
            chosen = told.labels if labels == "data" else drawn(told, [record], draw)
            total = told.logits.log_softmax(1).gather(1, chosen[:, None]).sum()
            signals = torch.autograd.grad(total, [seen[name][1] for name in modules])
            for (name, module), signal in zip(modules.items(), signals, strict=True):
                x = seen[name][0].detach().reshape(-1, seen[name][0].shape[-1])
                if module.bias is not None:
                    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
                found[name].append(Example(x.numpy(), signal.reshape(len(x), -1).numpy()))
    for handle in handles:
        handle.remove()
    return found


def exact(each: list[Example]) -> np.ndarray:
    """[p, p] mean of gradient gradient^T."""
    return np.mean([np.outer(one.gradient, one.gradient) for one in each], axis=0)


def kfac_sides(each: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    """(S, A): sum of s s^T over all tokens by the number of examples, and of a a^T by the number of tokens."""
    s, a = np.concatenate([one.signals for one in each]), np.concatenate([one.inputs for one in each])
    return s.T @ s / len(each), a.T @ a / len(a)


def kfac(each: list[Example]) -> np.ndarray:
    """[p, p] S x A, for gradients flattened row by row."""
    return np.kron(*kfac_sides(each))


def ekfac(each: list[Example]) -> np.ndarray:
    """[p, p] Q diag(Q^T F Q) Q^T with the eigenvectors of both sides."""
    basis = np.kron(*(np.linalg.eigh(side)[1] for side in kfac_sides(each)))
    return basis @ np.diag(np.diag(basis.T @ exact(each) @ basis)) @ basis.T
