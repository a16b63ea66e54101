"""Intervals cover what they promise on data whose errors are known, and say when they know nothing."""

from __future__ import annotations

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.uncertainty import crossed, learnt, plain_coverage
from poa.scores import Scores


def table(signal: float, noise: float, queries: int = 60, columns: int = 8, seed: int = 0) -> tuple[Scores, np.ndarray]:
    """Scores that are half the truth plus known noise."""
    rng = np.random.default_rng(seed)
    truth = signal * rng.normal(size=(queries, columns))
    values = truth / 2 + noise * rng.normal(size=truth.shape)
    names = tuple(f"c{i}" for i in range(columns))
    errors = np.full(truth.shape, noise)
    return Scores(values, tuple(f"q{i}" for i in range(queries)), names, stderr=errors), truth


def test_a_widening_finds_the_slope_and_covers_queries_that_it_has_not_seen() -> None:
    scores, truth = table(1.0, 0.05)
    found = learnt(scores, truth)
    assert found.slope == pytest.approx(2.0, rel=0.05)
    report = crossed(scores, truth)
    assert 0.85 <= report["coverage"] <= 0.95
    assert report["abstained"] < 0.1
    assert report["right_sign"] > 0.95


def test_scores_without_a_signal_abstain() -> None:
    scores, _ = table(0.0, 1.0)
    truth = table(1.0, 0.0, seed=1)[1]
    report = crossed(scores, truth)
    assert report["abstained"] > 0.9
    assert 0.85 <= report["coverage"] <= 0.95


def test_errors_that_are_too_small_are_widened() -> None:
    scores, truth = table(1.0, 0.3)
    nats = scores.scaled(2.0, "known")
    boasting = Scores(nats.values, nats.query_ids, nats.train_ids, unit="nats", stderr=nats.stderr / 10)
    assert plain_coverage(boasting, truth) < 0.3
    assert 0.85 <= plain_coverage(nats, truth) <= 0.95
    widened = learnt(boasting, truth).applied(boasting, "here")
    assert 0.85 <= plain_coverage(widened, truth) <= 0.95
    assert widened.unit == "nats"


def test_what_has_no_errors_or_another_shape_is_refused() -> None:
    scores, truth = table(1.0, 0.1)
    with pytest.raises(PoaError, match="no standard errors"):
        learnt(Scores(scores.values, scores.query_ids, scores.train_ids), truth)
    with pytest.raises(PoaError, match="truth"):
        learnt(scores, truth[:3])
    with pytest.raises(PoaError, match="folds"):
        crossed(scores.select([0]), truth[:1])
