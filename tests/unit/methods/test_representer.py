"""Representer points add up to the logits of the refitted layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poa.conformance import digits_linear, digits_mlp, isolated, text_bigram
from poa.errors import PoaError, Unsupported
from poa.methods.representer import Representer, refitted, state
from poa.records import Corpus


@pytest.mark.parametrize("make", [digits_linear, digits_mlp])
def test_scores_add_up_to_the_refitted_logit(make: object) -> None:
    case = make()  # type: ignore[operator]
    with isolated(case.run) as run:
        scores = Representer(decay=1e-2).fit(run).attribute(case.queries)
        model = run.model()
        states = np.stack([state(run.task, model, record, False) for record in run.corpus])
        labels = np.asarray([record.label for record in run.corpus])
        classes = int(labels.max()) + 1
        weights = refitted(states, labels, max(2, classes), 1e-2)
        for row, query in zip(scores.values, case.queries, strict=True):
            logit = float(weights[query.label] @ state(run.task, model, query, True))
            assert row.sum() == pytest.approx(logit, abs=1e-6 * np.abs(row).max())
    assert scores.meta["residual"] < 1e-7


def test_the_refit_is_the_l2_regularised_optimum() -> None:
    """scikit-learn minimises sum of losses + |W|^2 / (2 C): C = 1 / (2 decay N) is the same problem."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    states, labels = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    found = refitted(states, labels, 3, 0.02)
    other = LogisticRegression(C=1 / (2 * 0.02 * 60), fit_intercept=False, tol=1e-10, max_iter=10_000)
    np.testing.assert_allclose(found, other.fit(states, labels).coef_, atol=1e-6)


def test_what_has_no_label_is_refused() -> None:
    with pytest.raises(Unsupported, match="need a label a record"):
        Representer().fit(text_bigram().run)
    with pytest.raises(PoaError, match="must be above 0"):
        Representer(decay=0)
    case = digits_linear()
    with isolated(case.run) as run:
        index = Representer().fit(run)
        with pytest.raises(PoaError, match="has label"):
            index.attribute(Corpus([replace(case.queries[0], label=-1)]))
