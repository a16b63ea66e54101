"""DataInf is equation 5 of its paper, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
from tests.language import DoubleRun, autograd_rows

from poa.evaluation.correlation import spearman_rows
from poa.gradients.capture import layout
from poa.gradients.damping import chosen
from poa.methods.datainf import DataInf
from poa.records import Corpus


def test_equals_a_literal_loop(double: DoubleRun, queries: Corpus) -> None:
    asked = queries[:2]
    train, query = autograd_rows(double, double.corpus, "train"), autograd_rows(double, asked, "query")
    count = len(train)
    expected = np.zeros((2, count))
    for block in layout(double.task.tracked(double.model())):
        g, v = train[:, block.start : block.stop], query[:, block.start : block.stop]
        lam = 0.1 * np.mean([row @ row for row in g])
        for q in range(2):
            solved = np.mean([(v[q] - (row @ v[q]) / (lam + row @ row) * row) / lam for row in g], axis=0)
            expected[q] += g @ solved / count
    found = DataInf(0.1).fit(double).attribute(asked).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_chosen_damping_is_that_of_the_same_matrix(double: DoubleRun, queries: Corpus) -> None:
    blocks = layout(double.task.tracked(double.model()))
    train = autograd_rows(double, double.corpus, "train")
    found = DataInf().fit(double).attribute(queries)
    expected = []
    for block in blocks:
        g = train[:, block.start : block.stop]
        expected.append(chosen(np.linalg.eigvalsh(g @ g.T), len(g))[0] / len(g))
    assert [note["damping"] for note in found.meta["damping"]] == pytest.approx(expected)


def test_heavy_damping_tends_to_dot_products_over_lambda(double: DoubleRun, queries: Corpus) -> None:
    train, query = autograd_rows(double, double.corpus, "train"), autograd_rows(double, queries, "query")
    expected = np.zeros((len(queries), len(train)))
    for block in layout(double.task.tracked(double.model())):
        g = train[:, block.start : block.stop]
        expected += query[:, block.start : block.stop] @ g.T / (1e7 * (g**2).sum(1).mean()) / len(train)
    found = DataInf(1e7).fit(double).attribute(queries).values
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(spearman_rows(found, expected), 1.0, atol=0.02)
