"""Two-way intervals cover what they should, and pairing tightens them."""

from __future__ import annotations

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.bootstrap import Interval, paired, paired_spearman, two_way, two_way_spearman
from poa.evaluation.correlation import mean_spearman


def mean_product(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float((predicted * truth).mean())


def bank(seed: int, queries: int = 20, columns: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and two predictors of it, the first a little better."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(queries, columns))
    shared = truth + rng.normal(size=truth.shape)
    return shared + 0.1 * rng.normal(size=truth.shape), shared + 0.5 * rng.normal(size=truth.shape), truth


def test_equals_resampling_by_hand() -> None:
    first, _, truth = bank(0, 5, 7)
    found = two_way(mean_spearman, first, truth, resamples=50, level=0.9, seed=3)
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(50):
        rows, columns = rng.integers(5, size=5), rng.integers(7, size=7)
        draws.append(mean_spearman(first[rows][:, columns], truth[rows][:, columns]))
    low, high = np.quantile(draws, [0.05, 0.95])
    assert found == Interval(mean_spearman(first, truth), pytest.approx(low), pytest.approx(high), 0.9, 50)


def test_same_seed_same_interval() -> None:
    first, _, truth = bank(1)
    assert two_way(mean_spearman, first, truth, resamples=40) == two_way(mean_spearman, first, truth, resamples=40)
    other = two_way(mean_spearman, first, truth, resamples=40, seed=1)
    assert other.low != two_way(mean_spearman, first, truth, resamples=40).low


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    def row_and_column_effects(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(25, 1)) + rng.normal(size=(1, 25)) + rng.normal(size=(25, 25))

    covered = 0
    for seed in range(150):
        values = row_and_column_effects(seed)
        interval = two_way(mean_product, values, np.ones_like(values), resamples=100, level=0.9, seed=seed)
        covered += interval.low <= 0 <= interval.high
    # Measured over 400 tables: 0.87, and 0.70 where rows alone are drawn.
    assert 0.80 <= covered / 150 <= 0.97


def test_both_axes_are_drawn() -> None:
    columns_matter = np.tile(np.random.default_rng(0).normal(size=(1, 30)), (30, 1))
    ones = np.ones_like(columns_matter)
    for values in (columns_matter, columns_matter.T):
        # the standard error of a mean of 30, twice 1.96 of which is the width
        expected = 2 * 1.96 * columns_matter.std() / np.sqrt(30)
        interval = two_way(mean_product, values, ones, resamples=600)
        assert interval.high - interval.low == pytest.approx(expected, rel=0.2)


def test_pairing_tightens_and_finds_the_better_method() -> None:
    first, second, truth = bank(2)
    difference = paired(mean_spearman, first, second, truth, resamples=200)
    alone = [two_way(mean_spearman, each, truth, resamples=200) for each in (first, second)]
    assert difference.value == pytest.approx(alone[0].value - alone[1].value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.half_width < 0.6 * max(each.half_width for each in alone)
    swapped = paired(mean_spearman, second, first, truth, resamples=200)
    assert (swapped.low, swapped.high) == (pytest.approx(-difference.high), pytest.approx(-difference.low))


def test_the_fast_paired_interval_is_the_plain_one() -> None:
    first, second, truth = bank(4)
    fast, plain = (
        paired_spearman(first, second, truth, resamples=60),
        paired(mean_spearman, first, second, truth, resamples=60),
    )
    assert (fast.value, fast.low, fast.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-12)


def test_a_method_does_not_differ_from_itself() -> None:
    first, _, truth = bank(3)
    found = paired(mean_spearman, first, first, truth, resamples=20)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_prints_itself() -> None:
    assert str(Interval(0.5, 0.25, 0.75, 0.95, 100)) == "0.500 [0.250, 0.750]"
    assert Interval(0.5, 0.25, 0.75, 0.95, 100).half_width == 0.25


def test_bad_input_is_refused() -> None:
    good = np.ones((2, 3))
    with pytest.raises(PoaError, match=r"shapes are \[\(2, 3\), \(3, 2\)\]"):
        two_way(mean_spearman, good, good.T)
    with pytest.raises(PoaError, match="without an empty axis"):
        two_way(mean_spearman, good[:0], good[:0])
    with pytest.raises(PoaError, match="must be one shape"):
        paired(mean_spearman, good, good[:1], good)
    with pytest.raises(PoaError, match="resamples is 0"):
        two_way(mean_spearman, good, good, resamples=0)
    for level in (0.0, 1.0, float("nan")):
        with pytest.raises(PoaError, match="level is"):
            two_way(mean_spearman, good, good, level=level)


@pytest.mark.parametrize("values", [5, 10**6])
def test_ranks_from_counts_equal_ranks_of_drawn_tables(values: int) -> None:
    rng = np.random.default_rng(1)
    first, truth = (rng.integers(values, size=(7, 23)).astype(float) for _ in range(2))
    first[2] = 1.0  # no order: counts as 0
    slow = two_way(mean_spearman, first, truth, resamples=60, level=0.9, seed=3)
    fast = two_way_spearman(first, truth, resamples=60, level=0.9, seed=3)
    np.testing.assert_allclose([fast.value, fast.low, fast.high], [slow.value, slow.low, slow.high], rtol=0, atol=1e-14)
