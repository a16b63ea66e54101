"""TracIn weighs each checkpoint by what the optimizer did with each record before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.language import DoubleRun, autograd_rows

from poa.conformance import digits_linear
from poa.factory.classifier import train_classifier
from poa.gradients.capture import example_gradients
from poa.gradients.trajectory import record_rates
from poa.methods.tracin import TracInCP
from poa.records import Corpus
from poa.steplog import StepLog


def test_rates_are_counted_per_occurrence(double: DoubleRun) -> None:
    log = double.steps
    expected = np.zeros((2, len(double.corpus)))
    for step in range(log.steps):
        for place in log.records[step]:
            expected[step // 4, place] += log.rate[step] / log.denominator[step]
    for c, (first, last) in enumerate([(0, 4), (4, 8)]):
        np.testing.assert_allclose(record_rates(double, first, last), expected[c], rtol=1e-12)  # type: ignore[arg-type]


def test_short_batches_and_repeats() -> None:
    run = digits_linear().run
    log = StepLog(np.asarray([[0, 0], [1, -1]]), np.asarray([0.5, 0.25]), np.asarray([2.0, 1.0]), np.zeros(2))
    rates = record_rates(replace(run, steps=log), 0, 2)  # type: ignore[type-var]
    assert rates[:3].tolist() == [0.5, 0.25, 0.0]


def test_equals_the_sum_by_hand(double: DoubleRun, queries: Corpus) -> None:
    expected = np.zeros((len(queries), len(double.corpus)))
    for c, (first, last) in enumerate([(0, 4), (4, 8)]):
        weights = record_rates(double, first, last)  # type: ignore[arg-type]
        train = autograd_rows(double, double.corpus, "train", c)
        expected += autograd_rows(double, queries, "query", c) @ (weights[:, None] * train).T
    found = TracInCP().fit(double).attribute(queries).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    last = TracInCP("last").fit(double).attribute(queries).values
    assert not np.allclose(last, found)


def test_one_step_of_descent_is_the_first_order_change(tmp_path: Path) -> None:
    """One small full-batch step from the start: the scores of one checkpoint sum to the change of the measurement."""
    case = digits_linear()
    run = train_classifier(case.run.corpus, steps=1, batch=48, lr=1e-5, keep=1, cache=tmp_path)
    task, before, after = run.task, run.base(), run.model()
    asked = task.batch(case.queries)
    change = (task.measurement(after, asked) - task.measurement(before, asked)).detach().numpy()
    scores = TracInCP().fit(run).attribute(case.queries).values.sum(1)
    np.testing.assert_allclose(scores, change, rtol=1e-3)
    train = example_gradients(task, before, list(run.corpus), "train").numpy()
    query = example_gradients(task, before, list(case.queries), "query").numpy()
    assert (query @ train.T * (1e-5 / 48)).sum(1) == pytest.approx(change, rel=1e-3)
