"""Projection by leaving out: a few coordinates of the gradient are kept, all others are never computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poa.errors import PoaError
from poa.gradients.dense_jl import one_block, require_size
from poa.gradients.draws import stream
from poa.gradients.factors import Factor, Lookup, Outer

if TYPE_CHECKING:
    from poa.gradients.capture import Block, Captured
    from poa.gradients.store import Gradients

Matrix = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int64]

# Entries picked one by one cost about this many times an entry of the whole product of two factors.
PICKING = 16


@dataclass(frozen=True)
class Mask:
    """[n, p] -> [n, size]: the coordinates `kept`, or `size` random ones scaled by sqrt(p/size), which is unbiased.

    Gradients of at most `size` coordinates are kept as they are. Given coordinates (see `by_scores`) are not scaled
    and not unbiased: what they leave out is gone. GraSS, arXiv 2505.18976, section 3.1.
    """

    size: int
    seed: int = 0
    kept: tuple[int, ...] | None = None

    kind: ClassVar[str] = "mask"

    def __post_init__(self) -> None:
        require_size(self.size)
        if self.kept is not None:
            object.__setattr__(self, "kept", tuple(sorted(map(int, self.kept))))
            if len(set(self.kept)) != self.size:
                raise PoaError(f"mask of size {self.size} is given {len(set(self.kept))} different coordinates")
            if self.kept[0] < 0:
                raise PoaError(f"mask keeps coordinate {self.kept[0]}, must be 0 or more")

    @staticmethod
    def by_scores(scores: Matrix, size: int) -> Mask:
        """Keep the `size` coordinates whose `scores` [p] are highest; of equal ones the first."""
        best = np.argsort(-np.asarray(scores), kind="stable")[:size]
        return Mask(len(best), kept=tuple(best.tolist()))

    def places(self, blocks: Sequence[Block]) -> Places:
        """Kept coordinates, ascending. Random ones have the lowest of numbers drawn per (seed, block name)."""
        if self.kept is not None:
            if self.kept[-1] >= blocks[-1].stop:
                raise PoaError(f"mask keeps coordinate {self.kept[-1]} of gradients with {blocks[-1].stop}")
            return np.array(self.kept)
        drawn = [stream("mask/1", self.seed, b.name).integers(0, 1 << 63, b.stop - b.start) for b in blocks]
        lowest = np.argsort(np.concatenate(drawn), kind="stable")[: self.size]
        return np.sort(lowest)

    def scale(self, blocks: Sequence[Block]) -> float:
        return 1.0 if self.kept is not None else float(np.sqrt(max(1.0, blocks[-1].stop / self.size)))

    def apply(self, rows: Gradients) -> Matrix:
        picked = np.asarray(rows.values[:, self.places(rows.blocks)], np.float64)
        return (picked * self.scale(rows.blocks)).astype(rows.values.dtype)

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        out = np.zeros(blocks[-1].stop, features.dtype)
        out[self.places(blocks)] = features * self.scale(blocks)
        return out

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        return one_block(self.size, blocks)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> Picked:
        places = self.places(blocks)
        local = [places[(places >= block.start) & (places < block.stop)] - block.start for block in blocks]
        return Picked(tuple(blocks), tuple(map(torch.from_numpy, local)), self.scale(blocks), dtype)


@dataclass(frozen=True, eq=False)
class Picked:
    """places: per block the kept coordinates, counted from the start of the block."""

    blocks: tuple[Block, ...]
    places: tuple[Tensor, ...]
    scale: float
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `Mask.apply` makes of the rows; where few entries are kept, no others are computed."""
        parts: list[Tensor] = []
        for block, places in zip(self.blocks, self.places, strict=True):
            found = [entries(factor, block.shape[1], places) for factor in captured.factors.get(block.name, ())]
            parts.append(sum(found, captured.zeros(len(places), self.dtype)))
        return torch.cat(parts, 1) * self.scale


@dataclass(frozen=True)
class Layers:
    """[n, p] -> [n, k]: the columns of the named blocks and no others.

    inputs: of every row of their matrices, only the first so many entries; a bias is the entry after the inputs.
    """

    names: tuple[str, ...]
    inputs: int | None = None

    kind: ClassVar[str] = "layers"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))

    def places(self, blocks: Sequence[Block]) -> Places:
        known = {block.name: np.arange(block.start, block.stop).reshape(block.shape) for block in blocks}
        for name in self.names:
            if name not in known:
                raise PoaError(f"no layer {name!r}; there are {', '.join(known)}")
        return np.concatenate([part[:, : self.inputs].ravel() for name, part in known.items() if name in self.names])

    def apply(self, rows: Gradients) -> Matrix:
        return np.ascontiguousarray(rows.values[:, self.places(rows.blocks)])

    def lift(self, features: Matrix, blocks: Sequence[Block]) -> Matrix:
        out = np.zeros(blocks[-1].stop, features.dtype)
        out[self.places(blocks)] = features
        return out

    def layout(self, blocks: Sequence[Block]) -> tuple[Block, ...]:
        out: list[Block] = []
        for block in blocks:
            if block.name in self.names:
                start, shape = out[-1].stop if out else 0, (block.shape[0], len(range(block.shape[1])[: self.inputs]))
                out.append(replace(block, start=start, stop=start + shape[0] * shape[1], shape=shape))
        return tuple(out)

    def prepared(self, blocks: Sequence[Block], dtype: torch.dtype) -> Chosen:
        _ = self.places(blocks)  # refuses an unknown name
        return Chosen(tuple(block for block in blocks if block.name in self.names), self.inputs, dtype)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The gradients of some blocks, multiplied out; of the others nothing is computed."""

    blocks: tuple[Block, ...]
    inputs: int | None
    dtype: torch.dtype

    def features(self, captured: Captured) -> Tensor:
        """[n, k] what `Layers.apply` makes of the rows."""
        return torch.cat([self._block(block, captured) for block in self.blocks], 1)

    def _block(self, block: Block, captured: Captured) -> Tensor:
        whole = sum(
            (factor.dense() for factor in captured.factors.get(block.name, ())),
            captured.zeros(block.stop - block.start, self.dtype),
        )
        return whole.unflatten(1, block.shape)[:, :, : self.inputs].flatten(1)


def entries(factor: Factor, columns: int, places: Tensor) -> Tensor:
    """[n, m] entries of the gradient at flat `places` [m] of its matrix with so many `columns`."""
    rows, at = places // columns, places % columns
    if isinstance(factor, Lookup):
        hit = factor.ids.unsqueeze(2) == rows
        return (factor.signal[:, :, at] * hit).sum(1)
    if isinstance(factor, Outer) and len(places) * PICKING < factor.left.shape[2] * factor.right.shape[2]:
        return (factor.left[:, :, rows] * factor.right[:, :, at]).sum(1)
    return factor.dense()[:, places]
