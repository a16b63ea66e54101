"""What a law of conformance is, and how it says that it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.protocols import Attributor, TrainingRun
    from poa.records import Corpus
    from poa.scores import Array, Scores

Check: TypeAlias = "Callable[[Attributor, TrainingRun, Corpus], None]"


class ConformanceError(AssertionError):
    """A method broke a law; the message says what was expected and what was found."""


class NotApplicable(PoaError):
    """A law has nothing to say about this method on this run; the reason is the message."""


@dataclass(frozen=True)
class Law:
    """A statement that holds for every method: `check(method, run, queries)` raises `ConformanceError` where it fails.

    `exemptable` laws may be opted out of by a method that names them, with the reason, in its class variable `exempt`.
    """

    name: str
    statement: str
    tolerance: str
    check: Check
    exemptable: bool = False


def require(holds: bool, message: str) -> None:
    """Raise `ConformanceError` with `message` unless `holds`."""
    if not holds:
        raise ConformanceError(message)


def rounding(run: TrainingRun) -> float:
    """Relative tolerance where sums may be reordered: 1e-9 for a float64 model, 1e-5 for anything coarser."""
    return 1e-9 if all("float64" in str(p.dtype) for p in run.model().parameters()) else 1e-5


def require_same_bytes(found: Scores, expected: Scores, what: str) -> None:
    """Equal ids, dtype, values and standard errors, to the byte."""
    require(
        found.query_ids == expected.query_ids and found.train_ids == expected.train_ids, f"{what}: ids or order differ"
    )
    require(
        found.values.dtype == expected.values.dtype,
        f"{what}: dtype {found.values.dtype} instead of {expected.values.dtype}",
    )
    require(found.values.tobytes() == expected.values.tobytes(), f"{what}: {_worst(found.values, expected.values)}")
    require((found.stderr is None) == (expected.stderr is None), f"{what}: standard errors appear or vanish")
    if found.stderr is not None and expected.stderr is not None:
        require(
            found.stderr.tobytes() == expected.stderr.tobytes(),
            f"{what}: standard errors: {_worst(found.stderr, expected.stderr)}",
        )


def require_close(found: Array, expected: Array, tolerance: float, what: str) -> None:
    """|found - expected| <= tolerance * largest |expected| of the row."""
    scale = np.abs(expected).max(axis=1, keepdims=True, initial=0.0)
    # written so that NaN is far from everything
    far = ~(np.abs(found - expected) <= tolerance * scale)
    require(not bool(far.any()), f"{what}: {_worst(found, expected)}; allowed is {tolerance:g} of the row's largest")


def _worst(found: Array, expected: Array) -> str:
    gap = np.abs(found.astype(np.float64) - expected)
    at = np.unravel_index(int(gap.argmax()), gap.shape)
    return f"score {float(found[at])!r} instead of {float(expected[at])!r} at (query, train) {tuple(map(int, at))}"
