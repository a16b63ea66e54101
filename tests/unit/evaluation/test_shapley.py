"""Exact contributor values on games whose answer is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.shapley import banzhaf, coalitions, payout_error, shapley, shares


def test_shapley_is_the_mean_over_orders_and_is_efficient() -> None:
    values = np.random.default_rng(0).normal(size=(16, 3))
    expected = np.zeros((4, 3))
    orders = list(permutations(range(4)))
    for order in orders:
        inside = 0
        for player in order:
            expected[player] += values[inside + (1 << player)] - values[inside]
            inside += 1 << player
    found = shapley(values)
    np.testing.assert_allclose(found, expected / len(orders), atol=1e-12)
    np.testing.assert_allclose(found.sum(0), values[-1] - values[0], atol=1e-12)


def test_additive_games_give_every_player_its_own_part() -> None:
    parts = np.asarray([1.0, -2.0, 0.5])
    values = (coalitions(3) @ parts)[:, None]
    np.testing.assert_allclose(shapley(values)[:, 0], parts, atol=1e-12)
    np.testing.assert_allclose(banzhaf(values)[:, 0], parts, atol=1e-12)


def test_shares_and_their_distance() -> None:
    np.testing.assert_allclose(shares(np.asarray([[1.0, -1.0, 2.0], [0.0, 0.0, 1.0]])), [0.25, 0.0, 0.75])
    assert payout_error(np.asarray([[1.0, 1.0]]), np.asarray([[1.0, 0.0]])) == 0.5


def test_bad_counts_are_refused() -> None:
    with pytest.raises(PoaError, match="power of two"):
        shapley(np.zeros((6, 1)))
    with pytest.raises(PoaError, match="at most 12"):
        coalitions(13)
