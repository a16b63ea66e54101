"""What a projection is, the list of them, and the two-sided one (LoGra): P_out^T G P_in per layer."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.errors import Mismatch
from poa.gradients.capture import Block
from poa.gradients.dense_jl import Gaussian, Rademacher
from poa.gradients.draws import stream
from poa.gradients.factors import Factor, Lookup, Outer
from poa.gradients.grass import FactGrass, Grass
from poa.gradients.masks import Layers, Mask
from poa.gradients.sparse_jl import SparseJL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from poa.gradients.capture import Captured
    from poa.gradients.store import Gradients

Matrix = npt.NDArray[np.floating[Any]]


class Prepared(Protocol):
    """A projection with everything drawn, for gradients that are still factored; immutable in effect."""

    def features(self, captured: Captured) -> Tensor:
        """[n, k] the projection of the rows of `captured`, to rounding, without forming more of them than it must."""
        ...


class Projection(Protocol):
    """A linear map of gradient rows [n, p] to [n, k] that a seed determines; a frozen dataclass of plain settings."""

    kind: ClassVar[str]

    def apply(self, rows: Gradients) -> Matrix:
        """[n, k] in the dtype of `rows`; a row's bytes depend on that row alone."""
        ...

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        """[p] the transpose applied to `features` [k]."""
        ...

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        """Where features stand: one block per layer (shape as projected) or one for all."""
        ...

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> Prepared:
        """The same map for factored gradients with these `blocks`, computing in `dtype`."""
        ...


@dataclass(frozen=True)
class TwoSided:
    """Gaussian factors of at most `width` columns a side, drawn per (seed, layer name, side).

    A side that is already as narrow as `width` is kept as it is, so full width equals no projection. Entries have
    variance 1/width: dot products are unbiased. Choe et al. 2024 (LoGra), arXiv 2405.13954, section 3.
    """

    width: int
    seed: int = 0

    kind: ClassVar[str] = "two-sided"

    def factor(self, name: str, side: str, size: int) -> Matrix | None:
        """[size, width] factor, or None where the side stays whole."""
        if size <= self.width:
            return None
        return stream("two-sided/1", self.seed, name, side).standard_normal((size, self.width)) / np.sqrt(self.width)

    def apply(self, rows: Gradients) -> Matrix:
        """[n, k] projected rows, layers in order."""
        parts: list[Matrix] = []
        for block in rows.blocks:
            cube = rows.block(block).reshape(-1, *block.shape)
            left = self.factor(block.name, "out", block.shape[0])
            right = self.factor(block.name, "in", block.shape[1])
            # One example at a time: a row's bytes must not depend on how many rows share the product.
            width = (self.width if left is not None else block.shape[0]) * (
                self.width if right is not None else block.shape[1]
            )
            part = np.zeros((len(cube), width))
            for row, one in zip(part, cube, strict=True):
                row[:] = _project(one, left, right).ravel()
            parts.append(part)
        return np.concatenate(parts, 1).astype(rows.values.dtype)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        """[p] the direction whose dot product with a gradient equals that of `features` [k] with its projection."""
        parts: list[Matrix] = []
        start = 0
        for block in blocks:
            left = self.factor(block.name, "out", block.shape[0])
            right = self.factor(block.name, "in", block.shape[1])
            shape = tuple(self.width if f is not None else n for f, n in zip((left, right), block.shape, strict=True))
            core = np.asarray(features[start : start + shape[0] * shape[1]]).reshape(shape)
            start += shape[0] * shape[1]
            wide = core if left is None else left @ core
            parts.append((wide if right is None else wide @ right.T).ravel())
        return np.concatenate(parts)

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        out: list[Block] = []
        for block in blocks:
            shape = (min(block.shape[0], self.width), min(block.shape[1], self.width))
            start = out[-1].stop if out else 0
            out.append(Block(block.name, start, start + shape[0] * shape[1], shape))
        return tuple(out)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> Sketch:
        """The factors of all `blocks`, drawn once, for gradients that are still factored."""

        def drawn(block: Block, side: str, size: int) -> Tensor | None:
            factor = self.factor(block.name, side, size)
            return None if factor is None else torch.from_numpy(factor).to(dtype)

        pairs = [(drawn(block, "out", block.shape[0]), drawn(block, "in", block.shape[1])) for block in blocks]
        return Sketch(tuple(blocks), tuple(pairs), dtype)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Drawn factors (out, in) per block; None where a side stays whole."""

    blocks: tuple[Block, ...]
    pairs: tuple[tuple[Tensor | None, Tensor | None], ...]
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `TwoSided.apply` makes of the rows, without forming them: each factor is projected by itself."""
        parts: list[Tensor] = []
        for block, (left, right) in zip(self.blocks, self.pairs, strict=True):
            factors = captured.factors.get(block.name, ())
            found = [self._projected(factor, block, left, right) for factor in factors]
            shape = [size if f is None else f.shape[1] for f, size in zip((left, right), block.shape, strict=True)]
            parts.append(sum(found[1:], found[0]) if found else captured.zeros(shape[0] * shape[1], self.dtype))
        return torch.cat(parts, 1)

    @staticmethod
    def _projected(factor: Factor, block: Block, left: Tensor | None, right: Tensor | None) -> Tensor:
        if isinstance(factor, Lookup) and left is not None:
            factor = Outer(left[factor.ids], factor.signal)
            left = None
        if isinstance(factor, Outer):
            thin = factor.left if left is None else factor.left.to(left.dtype) @ left
            wide = factor.right if right is None else factor.right_times(right)
            return Outer(thin, wide).dense()
        cube = factor.dense().view(-1, *block.shape)
        cube = cube if right is None else cube @ right
        return (cube if left is None else left.T @ cube).flatten(1)


def _project(gradient: Matrix, left: Matrix | None, right: Matrix | None) -> Matrix:
    if right is not None:
        gradient = gradient @ right
    return gradient if left is None else left.T @ gradient


def placed(prepared: Any, device: torch.device) -> Any:
    """A prepared projection with all that was drawn on `device`, where the gradients are."""
    if isinstance(prepared, Tensor):
        return prepared.to(device)
    if isinstance(prepared, tuple):
        return tuple(placed(part, device) for part in prepared)
    if is_dataclass(prepared) and not isinstance(prepared, type):
        parts = {each.name: placed(getattr(prepared, each.name), device) for each in fields(prepared) if each.init}
        return replace(prepared, **parts)
    return prepared


def projection_of(plain: Mapping[str, Any]) -> Projection:
    """The projection that {"kind", "settings"} describes; raises `Mismatch` for a kind that is not known."""
    kinds = {kind.kind: kind for kind in (TwoSided, Gaussian, Rademacher, SparseJL, Mask, Layers, Grass, FactGrass)}
    if plain["kind"] not in kinds:
        raise Mismatch(f"projection {plain['kind']!r} is not known; known are {', '.join(kinds)}")
    return kinds[plain["kind"]](**plain["settings"])
