"""GraSS and FactGraSS: most coordinates are left out before the rest is projected sparsely (arXiv 2505.18976)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.gradients.capture import Block
from poa.gradients.draws import stream
from poa.gradients.factors import Factor, Lookup, Outer
from poa.gradients.masks import Mask, Picked
from poa.gradients.sparse_jl import SparseJL, scatter
from poa.gradients.store import Gradients

if TYPE_CHECKING:
    from poa.gradients.capture import Captured

Matrix = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grass:
    """A random mask of `kept` coordinates of the whole gradient, then sparse Johnson-Lindenstrauss to `size`."""

    size: int
    kept: int
    nonzeros: int = 1
    seed: int = 0

    kind: ClassVar[str] = "grass"

    def __post_init__(self) -> None:
        _ = self.mask, self.sparse  # refuses settings that neither stage can have

    @property
    def mask(self) -> Mask:
        return Mask(self.kept, self.seed)

    @property
    def sparse(self) -> SparseJL:
        return SparseJL(self.size, self.nonzeros, self.seed)

    def apply(self, rows: Gradients) -> Matrix:
        return self.sparse.apply(Gradients(self.mask.apply(rows), self.mask.layout(rows.blocks)))

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        return self.mask.lift(self.sparse.lift(features, self.mask.layout(blocks)), blocks)

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        return self.sparse.layout(self.mask.layout(blocks))

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> GrassSketch:
        between = self.mask.layout(blocks)
        if between[-1].stop <= self.size:
            return GrassSketch(self.mask.prepared(blocks, dtype), self.size, (), dtype)
        parts = [(b, *_tensors(self.sparse.drawn(b.name, b.stop - b.start), dtype)) for b in between]
        return GrassSketch(self.mask.prepared(blocks, dtype), self.size, tuple(parts), dtype)


@dataclass(frozen=True, eq=False)
class GrassSketch:
    """The kept entries, and per block of them (block, places, factors) of the sparse stage (none: it does nothing)."""

    picked: Picked
    size: int
    parts: tuple[tuple[Block, Tensor, Tensor], ...]
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `Grass.apply` makes of the rows."""
        values = self.picked.features(captured)
        if not self.parts:
            return values
        out = captured.zeros(self.size, self.dtype)
        for block, places, factors in self.parts:
            scatter(out, values[:, block.start : block.stop], places, factors)
        return out


@dataclass(frozen=True)
class FactGrass:
    """Per layer: random masks of `kept` outputs and `kept` inputs, then sparse Johnson-Lindenstrauss to `size`.

    The masked gradient is the outer product of masked factors, so only kept outputs and inputs are ever multiplied. A
    side of at most `kept` entries stays whole, a masked layer of at most `size` entries is not projected further.
    Masks are scaled so that dot products are unbiased.
    """

    size: int
    kept: int
    nonzeros: int = 1
    seed: int = 0

    kind: ClassVar[str] = "factgrass"

    def __post_init__(self) -> None:
        _ = Mask(self.kept), self.sparse

    @property
    def sparse(self) -> SparseJL:
        return SparseJL(self.size, self.nonzeros, self.seed)

    def side(self, name: str, side: str, size: int) -> Places:
        """Kept rows ("out") or columns ("in") of the gradient of block `name`, ascending."""
        if size <= self.kept:
            return np.arange(size)
        return np.sort(stream("factgrass/1", self.seed, name, side).permutation(size)[: self.kept])

    def masked(self, block: Block) -> tuple[Places, Places, float, Block]:
        """Kept rows, kept columns, the scale that makes up for the others, and the block that is left."""
        rows, columns = self.side(block.name, "out", block.shape[0]), self.side(block.name, "in", block.shape[1])
        count = len(rows) * len(columns)
        scale = float(np.sqrt((block.stop - block.start) / count))
        return rows, columns, scale, Block(block.name, 0, count, (len(rows), len(columns)))

    def apply(self, rows: Gradients) -> Matrix:
        parts: list[Matrix] = []
        for block in rows.blocks:
            outs, ins, scale, left = self.masked(block)
            cube = rows.block(block).reshape(-1, *block.shape)
            values = (cube[:, outs[:, None], ins] * scale).reshape(len(cube), left.stop)
            parts.append(self.sparse.apply(Gradients(values, (left,))))
        return np.concatenate(parts, 1).astype(rows.values.dtype)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        parts: list[Matrix] = []
        start = 0
        for block in blocks:
            outs, ins, scale, left = self.masked(block)
            width = min(self.size, left.stop)
            core = self.sparse.lift(features[start : start + width], (left,))
            start += width
            whole = np.zeros(block.shape, core.dtype)
            whole[outs[:, None], ins] = core.reshape(left.shape) * scale
            parts.append(whole.ravel())
        return np.concatenate(parts)

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        out: list[Block] = []
        start = 0
        for block in blocks:
            left = self.masked(block)[3]
            shape = left.shape if left.stop <= self.size else (1, self.size)
            out.append(Block(block.name, start, start + shape[0] * shape[1], shape))
            start = out[-1].stop
        return tuple(out)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> FactGrassSketch:
        parts: list[_Layer] = []
        for block in blocks:
            outs, ins, scale, left = self.masked(block)
            drawn = None if left.stop <= self.size else _tensors(self.sparse.drawn(left.name, left.stop), dtype)
            parts.append(_Layer(block, torch.from_numpy(outs), torch.from_numpy(ins), scale, drawn))
        return FactGrassSketch(tuple(parts), self.size, dtype)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Masks of one block, and the places and factors of its sparse stage (None: it does nothing)."""

    block: Block
    outs: Tensor
    ins: Tensor
    scale: float
    drawn: tuple[Tensor, Tensor] | None

    def masked(self, factor: Factor) -> Tensor:
        """[n, kept outs x kept ins] of the gradient, of which nothing else is multiplied out."""
        if isinstance(factor, Lookup):
            hit = (factor.ids.unsqueeze(2) == self.outs).to(factor.signal.dtype)
            return Outer(hit, factor.signal[:, :, self.ins]).dense()
        if isinstance(factor, Outer):
            return Outer(factor.left[:, :, self.outs], factor.right[:, :, self.ins]).dense()
        cube = factor.dense().view(-1, *self.block.shape)
        return cube[:, self.outs[:, None], self.ins].flatten(1)


@dataclass(frozen=True, eq=False)
class FactGrassSketch:
    """Masks and sparse stages of every block, drawn once."""

    layers: tuple[_Layer, ...]
    size: int
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `FactGrass.apply` makes of the rows."""
        parts: list[Tensor] = []
        for layer in self.layers:
            width = len(layer.outs) * len(layer.ins)
            zero = captured.zeros(width, self.dtype)
            values = sum((layer.masked(f) for f in captured.factors.get(layer.block.name, ())), zero) * layer.scale
            if layer.drawn is not None:
                projected = captured.zeros(self.size, self.dtype)
                scatter(projected, values, *layer.drawn)
                values = projected
            parts.append(values)
        return torch.cat(parts, 1)


def _tensors(drawn: tuple[Places, Matrix], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    places, factors = drawn
    return torch.from_numpy(places), torch.from_numpy(factors).to(dtype)
