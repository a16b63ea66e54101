"""Exact division: sums, fairness of rounding, and what splitting a weight can gain."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.rewards.apportion import floor_and_carry, integer, largest_remainder

LAW = settings(deadline=None, derandomize=True, max_examples=200)
TOTALS = st.one_of(st.integers(0, 30), st.integers(0, 2**63 - 1))
WEIGHTS = st.dictionaries(
    st.text("abcd", min_size=1, max_size=3), st.one_of(st.integers(0, 9), st.integers(0, 2**70)), max_size=8
)


def exact(total: int, weights: dict[str, int]) -> dict[str, Fraction]:
    return {name: Fraction(total * weight, sum(weights.values())) for name, weight in weights.items()}


@LAW
@given(TOTALS, WEIGHTS.filter(lambda weights: sum(weights.values()) > 0))
def test_largest_remainder_is_hamiltons_method(total: int, weights: dict[str, int]) -> None:
    shares = dict(largest_remainder(total, list(weights.items())))
    wanted = exact(total, weights)
    assert sum(shares.values()) == total
    assert all(abs(shares[name] - wanted[name]) < 1 for name in weights)
    assert all(shares[name] == 0 for name, weight in weights.items() if weight == 0)
    # Whoever was rounded up has a remainder no smaller than whoever was not; equal remainders go by ascending id.
    rank = {name: (-(wanted[name] % 1), name) for name in weights}
    up = [rank[name] for name in weights if shares[name] > wanted[name] // 1]
    down = [rank[name] for name in weights if shares[name] == wanted[name] // 1]
    assert not up or not down or max(up) < min(down)


@LAW
@given(TOTALS, WEIGHTS, st.randoms(use_true_random=False))
def test_the_order_of_the_weights_does_not_matter(total: int, weights: dict[str, int], random) -> None:
    rows = list(weights.items())
    random.shuffle(rows)
    assert floor_and_carry(total, rows) == floor_and_carry(total, sorted(rows))
    if sum(weights.values()):
        assert largest_remainder(total, rows) == largest_remainder(total, sorted(rows))


@LAW
@given(TOTALS, WEIGHTS)
def test_floor_and_carry_rounds_down_and_keeps_the_rest(total: int, weights: dict[str, int]) -> None:
    shares, carry = floor_and_carry(total, list(weights.items()))
    assert [name for name, _ in shares] == sorted(weights)
    assert sum(share for _, share in shares) + carry == total
    if not sum(weights.values()):
        assert carry == total
    else:
        assert dict(shares) == {name: int(value // 1) for name, value in exact(total, weights).items()}
        assert 0 <= carry < max(1, len(weights))


@LAW
@given(TOTALS, WEIGHTS, st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_splitting_a_weight_never_gains_under_floor_and_carry(total: int, rest: dict[str, int], own: list[int]) -> None:
    whole = dict(floor_and_carry(total, [*rest.items(), ("me", sum(own))])[0])["me"]
    split, _ = floor_and_carry(total, [*rest.items(), *((f"me{i}", weight) for i, weight in enumerate(own))])
    assert sum(share for name, share in split if name.startswith("me")) <= whole


def test_splitting_a_weight_can_gain_under_largest_remainder() -> None:
    """The failing control: this is why identities are not paid by largest remainder."""
    assert dict(largest_remainder(3, [("a", 5), ("me", 5)]))["me"] == 1
    split = dict(largest_remainder(3, [("a", 5), ("me0", 3), ("me1", 2)]))
    assert split["me0"] + split["me1"] == 2


def test_largest_remainder_is_not_monotone() -> None:
    weights = [("a", 6), ("b", 6), ("c", 2)]
    assert largest_remainder(10, weights) == (("a", 4), ("b", 4), ("c", 2))
    assert largest_remainder(11, weights) == (("a", 5), ("b", 5), ("c", 1))


def test_ties_go_to_ascending_ids() -> None:
    assert largest_remainder(2, [("c", 1), ("b", 1), ("a", 1)]) == (("a", 1), ("b", 1), ("c", 0))


def test_no_weight_at_all() -> None:
    assert floor_and_carry(7, [("a", 0)]) == ((("a", 0),), 7)
    assert floor_and_carry(7, []) == ((), 7)
    assert largest_remainder(0, [("a", 0)]) == (("a", 0),)
    with pytest.raises(PoaError, match="cannot divide 7: no weight is positive"):
        largest_remainder(7, [("a", 0)])


@pytest.mark.parametrize("divide", [largest_remainder, floor_and_carry])
def test_bad_input_is_named(divide) -> None:
    with pytest.raises(PoaError, match="'a' appears twice"):
        divide(1, [("a", 1), ("b", 1), ("a", 2)])
    with pytest.raises(PoaError, match="weight of 'b' is -1"):
        divide(1, [("a", 1), ("b", -1)])
    with pytest.raises(PoaError, match=r"weight of 'b' is 0\.5"):
        divide(1, [("b", 0.5)])
    with pytest.raises(PoaError, match="amount to divide is -1"):
        divide(-1, [("a", 1)])


@pytest.mark.parametrize("value", [True, 1.0, float("nan"), "1", None, -1, 11])
def test_integer_takes_integers_in_range_only(value: object) -> None:
    with pytest.raises(PoaError, match=r"size is .*, must be an integer, 0 to 10"):
        integer(value, "size", 0, 10)
    assert integer(10, "size", 0, 10) == 10
