"""Damped influence equals the explicit inverse, and predicts what leaving a record out does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.language import DoubleRun, autograd_rows

from poa.errors import PoaError
from poa.evaluation.correlation import spearman_rows
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.gradients.damping import chosen
from poa.methods.influence import Influence
from poa.records import Corpus


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_equals_the_explicit_inverse(double: DoubleRun, queries: Corpus, damping: float) -> None:
    expected = np.zeros((len(queries), len(double.corpus)))
    lams: list[float] = []
    for c in (0, 1):
        train = autograd_rows(double, double.corpus, "train", c)
        count = len(train)
        lams.append(damping * float((train**2).sum()) / count**2)
        hessian = train.T @ train / count + lams[-1] * np.eye(train.shape[1])
        expected += autograd_rows(double, queries, "query", c) @ np.linalg.solve(hessian, train.T) / count / 2
    found = Influence(damping).fit(double).attribute(queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert found.meta["lambda"] == pytest.approx(lams)
    assert max(found.meta["residual"]) < 1e-10


def test_layers_are_solved_one_by_one(double: DoubleRun, queries: Corpus) -> None:
    from poa.gradients.capture import layout

    train, asked = autograd_rows(double, double.corpus, "train", 1), autograd_rows(double, queries, "query", 1)
    expected = np.zeros((len(queries), len(double.corpus)))
    for block in layout(double.task.tracked(double.model(1))):
        u, v, count = train[:, block.start : block.stop], asked[:, block.start : block.stop], len(train)
        lam = 0.3 * float((u**2).sum()) / count**2
        expected += v @ np.linalg.solve(u.T @ u / count + lam * np.eye(u.shape[1]), u.T) / count
    found = Influence(0.3, "last", "layers").fit(double).attribute(queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert len(found.meta["residual"]) == len(layout(double.task.tracked(double.model(1))))
    with pytest.raises(PoaError, match="whole or layers"):
        Influence(blocks="layer")


def test_the_order_does_not_depend_on_the_scale_of_the_loss(double: DoubleRun, queries: Corpus) -> None:
    """Relative damping: lambda grows with the squared gradients, so large damping tends to GradDot's order."""
    from poa.methods.graddot import GradDot

    heavy = Influence(1e6, "last").fit(double).attribute(queries).values
    dots = GradDot().fit(double).attribute(queries).values
    np.testing.assert_allclose(spearman_rows(heavy, dots), 1.0)


def test_damping_is_chosen_and_told(double: DoubleRun, queries: Corpus) -> None:
    train = autograd_rows(double, double.corpus, "train", 1)
    damping, evidence = chosen(np.linalg.eigvalsh(train @ train.T), len(train))
    found = Influence(checkpoints="last").fit(double).attribute(queries)
    (note,) = found.meta["damping"]
    assert note == pytest.approx(evidence)
    given = Influence(damping, "last").fit(double).attribute(queries)
    np.testing.assert_allclose(found.values, given.values, atol=1e-8 * np.abs(given.values).max())
    assert given.meta["damping"] == [{"rule": "given", "damping": damping}]


def test_leave_one_out_of_a_convex_model(tmp_path: Path) -> None:
    """Logistic regression at its optimum, against exact retraining.

    The empirical Fisher is not the Hessian: with it the order of leave-one-out holds and the slope does not. With the
    Hessian in its place the same gradients give slope 1 for a small change of weight, which checks gradients, sign
    and the 1/N together.
    """
    corpus = digits(70, contributors=5, classes=(3, 8), seed=2)
    train, asked = corpus[:50], corpus[50:]
    decay, removed, small = 0.05, list(range(0, 50, 7)), 0.02
    run = train_classifier(train, steps=600, batch=50, lr=0.25, decay=decay, keep=1, cache=tmp_path)
    batch = run.task.batch(asked)
    full = run.task.measurement(run.model(), batch).detach().numpy()

    def change(record: int, weight: float) -> np.ndarray:
        weights = np.ones(50)
        weights[record] = weight
        return full - run.task.measurement(run.retrained(weights).model(), batch).detach().numpy()

    gone = np.stack([change(i, 0.0) for i in removed], 1)
    scores = Influence(1.0, "last").fit(run).attribute(asked).values[:, removed]
    assert spearman_rows(scores, gone).mean() > 0.9
    assert np.corrcoef(scores.ravel(), gone.ravel())[0, 1] > 0.9
    slight = np.stack([change(i, 1 - small) for i in removed], 1) / small
    exact = _hessian_influence(run, asked, decay)[:, removed]
    assert float((exact * slight).sum() / (exact * exact).sum()) == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(exact.ravel(), slight.ravel())[0, 1] > 0.999


def _hessian_influence(run: object, asked: Corpus, decay: float) -> np.ndarray:
    from poa.gradients.capture import example_gradients

    model, task, corpus = run.model(), run.task, run.corpus  # type: ignore[attr-defined]
    batch = task.batch(corpus)
    width = model[0].in_features

    def mean_loss(flat: torch.Tensor) -> torch.Tensor:
        table = flat.view(2, width + 1)
        logits = batch["x"] @ table[:, :-1].T + table[:, -1]
        return torch.nn.functional.cross_entropy(logits, batch["y"])

    flat = torch.cat([model[0].weight, model[0].bias[:, None]], 1).detach().flatten()
    hessian = torch.autograd.functional.hessian(mean_loss, flat).numpy() + decay * np.eye(len(flat))
    train = example_gradients(task, model, list(corpus), "train").numpy()
    query = example_gradients(task, model, list(asked), "query").numpy()
    return query @ np.linalg.solve(hessian, train.T) / len(corpus)
