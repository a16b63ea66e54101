"""Dividing a whole number by whole-number weights, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from poa.errors import PoaError

Shares = tuple[tuple[str, int], ...]


def integer(value: object, what: str, least: int = 0, most: int | None = None) -> int:
    """`value` if it is an int in [least, most]; raises `PoaError` naming `what` otherwise (bool and float too)."""
    if type(value) is not int or value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise PoaError(f"{what} is {value!r}, must be an integer, {limit}")
    return value


def largest_remainder(total: int, weights: Sequence[tuple[str, int]]) -> Shares:
    """Shares of `total` (ids ascending) that add up to it, each within 1 of total * w / W with W = sum of weights.

    Every id gets floor(total * w / W); the units left go one each to the largest total * w mod W, ties by ascending
    id; zero weight gets zero. Not monotone in `total` and it rewards splitting an identity, so it serves only where
    the parties are fixed and few: the parts of a fee. Raises `PoaError` on repeated ids, negative or non-integer
    input, and on a positive total without any positive weight. Source: Hamilton's method.
    """
    ordered, whole = _checked(total, weights)
    if whole == 0:
        if total:
            raise PoaError(f"cannot divide {total}: no weight is positive")
        return tuple((name, 0) for name, _ in ordered)
    left = total - sum(total * weight // whole for _, weight in ordered)
    # sorted() is stable, so equal remainders stay in ascending id order.
    lucky = {name for name, _ in sorted(ordered, key=lambda pair: -(total * pair[1] % whole))[:left]}
    return tuple((name, total * weight // whole + (name in lucky)) for name, weight in ordered)


def floor_and_carry(total: int, weights: Sequence[tuple[str, int]]) -> tuple[Shares, int]:
    """floor(total * w / W) for every id (ids ascending), and what is left over.

    floor(a) + floor(b) <= floor(a + b): splitting a weight over several ids never gains a unit. Where no weight is
    positive, nobody gets anything and the whole total is left over. Raises `PoaError` on repeated ids, negative or
    non-integer input.
    """
    ordered, whole = _checked(total, weights)
    shares = tuple((name, total * weight // whole if whole else 0) for name, weight in ordered)
    return shares, total - sum(share for _, share in shares)


def _checked(total: int, weights: Sequence[tuple[str, int]]) -> tuple[list[tuple[str, int]], int]:
    integer(total, "amount to divide")
    ordered = sorted((name, integer(weight, f"weight of {name!r}")) for name, weight in weights)
    for (first, _), (second, _) in pairwise(ordered):
        if first == second:
            raise PoaError(f"{first!r} appears twice among the weights; add its weights up first")
    return ordered, sum(weight for _, weight in ordered)
