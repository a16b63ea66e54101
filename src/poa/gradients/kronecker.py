"""K-FAC and EK-FAC curvature of a run: fitted once, kept in the run's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from poa.digests import plain_digest
from poa.errors import Unsupported
from poa.files import alone
from poa.gradients.capture import Block, Captured
from poa.gradients.covariances import Covariances
from poa.gradients.damping import NOTHING
from poa.gradients.eigenbases import Eigenbasis, KroneckerInverse, eigenbasis
from poa.gradients.passes import Fisher, Passes
from poa.indexes import load_index, save_index

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

VERSION = 2
Curvature = Mapping[str, Eigenbasis]


def kronecker(run: TrainingRun, positions: tuple[int, ...], fisher: Fisher, *, corrected: bool) -> Curvature:
    """Per block an eigenbasis of the Fisher of the mean loss, averaged over checkpoint `positions`.

    corrected: eigenvalues E[(left^T g right)^2] of per-example gradients g over the same examples and draws (EK-FAC,
    George et al. 2018, arXiv 1806.03884), else products of the sides' own (K-FAC). Records go through the model one at
    a time and unpadded, in the order of their digests (`Passes`). A layer that the loss does not reach has spectrum 0.
    """
    passes = Passes(run, positions, fisher, None if corrected else 0)
    with alone(run.cache / "curvature"):
        bases = _kept(passes, "bases", lambda: _bases(passes))
        return _kept(passes, "corrected", lambda: _corrected(passes, bases)) if corrected else bases


def _bases(passes: Passes) -> Curvature:
    moments = Covariances(exact=False)
    blocks: tuple[Block, ...] = ()
    for captured in passes.once("moments"):
        moments.add(captured)
        blocks = captured.blocks
    return bases_of(moments, blocks)


def bases_of(moments: Covariances, blocks: tuple[Block, ...]) -> Curvature:
    """The eigenbasis of every block, in order."""
    sides = moments.sides()
    none = {block.name: Eigenbasis(None, None, torch.zeros(block.shape, dtype=torch.float64)) for block in blocks}
    return {name: eigenbasis(sides[name]) if name in sides else empty for name, empty in none.items()}


def _corrected(passes: Passes, bases: Curvature) -> Curvature:
    squares = Squares(bases)
    for captured in passes.once("eigenvalues"):
        squares.add(captured)
    return squares.curvature(bases)


class Squares:
    """Sums of squared coordinates of per-example gradients in given bases.

    A coordinate is had in the dtype of the gradients, the sums in float64.
    """

    def __init__(self, bases: Curvature) -> None:
        self.bases = bases
        self.examples = 0
        self.sums: dict[str, Tensor] = {}
        self.cast: dict[str, Eigenbasis] = {}
        self.eps = torch.finfo(torch.float64).eps

    def add(self, captured: Captured) -> None:
        self.examples += captured.count
        for name, factors in captured.factors.items():
            if name not in self.cast:
                self.cast[name] = self.bases[name].like(captured.zeros(0))
                self.eps = max(self.eps, torch.finfo(factors[0].dtype).eps)
            found = self.cast[name].rotated(factors).square_().sum(0)
            self.sums[name] = self.sums[name].add_(found) if name in self.sums else found.double()

    def curvature(self, bases: Curvature) -> Curvature:
        """`bases` with these eigenvalues; what is rounding beside the largest is exactly 0."""
        out: dict[str, Eigenbasis] = {}
        for name, basis in bases.items():
            spectrum = self.sums.get(name, torch.zeros_like(basis.spectrum)).cpu() / max(self.examples, 1)
            floor = (sum(spectrum.shape) * self.eps) ** 2 * float(spectrum.max())
            out[name] = Eigenbasis(basis.left, basis.right, torch.where(spectrum > floor, spectrum, 0.0))
        return out


def inverse(curvature: Curvature, damping: float, count: int, scale: float = 1.0) -> KroneckerInverse:
    """`scale` (F + lambda)^-1 of all blocks, lambda = `damping` x trace F / `count`, the number of training records.

    One lambda for the whole model, as a prior on its weights has: a lambda relative to each block's own curvature
    raises blocks that hardly matter to the level of the others. damping=0 is the pseudo-inverse. Raises `Unsupported`
    where every gradient is zero.
    """
    bases = tuple(curvature.values())
    trace = sum(basis.trace for basis in bases)
    if trace == 0:
        raise Unsupported(NOTHING)
    return KroneckerInverse(bases, damping * trace / count, scale)


def _kept(passes: Passes, kind: str, make: Callable[[], Curvature]) -> Curvature:
    """What `make` gives, made once per (run, checkpoints, Fisher, threads)."""
    run, fisher = passes.run, passes.fisher
    steps = [run.checkpoints[position] for position in passes.positions]
    said = [VERSION, run.digest, steps, fisher.labels, fisher.draws, fisher.coordinates, torch.get_num_threads()]
    folder = run.cache / "curvature" / f"{kind}-{plain_digest(said)[:24]}"
    if not folder.exists():
        save_index(folder, kind, *_plain(make()))
    _, arrays, meta = load_index(folder)
    names: list[str] = meta["blocks"]

    def array(at: int, part: str) -> Any:
        found = arrays.get(f"{at}.{part}")
        return None if found is None else torch.from_numpy(found)

    return {
        name: Eigenbasis(array(at, "left"), array(at, "right"), array(at, "spectrum")) for at, name in enumerate(names)
    }


def _plain(curvature: Curvature) -> tuple[dict[str, npt.NDArray[Any]], dict[str, object]]:
    parts = {
        f"{at}.{part}": getattr(basis, part)
        for at, basis in enumerate(curvature.values())
        for part in ("left", "right", "spectrum")
    }
    return {key: part.numpy() for key, part in parts.items() if part is not None}, {"blocks": list(curvature)}
