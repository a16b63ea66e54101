"""Retrieval metrics on tables whose answers are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.retrieval import average_above, recall_at, reciprocal_rank
from poa.scores import Scores

SCORES = Scores(np.asarray([[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 5.0, 1.0]]), ("q1", "q2"), ("a", "b", "c", "d"))
RELEVANT = {"q1": ("b", "c"), "q2": ("a",)}


def test_recall_counts_what_could_be_there() -> None:
    np.testing.assert_array_equal(recall_at(SCORES, RELEVANT, 1), [0.0, 0.0])
    np.testing.assert_array_equal(recall_at(SCORES, RELEVANT, 2), [0.5, 0.0])
    np.testing.assert_array_equal(recall_at(SCORES, RELEVANT, 3), [1.0, 1.0])  # ties of q2 by position: a before b


def test_reciprocal_rank_is_of_the_first_relevant_record() -> None:
    np.testing.assert_array_equal(reciprocal_rank(SCORES, RELEVANT), [1 / 2, 1 / 3])


def test_average_above_counts_ties_half() -> None:
    np.testing.assert_array_equal(average_above(SCORES, RELEVANT, {"q1": ("d",), "q2": ("b", "d")}), [1.0, 0.25])


def test_what_cannot_be_measured_is_named() -> None:
    with pytest.raises(PoaError, match="'q2' has no relevant record"):
        reciprocal_rank(SCORES, {"q1": ("a",)})
    with pytest.raises(PoaError, match="'z', relevant for query 'q1'"):
        recall_at(SCORES, {"q1": ("z",), "q2": ("a",)}, 1)
    with pytest.raises(PoaError, match="k is 0"):
        recall_at(SCORES, RELEVANT, 0)
