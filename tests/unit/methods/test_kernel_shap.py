"""KernelSHAP against all coalitions, and against a game whose Shapley values are known."""

from __future__ import annotations

import numpy as np
import pytest

from poa.errors import PoaError, Unsupported
from poa.evaluation.shapley import exact_shapley
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.methods.kernel_shap import KernelSHAP, coalitions, solved

CORPUS = digits(130, contributors=5)
TRAIN, QUERIES = CORPUS[:120], CORPUS[120:]


def trained(corpus=TRAIN):
    return train_classifier(corpus, (), steps=30, batch=40, lr=0.3, measures="log-probability")


def test_with_all_coalitions_it_is_the_exact_shapley_value() -> None:
    run = trained()
    truth = exact_shapley(run, QUERIES, seeds=(0,))
    scores = KernelSHAP(budget=2**5 - 2).fit(run).attribute(QUERIES)
    assert scores.unit == "nats"
    np.testing.assert_allclose(truth.aligned(scores), truth.mean, atol=1e-9)


def test_a_budget_comes_near_and_pays_out_exactly_what_training_brought() -> None:
    run = trained()
    truth = exact_shapley(run, QUERIES, seeds=(0,))
    found = truth.aligned(KernelSHAP(budget=16).fit(run).attribute(QUERIES))
    np.testing.assert_allclose(found.sum(1), truth.mean.sum(1), atol=1e-9)
    assert np.corrcoef(found.ravel(), truth.mean.ravel())[0, 1] > 0.95
    assert not np.allclose(found, truth.mean, atol=1e-6)


def test_an_additive_game_is_solved_from_any_coalitions() -> None:
    rng = np.random.default_rng(0)
    worth = rng.normal(size=(7, 3))
    for budget in (12, 40):
        inside, weights = coalitions(7, budget, seed=1)
        assert len(inside) == budget + 2
        assert not inside[0].any()
        assert inside[1].all()
        drawn = {tuple(row) for row in inside[2:].tolist()}
        assert all(tuple(not member for member in row) in drawn for row in drawn)
        np.testing.assert_allclose(solved(inside, weights, 2.0 + inside @ worth), worth, atol=1e-9)


def test_the_glove_game_has_its_known_values() -> None:
    inside, weights = coalitions(3, 6, seed=0)
    values = ((inside[:, 0] | inside[:, 1]) & inside[:, 2]).astype(float)[:, None]
    np.testing.assert_allclose(solved(inside, weights, values)[:, 0], [1 / 6, 1 / 6, 2 / 3], atol=1e-12)


def test_one_payee_and_an_empty_budget_are_refused() -> None:
    alone = digits(40, contributors=1)
    with pytest.raises(Unsupported, match="one payee"):
        KernelSHAP().fit(trained(alone))
    with pytest.raises(PoaError, match="budget is 1"):
        KernelSHAP(budget=1)
