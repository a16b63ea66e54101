"""LoGra at full width is influence; narrower, it is influence on projected gradients."""

from __future__ import annotations

import numpy as np
from tests.language import DoubleRun

from poa.evaluation.correlation import mean_spearman
from poa.gradients.projection import TwoSided
from poa.gradients.store import gradients
from poa.methods.influence import Influence
from poa.methods.logra import LoGra
from poa.records import Corpus


def test_full_width_equals_influence(double: DoubleRun, queries: Corpus) -> None:
    for checkpoints in ("last", "all"):
        found = LoGra(width=64, damping=0.2, checkpoints=checkpoints).fit(double).attribute(queries).values
        expected = Influence(0.2, checkpoints).fit(double).attribute(queries).values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_equals_the_explicit_inverse_of_projected_rows(double: DoubleRun, queries: Corpus) -> None:
    projection = TwoSided(4, 7)
    train = projection.apply(gradients(double, 1, double.corpus, "train"))
    query = projection.apply(gradients(double, 1, queries, "query"))
    lam = 0.1 * float((train**2).sum()) / len(train) ** 2
    hessian = train.T @ train / len(train) + lam * np.eye(train.shape[1])
    expected = query @ np.linalg.solve(hessian, train.T) / len(train)
    found = LoGra(width=4, damping=0.1, seed=7).fit(double).attribute(queries).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_wider_is_closer_to_influence(double: DoubleRun, queries: Corpus) -> None:
    exact = Influence(0.1, "last").fit(double).attribute(queries).values
    near = [
        np.mean([mean_spearman(LoGra(w, 0.1, seed=s).fit(double).attribute(queries).values, exact) for s in range(3)])
        for w in (1, 16)
    ]
    assert near[0] < near[1]
    assert near[1] > 0.75
