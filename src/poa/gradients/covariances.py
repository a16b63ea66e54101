"""Kronecker factors of the Fisher: second moments of what a layer read and of what came back, token by token.

For one block of gradients sum_t l_t r_t^T the Fisher is taken as left x right, left = sum_t l_t l_t^T / N and
right = sum_t r_t r_t^T / M over the M tokens of N examples: tokens are treated as independent of one another, and the
two sides of a token too (Martens & Grosse 2015, arXiv 1503.05671; Grosse et al. 2023, arXiv 2308.03296, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from poa.gradients.factors import Factor, Lookup, Outer

if TYPE_CHECKING:
    from poa.gradients.capture import Block, Captured

# A side with more directions than this is kept as its diagonal: a vocabulary's V x V moments would not fit.
WIDEST = 8192
# Columns of one product: both triangles of a square of moments are equal, so only panels on and above are computed.
PANEL = 256
# Tokens of one product: short records wait for one another, because a wide sum in float64 is slow to add to.
ENOUGH = 1024


@dataclass(frozen=True, eq=False)
class Pairs:
    """The tokens of one factor that count: left [M, out] (or ids [M] of one-hot rows) and right [M, in].

    A token counts in a block, on both sides, exactly if the loss reaches it there: pads and what follows the last
    supervised token are out, context tokens are in wherever attention lets the loss see them.
    """

    left: Tensor
    right: Tensor


def pairs(factor: Factor) -> Pairs:
    """Outer and Lookup token by token; norms and unknown modules as one row of gradients per example, left = 1."""
    if isinstance(factor, Outer):
        reached = factor.left.any(2)
        inputs = factor.inputs[reached]
        ones = (inputs.new_ones(len(inputs), 1),) if factor.ones else ()
        return Pairs(factor.left[reached], torch.cat((inputs, *ones), 1))
    if isinstance(factor, Lookup):
        reached = factor.signal.any(2)
        return Pairs(factor.ids[reached], factor.signal[reached])
    rows = factor.dense()
    rows = rows[rows.any(1)]
    return Pairs(rows.new_ones(len(rows), 1), rows)


@dataclass(eq=False)
class _Sum:
    left: Tensor
    right: Tensor
    tokens: int = 0
    waiting: list[Pairs] = field(default_factory=list[Pairs])
    held: int = 0


@dataclass(frozen=True, eq=False)
class Sides:
    """A block's Fisher as left [out, out] x right [in, in], float64; a side of one axis is a diagonal."""

    left: Tensor
    right: Tensor


@dataclass(eq=False)
class Covariances:
    """Sums of moments over captured batches, in float64; add batches in a fixed order.

    exact: products in float64 as well (else in the dtype of the factors, some 1,000 tokens at a time). Examples are
    counted as they come, so a record with several drawn labels counts as often.
    """

    exact: bool = True
    widest: int = WIDEST
    examples: int = 0
    sums: dict[str, dict[str, _Sum]] = field(default_factory=dict[str, dict[str, _Sum]])

    def add(self, captured: Captured) -> None:
        self.examples += captured.count
        for block in captured.blocks:
            for factor in captured.factors.get(block.name, ()):
                kinds = self.sums.setdefault(block.name, {})
                kind = type(factor).__name__
                if kind not in kinds:
                    kinds[kind] = self._empty(factor, _shape(factor, block))
                self._count(kinds[kind], pairs(factor))

    def _empty(self, factor: Factor, shape: tuple[int, int]) -> _Sum:
        def zeros(size: int, diagonal: bool) -> Tensor:
            return torch.zeros((size,) if diagonal or size > self.widest else (size, size), dtype=torch.float64)

        return _Sum(zeros(shape[0], isinstance(factor, Lookup)), zeros(shape[1], False))

    def _count(self, into: _Sum, found: Pairs) -> None:
        into.waiting.append(found)
        into.tokens += len(found.right)
        into.held += len(found.right)
        if into.held >= ENOUGH:
            self._settle(into)

    def _settle(self, into: _Sum) -> None:
        """Add what waits."""
        if not into.waiting:
            return
        left, right = (torch.cat([getattr(each, side) for each in into.waiting]) for side in ("left", "right"))
        into.waiting, into.held = [], 0
        if left.is_floating_point():
            self._square(into.left, left)
        else:
            into.left += torch.bincount(left, minlength=len(into.left)).to(into.left.device)
        self._square(into.right, right)

    def _square(self, into: Tensor, rows: Tensor) -> None:
        rows = rows.double() if self.exact else rows
        if into.ndim == 1:
            into += rows.square().sum(0).to(into.device)
            return
        for start in range(0, rows.shape[1], PANEL):
            panel = rows[:, start:].T @ rows[:, start : start + PANEL]
            into[start:, start : start + PANEL] += panel.to(into.device)

    def sides(self) -> Mapping[str, Sides]:
        """Per block that the loss reached; several kinds of factors on one block (tied weights) become one product."""
        return {name: nearest([self._scaled(each) for each in kinds.values()]) for name, kinds in self.sums.items()}

    def _scaled(self, total: _Sum) -> Sides:
        self._settle(total)
        return Sides(_whole(total.left) / self.examples, _whole(total.right) / max(total.tokens, 1))


def _shape(factor: Factor, block: Block) -> tuple[int, int]:
    return block.shape if isinstance(factor, Outer | Lookup) else (1, block.stop - block.start)


def _whole(side: Tensor) -> Tensor:
    """Both triangles of a square of which the lower one was summed."""
    return side if side.ndim == 1 else side.tril() + side.tril(-1).T


def nearest(parts: list[Sides]) -> Sides:
    """left x right nearest (Frobenius) to the sum of left_k x right_k; one part is itself.

    A weight that is read by a head and by an embedding has two kinds of tokens, whose units have nothing in common:
    adding up their moments would let one of them drown the other. What the two kinds have to do with each other is
    not in any product; EK-FAC's eigenvalues see it. Van Loan & Pitsianis 1993, in the span of the parts.
    """
    if len(parts) == 1:
        return parts[0]
    lefts, rights = _alike([part.left for part in parts]), _alike([part.right for part in parts])
    gram_left, gram_right = (torch.stack([torch.stack([(a * b).sum() for b in s]) for a in s]) for s in (lefts, rights))
    values, vectors = torch.linalg.eig(gram_right @ gram_left)
    first = vectors[:, values.real.argmax()].real.abs()  # non-negative matrix: its leading vector has one sign
    second = gram_left @ first
    left = sum((w * side for w, side in zip(first, lefts, strict=True)), torch.zeros_like(lefts[0]))
    right = sum((w * side for w, side in zip(second, rights, strict=True)), torch.zeros_like(rights[0]))
    return Sides(left / (left * left).sum().clamp(min=torch.finfo(torch.float64).tiny), right)


def _alike(sides: list[Tensor]) -> list[Tensor]:
    """All diagonal, or all square."""
    square = any(side.ndim == 2 for side in sides)
    return [torch.diag(side) if square and side.ndim == 1 else side for side in sides]
