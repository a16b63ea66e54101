"""Dense random projections of whole gradients, drawn piece by piece: the p x k matrix never exists at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.errors import PoaError
from poa.gradients.capture import Block
from poa.gradients.draws import stream

if TYPE_CHECKING:
    from poa.gradients.capture import Captured
    from poa.gradients.store import Gradients

Matrix = npt.NDArray[np.floating[Any]]

PIECE = 256  # coordinates drawn at a time; part of what is drawn, so not to be changed
KEPT_BYTES = 256 << 20  # a prepared projection of at most this size is kept between batches


@dataclass(frozen=True)
class Gaussian:
    """[n, p] -> [n, size] by independent normal entries of variance 1/size: dot products are unbiased.

    Gradients of at most `size` coordinates are kept as they are. Drawing costs p x size normal numbers a pass.
    Johnson & Lindenstrauss 1984; as in TRAK, Park et al. 2023, arXiv 2303.14186, section 3.
    """

    size: int
    seed: int = 0

    kind: ClassVar[str] = "gaussian"

    def __post_init__(self) -> None:
        require_size(self.size)

    def piece(self, name: str, start: int, stop: int) -> Matrix:
        """[stop - start, size] what coordinates [start, stop) of block `name` are multiplied by."""
        drawn = stream("gaussian/1", self.seed, name, start).standard_normal((stop - start, self.size))
        return drawn / np.sqrt(self.size)

    def apply(self, rows: Gradients) -> Matrix:
        return _apply(self, rows)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        return _lift(self, features, blocks)

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        return one_block(self.size, blocks)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> DenseSketch:
        return DenseSketch(self, tuple(blocks), dtype)


@dataclass(frozen=True)
class Rademacher:
    """As `Gaussian` with entries +-1/sqrt(size): one random bit an entry. Achlioptas 2003, JCSS 66, theorem 1.1."""

    size: int
    seed: int = 0

    kind: ClassVar[str] = "rademacher"

    def __post_init__(self) -> None:
        require_size(self.size)

    def piece(self, name: str, start: int, stop: int) -> Matrix:
        count = (stop - start) * self.size
        bytes_ = np.frombuffer(stream("rademacher/1", self.seed, name, start).bytes((count + 7) // 8), np.uint8)
        signs = np.unpackbits(bytes_, count=count).reshape(stop - start, self.size)
        unit = 1 / np.sqrt(self.size)
        return np.array([-unit, unit])[signs]

    def apply(self, rows: Gradients) -> Matrix:
        return _apply(self, rows)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        return _lift(self, features, blocks)

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        return one_block(self.size, blocks)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> DenseSketch:
        return DenseSketch(self, tuple(blocks), dtype)


Dense: TypeAlias = Gaussian | Rademacher


@dataclass(frozen=True, eq=False)
class DenseSketch:
    """Projects gradients that are still factored, a block at a time; pieces are kept while all of them fit."""

    projection: Dense
    blocks: tuple[Block, ...]
    dtype: torch.dtype
    kept: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `apply` makes of the rows."""
        size, width = self.projection.size, self.blocks[-1].stop
        if width <= size:
            return captured.rows().to(self.dtype)
        keep = width * size * self.dtype.itemsize <= KEPT_BYTES
        out = captured.zeros(size, self.dtype)
        for block in self.blocks:
            for factor in captured.factors.get(block.name, ()):
                values = factor.dense().to(self.dtype)
                for start, stop in _pieces(block):
                    out += values[:, start:stop] @ self._piece(block.name, start, stop, keep, out.device)
        return out

    def _piece(self, name: str, start: int, stop: int, keep: bool, device: torch.device) -> Tensor:
        found = self.kept.get((name, start))
        if found is None:
            found = torch.from_numpy(self.projection.piece(name, start, stop)).to(device, self.dtype)
            if keep:
                self.kept[name, start] = found
        return found


def require_size(size: int) -> None:
    """Raise `PoaError` for a projection to nothing."""
    if size < 1:
        raise PoaError(f"projection size is {size}, must be 1 or more")


def one_block(size: int, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Layout of features that mix all layers; that of the gradient where it is no wider than `size`."""
    return tuple(blocks) if blocks[-1].stop <= size else (Block("all", 0, size, (1, size)),)


def _pieces(block: Block) -> Iterator[tuple[int, int]]:
    width = block.stop - block.start
    return ((start, min(start + PIECE, width)) for start in range(0, width, PIECE))


def _apply(projection: Dense, rows: Gradients) -> Matrix:
    values = rows.values
    if values.shape[1] <= projection.size:
        return np.asarray(values)
    out = np.zeros((len(values), projection.size))
    for block in rows.blocks:
        for start, stop in _pieces(block):
            drawn = projection.piece(block.name, start, stop)
            part = np.asarray(values[:, block.start + start : block.start + stop], np.float64)
            # One example at a time: a row's bytes must not depend on how many rows share the product.
            for into, one in zip(out, part, strict=True):
                into += one @ drawn
    return out.astype(values.dtype)


def _lift(projection: Dense, features: Matrix, blocks: Sequence[Block]) -> Matrix:
    if blocks[-1].stop <= projection.size:
        return features
    parts = [projection.piece(block.name, *ends) @ features for block in blocks for ends in _pieces(block)]
    return np.concatenate(parts)
