"""Per-example gradients in factored form: what a layer read and what came back, before anything is multiplied out.

The gradient of a linear layer's weight for one example is sum_t s_t a_t^T over its tokens: s_t the gradient at the
output, a_t the input. Kept as factors it costs T (out + in) numbers instead of out x in, and inner products,
projections and per-token parts can be had without ever forming the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from poa.errors import Unsupported


@dataclass(frozen=True)
class Outer:
    """sum_t left[e, t] right[e, t]^T: a matrix [out, in] per example. left: [n, T, out], right: [n, T, in].

    right is `inputs`, with one more column that is always 1 where there is a bias (`ones`); it is laid out only when
    asked for.
    """

    left: Tensor
    inputs: Tensor
    ones: bool = False

    @cached_property
    def right(self) -> Tensor:
        x = self.inputs
        return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1) if self.ones else x

    @property
    def dtype(self) -> torch.dtype:
        return self.left.dtype

    def right_times(self, matrix: Tensor) -> Tensor:
        """[n, T, k] right @ matrix [in, k]."""
        x = self.inputs.to(matrix.dtype)
        return x @ matrix[:-1] + matrix[-1] if self.ones else x @ matrix

    def dense(self) -> Tensor:
        """[n, out * in]."""
        return torch.bmm(self.left.transpose(1, 2), self.right).flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """[n, T] parts of <gradient, direction> that each token brings; `direction`: [out * in]."""
        matrix = direction.view(self.left.shape[2], self.right.shape[2])
        return ((self.left @ matrix) * self.right).sum(2)


@dataclass(frozen=True)
class Lookup:
    """Row ids[e, t] of a table [rows, d] receives signal[e, t]. ids: [n, T], signal: [n, T, d]."""

    ids: Tensor
    signal: Tensor
    rows: int

    @property
    def dtype(self) -> torch.dtype:
        return self.signal.dtype

    def dense(self) -> Tensor:
        n, _, width = self.signal.shape
        out = self.signal.new_zeros(n, self.rows, width)
        return out.scatter_add_(1, self.ids.unsqueeze(2).expand_as(self.signal), self.signal).flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        return (direction.view(self.rows, -1)[self.ids] * self.signal).sum(2)


@dataclass(frozen=True)
class Elementwise:
    """sum_t left[e, t, j] right[e, t, j, k]: gain and offset of a norm. left: [n, T, d], right: [n, T, d, k]."""

    left: Tensor
    right: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.left.dtype

    def dense(self) -> Tensor:
        return torch.einsum("etd,etdk->edk", self.left, self.right).flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        return torch.einsum("etd,etdk,dk->et", self.left, self.right, direction.view(self.right.shape[2:]))


@dataclass(frozen=True)
class Whole:
    """Gradients that were multiplied out at once, [n, p]: modules of a kind that is not known by its factors."""

    values: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def dense(self) -> Tensor:
        return self.values

    def along(self, direction: Tensor) -> Tensor:
        raise Unsupported("a module of unknown kind has no per-token gradients; leave it out of Task.tracked")


Factor: TypeAlias = Outer | Lookup | Elementwise | Whole


def tensors(factor: Factor) -> list[Tensor]:
    """What a factor keeps alive."""
    return [part for part in vars(factor).values() if isinstance(part, Tensor)]


def inner(first: Factor, second: Factor) -> Tensor:
    """[n, m] inner products of the gradients of n and m examples with respect to one parameter.

    Two factored gradients meet token by token where that is cheaper than multiplying out, and always where a tied
    embedding meets a head: no table of all rows is formed.
    """
    if isinstance(first, Outer) and isinstance(second, Outer) and _meet(first, second):
        return (_all_tokens(first.left, second.left) * _all_tokens(first.right, second.right)).sum((1, 3))
    if isinstance(first, Lookup) and isinstance(second, Lookup):
        same = first.ids[:, :, None, None] == second.ids
        return (_all_tokens(first.signal, second.signal) * same).sum((1, 3))
    if isinstance(first, Outer) and isinstance(second, Lookup):
        # first.left[e, t, ids[f, s]] * <first.right[e, t], second.signal[f, s]>
        picked = first.left[:, :, second.ids]  # [n, T, m, S]
        return (picked * _all_tokens(first.right, second.signal)).sum((1, 3))
    if isinstance(first, Lookup) and isinstance(second, Outer):
        return inner(second, first).T
    return first.dense() @ second.dense().T


def _all_tokens(first: Tensor, second: Tensor) -> Tensor:
    """[n, T, m, S] products of every token of `first` [n, T, d] with every token of `second` [m, S, d]."""
    return (first.flatten(0, 1) @ second.flatten(0, 1).T).view(*first.shape[:2], *second.shape[:2])


def _meet(first: Outer, second: Outer) -> bool:
    """Whether n m T S (out + in) is less work than forming both matrices and n m out in."""
    (n, t, out), inside = first.left.shape, first.inputs.shape[2] + first.ones
    m, s = second.left.shape[:2]
    formed = (n * t + m * s) * out * inside + n * m * out * inside
    return n * m * t * s * (out + inside + 1) < formed
