"""Intervals of means over runs hold what differs between runs, and always the value itself."""

from __future__ import annotations

import numpy as np
import pytest

from poa.evaluation.bootstrap import Interval, across_runs, two_way_spearman


def test_an_interval_is_at_least_student_s_over_runs() -> None:
    narrow = Interval(0.5, 0.49, 0.51, 0.95, 1000)
    found = across_runs(narrow, [0.4, 0.5, 0.6])
    half = 4.302652729911275 * 0.1 / np.sqrt(3)  # t of two degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    wide = Interval(0.5, 0.0, 1.0, 0.95, 1000)
    assert across_runs(wide, [0.4, 0.5, 0.6]) == wide
    assert across_runs(narrow, [0.5]) == narrow


def test_student_s_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(2000):
        runs = rng.normal(0.2, 0.1, 4)
        mean = float(runs.mean())
        found = across_runs(Interval(mean, mean, mean, 0.95, 1), runs.tolist())
        hit += found.low <= 0.2 <= found.high
    assert 0.935 < hit / 2000 < 0.965


def test_an_interval_holds_a_value_that_all_draws_lie_below() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(3, 30))
    near = two_way_spearman(truth + 1e-3 * rng.normal(size=truth.shape), truth)
    assert near.low <= near.value <= near.high
