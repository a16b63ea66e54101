"""Curvature through the Gram matrix equals the explicit p x p formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import Unsupported
from poa.gradients.curvature import damped_fisher_map, datainf_map, gram, mean_eigenvalue


def drawn(count: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    # Columns of very different scale, as layers have.
    return generator.normal(size=(count, width)) * 10 ** generator.uniform(-2, 2, width)


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(SIZES, st.sampled_from([1e-3, 0.1, 10.0]))
def test_damped_fisher_equals_the_explicit_inverse(sizes: tuple[int, int, int], damping: float) -> None:
    rows = drawn(*sizes)
    solved, lam, residual, evidence = damped_fisher_map(rows, damping)
    assert evidence == {"rule": "given", "damping": damping}
    fisher = rows.T @ rows / len(rows)
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T / len(rows))
    assert lam == pytest.approx(damping * eigenvalues.mean(), rel=1e-9)
    explicit = np.linalg.solve(fisher + lam * np.eye(rows.shape[1]), rows.T).T / len(rows)
    np.testing.assert_allclose(solved, explicit, rtol=0, atol=1e-8 * np.abs(explicit).max())
    system = rows @ rows.T + len(rows) * lam * np.eye(len(rows))
    assert residual == pytest.approx(np.linalg.norm(system @ solved - rows) / np.linalg.norm(rows), rel=1e-6, abs=1e-15)
    assert residual < 1e-10


@settings(deadline=None, derandomize=True, max_examples=40)
@given(SIZES, st.sampled_from([1e-2, 0.1, 3.0]))
def test_datainf_equals_equation_5(sizes: tuple[int, int, int], damping: float) -> None:
    rows = drawn(*sizes)
    lam = damping * np.mean([row @ row for row in rows])
    expected = np.zeros_like(rows)
    for k, target in enumerate(rows):
        for row in rows:
            expected[k] += (target - (row @ target) / (lam + row @ row) * row) / lam / len(rows)
    np.testing.assert_allclose(datainf_map(rows, damping)[0], expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_datainf_is_exact_for_one_record() -> None:
    rows = drawn(1, 7, 0)
    lam = 0.1 * float(rows[0] @ rows[0])
    exact = np.linalg.solve(np.outer(rows, rows) + lam * np.eye(7), rows[0])
    np.testing.assert_allclose(datainf_map(rows, 0.1)[0][0], exact, rtol=1e-9)


def test_datainf_tends_to_the_gradient_over_lambda() -> None:
    rows = drawn(6, 9, 2)
    lam = 1e8 * float(np.mean((rows**2).sum(1)))
    np.testing.assert_allclose(datainf_map(rows, 1e8)[0] * lam, rows, atol=1e-6 * np.abs(rows).max())


def test_zero_gradients() -> None:
    assert np.array_equal(datainf_map(np.zeros((3, 4)))[0], np.zeros((3, 4)))
    with pytest.raises(Unsupported, match="all training gradients are zero"):
        damped_fisher_map(np.zeros((3, 4)))


@pytest.mark.parametrize("width", [1, 5, 8192])
def test_gram_in_blocks(width: int) -> None:
    rows = drawn(4, 23, 1).astype(np.float32)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(gram(rows, width), wide @ wide.T, rtol=1e-12)
    assert mean_eigenvalue(gram(rows)) == pytest.approx(np.linalg.eigvalsh(wide @ wide.T / 4).mean())


@pytest.mark.parametrize("damping", [0.1, None])
def test_scaling_the_loss_scales_influence_and_keeps_its_order(damping: float | None) -> None:
    rows = drawn(5, 8, 4)
    one, ten = damped_fisher_map(rows, damping).map, damped_fisher_map(10 * rows, damping).map
    np.testing.assert_allclose(ten * 10, one, rtol=1e-9, atol=1e-12 * np.abs(one).max())
