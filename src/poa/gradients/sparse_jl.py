"""Sparse Johnson-Lindenstrauss projection: every coordinate is added, with random signs, to a few features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.errors import PoaError
from poa.gradients.dense_jl import one_block, require_size
from poa.gradients.draws import stream

if TYPE_CHECKING:
    from poa.gradients.capture import Block, Captured
    from poa.gradients.store import Gradients

Matrix = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SparseJL:
    """[n, p] -> [n, size]: `nonzeros` entries +-1/sqrt(nonzeros) for every coordinate, each in its own part of `size`.

    Dot products are unbiased; the cost is p x nonzeros additions whatever `size`. Gradients of at most `size`
    coordinates are kept as they are. Kane & Nelson 2014, JACM 61(1), block construction; GraSS, arXiv 2505.18976.
    """

    size: int
    nonzeros: int = 1
    seed: int = 0

    kind: ClassVar[str] = "sparse-jl"

    def __post_init__(self) -> None:
        require_size(self.size)
        if self.nonzeros < 1 or self.size % self.nonzeros:
            raise PoaError(f"nonzeros is {self.nonzeros}, must divide the projection size {self.size}")

    def drawn(self, name: str, width: int) -> tuple[Places, Matrix]:
        """Features [nonzeros, width] that each coordinate of block `name` is added to, and by what factor."""
        generator = stream("sparse-jl/1", self.seed, name)
        part = self.size // self.nonzeros
        places = generator.integers(0, part, (self.nonzeros, width)) + part * np.arange(self.nonzeros)[:, None]
        bits = np.unpackbits(np.frombuffer(generator.bytes((places.size + 7) // 8), np.uint8), count=places.size)
        unit = 1 / np.sqrt(self.nonzeros)
        return places, np.array([-unit, unit])[bits].reshape(places.shape)

    def apply(self, rows: Gradients) -> Matrix:
        values = rows.values
        if values.shape[1] <= self.size:
            return np.asarray(values)
        out = np.zeros((len(values), self.size))
        for block in rows.blocks:
            places, factors = self.drawn(block.name, block.stop - block.start)
            for into, row in zip(out, values, strict=True):
                one = np.asarray(row[block.start : block.stop], np.float64)
                for at, factor in zip(places, factors, strict=True):
                    into += np.bincount(at, one * factor, self.size)
        return out.astype(values.dtype)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        if blocks[-1].stop <= self.size:
            return features
        drawn = (self.drawn(block.name, block.stop - block.start) for block in blocks)
        return np.concatenate([(features[places] * factors).sum(0) for places, factors in drawn])

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        return one_block(self.size, blocks)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> SparseSketch:
        if blocks[-1].stop <= self.size:
            return SparseSketch(None, (), dtype)
        drawn = (self.drawn(block.name, block.stop - block.start) for block in blocks)
        found = [(torch.from_numpy(places), torch.from_numpy(factors).to(dtype)) for places, factors in drawn]
        return SparseSketch(self.size, tuple((b.name, *pair) for b, pair in zip(blocks, found, strict=True)), dtype)


@dataclass(frozen=True, eq=False)
class SparseSketch:
    """Per block (name, places [nonzeros, width], factors [nonzeros, width]); size None: gradients stay whole."""

    size: int | None
    parts: tuple[tuple[str, Tensor, Tensor], ...]
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `apply` makes of the rows."""
        if self.size is None:
            return captured.rows().to(self.dtype)
        out = captured.zeros(self.size, self.dtype)
        for name, places, factors in self.parts:
            for factor in captured.factors.get(name, ()):
                scatter(out, factor.dense().to(self.dtype), places, factors)
        return out


def scatter(out: Tensor, values: Tensor, places: Tensor, factors: Tensor) -> None:
    """Add values [n, w] to out [n, k]: column j, times factors[i, j], to column places[i, j] for every i."""
    for at, factor in zip(places, factors, strict=True):
        out.index_add_(1, at, values * factor)
