"""K-FAC and EK-FAC curvature of a run: fitted once, kept in the run's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.files import alone
from poa.gradients.capture import Block, Captured, capturing
from poa.gradients.covariances import Covariances
from poa.gradients.eigenbases import Eigenbasis, KroneckerInverse, eigenbasis
from poa.indexes import load_index, save_index
from poa.progress import track

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

VERSION = 1
Curvature = Mapping[str, Eigenbasis]


@dataclass(frozen=True)
class Fisher:
    """Whose second moments: labels="sampled" draws labels from the model, `draws` times a record (the Fisher, which is
    the Gauss-Newton matrix of a cross entropy); "data" takes the record's own (the empirical Fisher).
    """

    labels: str = "sampled"
    draws: int = 1
    coordinates: str = "adapter"

    def __post_init__(self) -> None:
        if self.labels not in ("sampled", "data"):
            raise PoaError(f"labels is {self.labels!r}, must be sampled or data")
        if self.draws < 1 or (self.labels == "data" and self.draws > 1):
            raise PoaError(f"draws is {self.draws}, must be 1 or more, and 1 where labels are those of the data")

    @property
    def side(self) -> str:
        return "sampled" if self.labels == "sampled" else "train"


def kronecker(run: TrainingRun, positions: tuple[int, ...], fisher: Fisher, *, corrected: bool) -> Curvature:
    """Per block an eigenbasis of the Fisher of the mean loss, averaged over checkpoint `positions`.

    corrected: eigenvalues E[(left^T g right)^2] of per-example gradients g over the same examples and draws (EK-FAC,
    George et al. 2018, arXiv 1806.03884), else products of the sides' own (K-FAC). Records go through the model one at
    a time and unpadded, in the order of their digests: nothing depends on a batch size or on the manifest's order.
    A layer that the loss does not reach has spectrum 0.
    """
    with alone(run.cache / "curvature"):
        bases = _kept(run, positions, fisher, "bases", lambda: _bases(run, positions, fisher))
        if corrected:
            return _kept(run, positions, fisher, "corrected", lambda: _corrected(run, positions, fisher, bases))
        return bases


def _bases(run: TrainingRun, positions: tuple[int, ...], fisher: Fisher) -> Curvature:
    moments = Covariances(exact=False)
    blocks: tuple[Block, ...] = ()
    for captured in captures(run, positions, fisher, "moments"):
        moments.add(captured)
        blocks = captured.blocks
    return bases_of(moments, blocks)


def bases_of(moments: Covariances, blocks: tuple[Block, ...]) -> Curvature:
    """The eigenbasis of every block, in order."""
    sides = moments.sides()
    none = {block.name: Eigenbasis(None, None, torch.zeros(block.shape, dtype=torch.float64)) for block in blocks}
    return {name: eigenbasis(sides[name]) if name in sides else empty for name, empty in none.items()}


def _corrected(run: TrainingRun, positions: tuple[int, ...], fisher: Fisher, bases: Curvature) -> Curvature:
    squares = Squares(bases)
    for captured in captures(run, positions, fisher, "eigenvalues"):
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
            dtype = factors[0].dtype
            if name not in self.cast:
                self.cast[name] = self.bases[name].to(dtype)
                self.eps = max(self.eps, torch.finfo(dtype).eps)
            found = self.cast[name].rotated(factors).square_().sum(0)
            self.sums[name] = self.sums[name].add_(found) if name in self.sums else found.double()

    def curvature(self, bases: Curvature) -> Curvature:
        """`bases` with these eigenvalues; what is rounding beside the largest is exactly 0."""
        out: dict[str, Eigenbasis] = {}
        for name, basis in bases.items():
            spectrum = self.sums.get(name, torch.zeros_like(basis.spectrum)) / max(self.examples, 1)
            floor = (sum(spectrum.shape) * self.eps) ** 2 * float(spectrum.max())
            out[name] = Eigenbasis(basis.left, basis.right, torch.where(spectrum > floor, spectrum, 0.0))
        return out


def captures(run: TrainingRun, positions: tuple[int, ...], fisher: Fisher, what: str) -> Iterator[Captured]:
    """Factors of every record, one at a time, in the order of their digests; every checkpoint, every draw."""
    ordered = sorted(run.corpus, key=lambda record: (record.digest, record.id))
    for position in positions:
        with capturing(run.task, run.model(position), fisher.coordinates) as capture:
            for record in track(ordered, what, len(ordered)):
                for draw in range(fisher.draws):
                    yield capture.factors([record], fisher.side, draw)


def inverse(curvature: Curvature, damping: float, scale: float = 1.0) -> KroneckerInverse:
    """`scale` (F + lambda)^-1 block by block, lambda = `damping` x the block's mean eigenvalue.

    damping=0 is the pseudo-inverse.
    """
    lambdas = tuple(damping * basis.mean for basis in curvature.values())
    return KroneckerInverse(tuple(curvature.values()), lambdas, scale)


def _kept(
    run: TrainingRun, positions: tuple[int, ...], fisher: Fisher, kind: str, make: Callable[[], Curvature]
) -> Curvature:
    """What `make` gives, made once per (run, checkpoints, Fisher, threads)."""
    steps = [run.checkpoints[position] for position in positions]
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
