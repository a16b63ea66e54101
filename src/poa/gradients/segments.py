"""A training as a few segments of constant curvature and rate, for SOURCE (arXiv 2405.12186)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.gradients.kronecker import kronecker
from poa.gradients.moments import adam_rows
from poa.gradients.passes import Fisher
from poa.gradients.store import Gradients, gradients
from poa.gradients.trajectory import moments_of, optimizer_of, record_rates

if TYPE_CHECKING:
    from poa.gradients.capture import Block
    from poa.gradients.eigenbases import Eigenbasis
    from poa.protocols import TrainingRun

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Segment:
    """rows: [N, p] mean over the segment's checkpoints of -grad loss. time: sum of effective rates.

    bases, spectra: per block the eigenbasis and the eigenvalues [out, in] in it; scale: [p] root of the optimizer's
    diagonal (1 for SGD).
    """

    rows: Matrix
    blocks: tuple[Block, ...]
    bases: tuple[Eigenbasis, ...]
    spectra: tuple[Matrix64, ...]
    scale: Matrix64
    time: float
    told: dict[str, Any]

    def times(self, rows: Matrix64, function: Callable[[Matrix64], Matrix64]) -> Matrix64:
        """[n, p] rows P^1/2 f(P^1/2 H P^1/2) P^-1/2, f on eigenvalues."""
        scaled = rows / self.scale
        parts = [
            basis.apply(scaled[:, block.start : block.stop], function(spectrum))
            for block, basis, spectrum in zip(self.blocks, self.bases, self.spectra, strict=True)
        ]
        return np.concatenate(parts, 1) * self.scale

    def learned(self) -> Matrix64:
        """[N, p] what the segment's steps on each record moved the weights by: P^1/2 (1 - e^-TH) / H P^1/2 rows / N."""
        start = np.asarray(self.rows, np.float64) * self.scale**2 / len(self.rows)
        return self.times(start, self._moved)

    def forgotten(self, rows: Matrix64) -> Matrix64:
        """[n, p] what is left of a displacement of the weights after the segment."""
        return self.times(rows, lambda values: np.exp(-self.time * values))

    def _moved(self, values: Matrix64) -> Matrix64:
        """(1 - e^-T h) / h, which is T where h is 0."""
        small = self.time * values < 1e-8
        safe = np.where(small, 1.0, values)
        return np.where(small, self.time, -np.expm1(-self.time * safe) / safe)


def segmented(run: TrainingRun, count: int, draws: int) -> tuple[Segment, ...]:
    """At most `count` segments of the run's checkpoints, in order."""
    positions = np.array_split(np.arange(len(run.checkpoints)), min(count, len(run.checkpoints)))
    return tuple(_segment(run, tuple(int(p) for p in part), draws) for part in positions)


def _segment(run: TrainingRun, positions: tuple[int, ...], draws: int) -> Segment:
    rule = optimizer_of(run)
    first = run.checkpoints[positions[0] - 1] if positions[0] else 0
    last = run.checkpoints[positions[-1]]
    time = float(record_rates(run, first, last).sum()) / (1 - rule.momentum)
    found = [gradients(run, position, run.corpus, "train") for position in positions]
    rows = np.mean([each.values for each in found], 0) if len(found) > 1 else found[0].values
    curvature = kronecker(run, positions, Fisher(draws=draws), corrected=True)
    blocks, bases = found[0].blocks, tuple(curvature[block.name] for block in found[0].blocks)
    scale = np.ones(rows.shape[1])
    spectra = tuple(basis.spectrum.numpy() for basis in bases)
    if rule.kind == "adamw":
        scale = _root(run, blocks, positions[-1])
        spectra = _rescaled(run, positions, blocks, bases, scale)
    told = {"steps": [first, last], "time": time, "largest": float(max(part.max() for part in spectra))}
    return Segment(rows, blocks, bases, spectra, scale, time, told)


def _root(run: TrainingRun, blocks: tuple[Block, ...], position: int) -> Matrix64:
    """[p] root of 1 / (sqrt(nu) + eps), nu with its bias correction."""
    moments = moments_of(run, position)
    assert moments is not None
    _, second = adam_rows(run, blocks, position, moments)
    return 1 / np.sqrt(np.sqrt(second / (1 - moments.betas[1] ** moments.steps)) + moments.eps)


def _rescaled(
    run: TrainingRun,
    positions: tuple[int, ...],
    blocks: tuple[Block, ...],
    bases: tuple[Eigenbasis, ...],
    scale: Matrix64,
) -> tuple[Matrix64, ...]:
    """Second moments of scaled gradients, with labels drawn from the model, in the unscaled eigenbasis."""
    sums = [np.zeros(basis.spectrum.shape) for basis in bases]
    for position in positions:
        drawn: Gradients = gradients(run, position, run.corpus, "sampled")
        for total, block, basis in zip(sums, blocks, bases, strict=True):
            part = drawn.block(block) * scale[block.start : block.stop]
            for row in part:
                total += basis.coordinates(row) ** 2
    return tuple(total / (len(positions) * len(run.corpus)) for total in sums)


def unrolled(parts: tuple[Segment, ...]) -> Matrix64:
    """[N, p] by how much each record's presence moved the final weights."""
    out = np.zeros(parts[0].rows.shape)
    for part in parts:
        out = part.forgotten(out) + part.learned()
    return out
