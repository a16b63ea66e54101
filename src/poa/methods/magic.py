"""MAGIC: the derivative of the final measurement by every record's weight, through the whole training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from poa.errors import PoaError
from poa.gradients.unrolled import UnrolledIndex, programmed

if TYPE_CHECKING:
    from poa.protocols import TrainingRun


@dataclass(frozen=True)
class MAGIC:
    """score(q, i) = d m_q / d w_i, w_i the factor on record i's loss wherever it occurs.

    The training is a program of arrays (JAX); it is run, then reversed step by step with the queries' gradients as up
    to `stack` stacked cotangents (None: as many as suit the network), computing states again from every sqrt(T)-th one.
    Exact for this run: order, rates, optimizer and seed. `smooth`: the least metasmoothness at which it answers (0 =
    not tested); a training that is not smooth in its weights has a derivative that says nothing about removal, and one
    that foretells those test trainings worse than no change would is refused, too. Nats. float32 or float64 only.

    `probes`: answer all queries of one call from so many reversals, of the combinations of their gradients that leave
    least of them out (`poa.gradients.probes`). Exact where there are no more queries than probes; otherwise a query's
    scores depend on what else is asked, and `kept` says how much of the queries the probes span.
    """

    stack: int | None = None
    smooth: float = 0.9
    seed: int = 0
    probes: int | None = None

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "a run that poa trained, of a shape known to JAX"
    cost: ClassVar[str] = "17 trainings at once for the test; about 4 trainings per query, stacked"
    citation: ClassVar[str] = (
        "Ilyas & Engstrom, MAGIC: Near-optimal data attribution for deep learning, 2025, arXiv 2504.16430; Engstrom et "
        "al., Optimizing ML training with metagradient descent, 2025, arXiv 2503.13751; probes after arXiv 2609.15044"
    )

    def __post_init__(self) -> None:
        if self.stack is not None and not _whole(self.stack, 1):
            raise PoaError(f"magic.stack is {self.stack!r}, must be 1 or more")
        if self.probes is not None and not _whole(self.probes, 1):
            raise PoaError(f"magic.probes is {self.probes!r}, must be 1 or more (or none, for exact scores)")
        if not _share(self.smooth):
            raise PoaError(f"magic.smooth is {self.smooth!r}, must lie between 0 and 1")
        if not _whole(self.seed, 0):
            raise PoaError(f"magic.seed is {self.seed!r}, must be an integer of 0 or more")

    def fit(self, run: TrainingRun) -> UnrolledIndex:
        programmed(run)
        return UnrolledIndex(run, repr(self), self.stack, self.smooth, self.seed, self.probes)


def _whole(given: object, least: int) -> bool:
    """Whether an option is an integer of at least `least`."""
    return isinstance(given, int) and not isinstance(given, bool) and given >= least


def _share(given: object) -> bool:
    """Whether an option is a number from 0 to 1."""
    return isinstance(given, int | float) and 0 <= given <= 1
