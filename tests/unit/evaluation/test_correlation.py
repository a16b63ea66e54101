"""Ranks and Spearman correlations equal scipy's, and a constant row counts as 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from poa.errors import PoaError
from poa.evaluation.correlation import average_ranks, mean_spearman, spearman, spearman_rows
from poa.scores import Scores

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 9))
# Few distinct values, so that ties are common.
TABLES = SHAPES.flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([-2.0, -0.0, 0.0, 1e-300, 3.5]))
)
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(*[arrays(np.float64, shape, elements=st.integers(-2, 2).map(float))] * 2)
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(TABLES)
def test_ranks_equal_scipys(values: np.ndarray) -> None:
    np.testing.assert_array_equal(average_ranks(values), rankdata(values, axis=1))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(PAIRS)
def test_spearman_equals_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = pair
    found = spearman_rows(predicted, truth)
    for value, x, y in zip(found, predicted, truth, strict=True):
        if len(set(x)) < 2 or len(set(y)) < 2:
            assert value == 0.0
        else:
            assert value == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)
    np.testing.assert_allclose(spearman_rows(truth, predicted), found, atol=1e-15)
    np.testing.assert_allclose(spearman_rows(-predicted, truth), -found, atol=1e-15)
    np.testing.assert_array_equal(spearman_rows(np.exp(predicted), truth), found)


def test_ends_of_the_scale() -> None:
    rising = np.arange(7.0)[None]
    assert spearman_rows(rising, rising**3).tolist() == [pytest.approx(1.0)]
    assert spearman_rows(rising, -rising).tolist() == [pytest.approx(-1.0)]


def test_scores_against_truth_per_query() -> None:
    values = np.asarray([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    scores = Scores(values, ("p", "q"), ("a", "b", "c"))
    truth = np.asarray([[30.0, -1.0, 4.0], [1.0, 2.0, 3.0]])
    assert spearman(scores, truth).tolist() == [pytest.approx(1.0), 0.0]
    assert mean_spearman(values, truth) == pytest.approx(0.5)


def test_single_column_and_no_queries() -> None:
    assert spearman_rows(np.ones((2, 1)), np.ones((2, 1))).tolist() == [0.0, 0.0]
    assert mean_spearman(np.ones((0, 3)), np.ones((0, 3))) == 0.0


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(PoaError, match=r"shape \(2, 3\), truth \(3, 2\)"):
        spearman_rows(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(PoaError, match=r"must be \[queries, n\]"):
        spearman_rows(np.ones(3), np.ones(3))
    with pytest.raises(PoaError, match="must be finite"):
        spearman_rows(np.asarray([[1.0, np.nan]]), np.ones((1, 2)))
