"""Passes over the per-example gradients of a run, for curvature: the same factors every time, computed as rarely."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import psutil

from poa.errors import PoaError
from poa.gradients.capture import Captured, capturing
from poa.gradients.factors import tensors
from poa.progress import track

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

# Factors that a first pass may leave in memory for the next: at most this, and a quarter of what is free.
ROOM = 2 << 30


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


@dataclass(eq=False)
class Passes:
    """Factors of every record, one at a time and unpadded, in the order of their digests; every checkpoint and draw.

    Nothing depends on a batch size or on the manifest's order. The first pass keeps what `room` bytes hold (None:
    `ROOM`, or a quarter of the free memory if that is less), a later one computes the rest again: same numbers, less
    time. Drop the object to give the memory back.
    """

    run: TrainingRun
    positions: tuple[int, ...]
    fisher: Fisher
    room: int | None = None
    kept: list[Captured] = field(default_factory=list[Captured])
    full: bool = False

    def once(self, what: str) -> Iterator[Captured]:
        """One pass; `what` is shown beside its progress."""
        count = len(self.run.corpus) * len(self.positions) * self.fisher.draws
        yield from track(self._all(), what, count)

    def _all(self) -> Iterator[Captured]:
        yield from (held := list(self.kept))
        left = (_free() if self.room is None else self.room) if not self.full else 0
        for captured in self._computed(len(held)):
            left -= _size(captured)
            if left >= 0:
                self.kept.append(captured)
            yield captured
        self.full = True

    def _computed(self, start: int) -> Iterator[Captured]:
        """From number `start` on; a checkpoint that nothing is asked of is not loaded."""
        ordered = sorted(self.run.corpus, key=lambda record: (record.digest, record.id))
        jobs = [(record, draw) for record in ordered for draw in range(self.fisher.draws)]
        for at, position in enumerate(self.positions):
            skipped = max(0, start - at * len(jobs))
            if skipped >= len(jobs):
                continue
            with capturing(self.run.task, self.run.model(position), self.fisher.coordinates) as capture:
                for record, draw in islice(jobs, skipped, None):
                    yield capture.factors([record], self.fisher.side, draw)


def _free() -> int:
    """What is available, not what is unused: files that the system keeps at hand make room when asked."""
    return min(ROOM, psutil.virtual_memory().available // 4)


def _size(captured: Captured) -> int:
    """Bytes of the tensors that it keeps alive."""
    parts = (part for factors in captured.factors.values() for factor in factors for part in tensors(factor))
    return sum(part.untyped_storage().nbytes() for part in parts)
