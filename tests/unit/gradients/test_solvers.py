"""Every solver against the explicit inverse, and curvature as an operator against Jacobians by autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.errors import PoaError, Unsupported
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.gradients import operators
from poa.gradients.astra import Astra
from poa.gradients.eigenbases import KroneckerInverse
from poa.gradients.kronecker import kronecker
from poa.gradients.krylov import CG, BlockCG
from poa.gradients.operators import GaussNewton, Rows
from poa.gradients.passes import Fisher
from poa.gradients.places import places
from poa.gradients.solvers import Arnoldi, Explicit, LiSSA, Nystrom
from poa.gradients.store import gradients

CASES = {"digits-mlp": digits_mlp, "bigram": text_bigram}


def by_autograd(run: Any) -> np.ndarray:
    """[p, p] the Gauss-Newton matrix of the mean loss, one logit at a time."""
    model, task = run.model(), run.task
    found = places(task, model)
    named = dict(model.named_parameters())
    weights = [named[name] for name in found.names]
    out = np.zeros((len(found.at), len(found.at)))
    for record in run.corpus:
        logits = task.predictions(model, task.batch([record], whole=False)).logits
        for row in logits:
            grads = [torch.autograd.grad(one, weights, retain_graph=True) for one in row]
            wide = np.stack([found.row(dict(zip(found.names, g, strict=True))).detach().numpy() for g in grads])
            p = row.detach().softmax(0).numpy()
            out += wide.T @ (np.diag(p) - np.outer(p, p)) @ wide
    return out / len(run.corpus)


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_the_gauss_newton_matrix(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with isolated(CASES[case]().run) as run:
        expected = by_autograd(run)
        operator = GaussNewton(run, -1)
        np.testing.assert_allclose(operator.dense(), expected, atol=1e-12 * np.abs(expected).max())
        rows = np.random.default_rng(0).standard_normal((3, operator.size))
        for chunk in (5, 32):  # what is summed does not depend on how the data is cut
            monkeypatch.setattr(operators, "CHUNK", chunk)
            passed = GaussNewton(run, -1).passed(rows)
            np.testing.assert_allclose(passed, rows @ expected, atol=1e-11 * np.abs(rows @ expected).max())


def system(case: str = "digits-mlp", damping: float = 0.1) -> tuple[GaussNewton, float, np.ndarray, np.ndarray, Any]:
    made = CASES[case]()
    with isolated(made.run) as run:
        operator = GaussNewton(run, -1)
        matrix = operator.dense()
        lam = damping * float(np.trace(matrix)) / len(run.corpus)
        rows = np.array(gradients(run, -1, made.queries, "query").values)[:4]
        front = KroneckerInverse(tuple(kronecker(run, (-1,), Fisher(), corrected=True).values()), lam).times
    return operator, lam, rows, np.linalg.solve(matrix + lam * np.eye(len(matrix)), rows.T).T, front


@pytest.mark.parametrize(
    "solver", [Explicit(), CG(1e-10), BlockCG(1e-10), LiSSA(1e-8), Arnoldi(10_000), Nystrom(10_000)], ids=repr
)
def test_solvers_agree_with_the_explicit_inverse(solver: Any) -> None:
    operator, lam, rows, expected, _ = system("bigram")
    found = solver.solve(operator, lam, rows)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert found.residuals.max() < 1e-6


@pytest.mark.parametrize("solver", [Arnoldi, Nystrom])
def test_low_rank_solvers_say_what_they_leave_out(solver: Any) -> None:
    operator, lam, rows, _, _ = system(damping=0.01)
    gaps = [solver(rank).solve(operator, lam, rows).residuals.max() for rank in (5, 60, 400)]
    assert gaps[0] > gaps[1] > gaps[2]
    values, vectors, _ = solver(30).pairs(operator)
    assert (values >= 0).all()
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-9)


def test_a_shared_krylov_space_needs_fewer_products() -> None:
    operator, lam, rows, _, _ = system()
    alone, together = CG(1e-8).solve(operator, lam, rows), BlockCG(1e-8).solve(operator, lam, rows)
    assert together.products < alone.products
    twice = BlockCG(1e-8).solve(operator, lam, np.concatenate([rows, rows[:1], np.zeros_like(rows[:1])]))
    np.testing.assert_allclose(twice.values[:5], np.concatenate([together.values, together.values[:1]]), atol=1e-5)
    assert not twice.values[5].any()


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> tuple[GaussNewton, float, np.ndarray, np.ndarray, Any]:
    """Logistic regression on more digits than pixels: EK-FAC is near."""
    corpus = digits(154)
    run = train_classifier(corpus[:150], steps=100, lr=0.3, keep=1, cache=tmp_path_factory.mktemp("regression"))
    operator = GaussNewton(run, -1)
    matrix = operator.dense()
    lam = 0.05 * float(np.trace(matrix)) / 150
    rows = np.array(gradients(run, -1, corpus[150:], "query").values)
    front = KroneckerInverse(tuple(kronecker(run, (-1,), Fisher(draws=4), corrected=True).values()), lam).times
    return operator, lam, rows, np.linalg.solve(matrix + lam * np.eye(len(matrix)), rows.T).T, front


def test_ekfac_in_front_saves_products_and_changes_nothing(regression: Any) -> None:
    operator, lam, rows, expected, front = regression
    plain, fast = CG(1e-8).solve(operator, lam, rows), CG(1e-8).solve(operator, lam, rows, front)
    assert fast.products < 0.7 * plain.products
    np.testing.assert_allclose(fast.values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_astra_comes_from_ekfac_to_the_solution(regression: Any) -> None:
    operator, lam, rows, expected, front = regression

    def error(values: np.ndarray) -> float:
        return float(np.linalg.norm(values - expected) / np.linalg.norm(expected))

    start = error(front(rows))
    batches = error(Astra(steps=100, batch=30).solve(operator, lam, rows, front).values)
    whole = error(Astra(steps=300, batch=150).solve(operator, lam, rows, front).values)
    assert batches < 0.5 * start
    assert whole < 0.02 * start


def test_what_does_not_converge_is_refused() -> None:
    operator, lam, rows, _, _ = system()
    for solver in (CG(1e-12, 3), BlockCG(1e-12, 2), LiSSA(1e-12, 5)):
        with pytest.raises(Unsupported, match="the solver stopped at a residual"):
            solver.solve(operator, lam, rows)
    for made in (Explicit(), Nystrom(5), Arnoldi(5)):
        with pytest.raises(Unsupported, match="damping above 0"):
            made.solve(operator, 0.0, rows)
    with pytest.raises(PoaError, match="rank is 0"):
        Nystrom(0).solve(operator, lam, rows)
    with pytest.raises(PoaError, match="0 < step < 2"):
        Astra(step=2.0)


def test_the_residual_of_lissa_falls_and_its_damping_adds() -> None:
    operator, lam, rows, expected, _ = system("bigram", 0.5)
    errors = [
        np.linalg.norm(LiSSA(tolerance).solve(operator, lam, rows).values - expected) for tolerance in (0.3, 0.1, 1e-2)
    ]
    assert errors[0] > errors[1] > errors[2]
    subtracted = np.linalg.solve(operator.dense() - lam * np.eye(operator.size), rows.T).T
    assert np.linalg.norm(subtracted - expected) > 10 * errors[2]


def test_the_empirical_fisher_is_that_of_the_rows() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    operator = Rows(rows)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(operator.dense(), wide.T @ wide / 5, rtol=1e-12)
    np.testing.assert_allclose(operator.times(wide), wide @ operator.dense(), rtol=1e-9)
    assert operator.size == 7


def test_no_query_no_solve() -> None:
    operator, lam, rows, _, _ = system("bigram")
    for solver in (Explicit(), CG(), LiSSA(), Nystrom(3)):
        assert solver.solve(operator, lam, rows[:0]).values.shape == (0, operator.size)
