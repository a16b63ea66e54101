"""How two things are timed against each other on a machine that does other work as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from statistics import median
from time import perf_counter
from typing import TypeVar

from poa.errors import PoaError
from poa.progress import track

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of time(a) / time(b), with an interval for that median."""

    median: float
    low: float
    high: float


def wall(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def interleave(
    a: Callable[[], T], b: Callable[[], T], rounds: int = 15, seconds: Callable[[Callable[[], T]], float] = wall
) -> Ratio:
    """How many times as long `a` takes as `b`: both are measured in every round, in alternating order.

    A round gives one ratio, so that whatever slows the machine for longer than a round slows both; one unmeasured
    round comes first. `seconds` measures one call, by default its wall time. The interval is the narrowest pair of
    order statistics that holds the median with probability at least 95 % (David and Nagaraja 2003, section 7.1),
    whatever the distribution; below 6 rounds there is none and it is the whole range. Raises `PoaError` for less
    than 3 rounds.
    """
    if rounds < 3:
        raise PoaError(f"rounds is {rounds}, must be 3 or more")
    seconds(a)
    seconds(b)
    ratios: list[float] = []
    for number in track(range(rounds), "rounds"):
        if number % 2:
            below = seconds(b)
            above = seconds(a)
        else:
            above = seconds(a)
            below = seconds(b)
        ratios.append(above / below)
    return summary(ratios)


def summary(ratios: list[float]) -> Ratio:
    """Median of `ratios` with the interval that `interleave` describes."""
    ordered = sorted(ratios)
    skip = skipped(len(ordered))
    return Ratio(median(ordered), ordered[skip], ordered[-1 - skip])


def skipped(count: int) -> int:
    """How many ordered values may be left off at each end so that at least 95 % of the probability stays inside."""
    skip, tail = 0, 1
    # `tail` / 2^count is the probability that at most `skip` of the values lie below the true median.
    while (tail + comb(count, skip + 1)) * 40 <= 2**count:
        skip += 1
        tail += comb(count, skip)
    return skip
