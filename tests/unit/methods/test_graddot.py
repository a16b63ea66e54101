"""GradDot is the dot product of two autograd gradients."""

from __future__ import annotations

import numpy as np
from tests.language import DoubleRun, autograd_rows

from poa.factory.run import LoRARun
from poa.methods.graddot import GradDot
from poa.records import Corpus


def test_equals_autograd(double: DoubleRun, queries: Corpus) -> None:
    for checkpoints, positions in (("last", [1]), ("all", [0, 1])):
        expected = sum(
            autograd_rows(double, queries, "query", c) @ autograd_rows(double, double.corpus, "train", c).T
            for c in positions
        )
        found = GradDot(checkpoints).fit(double).attribute(queries)
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        assert found.unit == "uncalibrated"


def test_single_precision_follows_double(run: LoRARun, double: DoubleRun, queries: Corpus) -> None:
    exact = GradDot().fit(double).attribute(queries).values
    found = GradDot().fit(run).attribute(queries).values
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


def test_contributors_help_their_own_topic(run: LoRARun, queries: Corpus) -> None:
    sums = GradDot("all").fit(run).attribute(queries).by("contributor")
    best = [sums.train_ids[i] for i in sums.values.argmax(1)]
    assert np.mean([a == b for a, b in zip(best, queries.contributors, strict=True)]) >= 0.75
