"""Damping is a function of the spectrum: scale-free, monotone where it should be, and the same in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import Unsupported
from poa.gradients.damping import ROOT, chosen, effective_dimension

SPECTRA = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40).map(np.asarray)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(SPECTRA, st.integers(1, 500))
def test_reaches_the_dimension_that_it_aims_at(values: np.ndarray, count: int) -> None:
    damping, evidence = chosen(values, count)
    lam = damping * values.mean()
    found = sum(v / (v + lam) for v in values)
    whole = sum(v / (v + 1e-6 * values.mean()) for v in values)
    assert 1 / found == pytest.approx(1 / (ROOT * count**0.5) + 1 / whole, rel=1e-6)
    assert evidence["effective_dimension"] == pytest.approx(found)
    assert evidence["damping"] == damping


@settings(deadline=None, derandomize=True, max_examples=40)
@given(SPECTRA, st.floats(1e-6, 1e6), st.integers(0, 99))
def test_neither_scale_nor_order_matters(values: np.ndarray, scale: float, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values) * scale
    assert chosen(shuffled, 50)[0] == pytest.approx(chosen(values, 50)[0], rel=1e-9)


def test_zeros_change_the_mean_and_nothing_else() -> None:
    values = np.geomspace(1, 1e-3, 30)
    damping, evidence = chosen(values, 30)
    padded, other = chosen(np.concatenate([values, np.zeros(90), [-1e-18]]), 30)
    assert padded == pytest.approx(damping * 121 / 30, rel=1e-3)
    assert other["effective_dimension"] == pytest.approx(evidence["effective_dimension"], rel=1e-3)


def test_more_records_leave_more_directions_to_the_data() -> None:
    values = np.geomspace(1, 1e-4, 1000)
    found = [chosen(values, n) for n in (50, 200, 800)]
    dampings, dimensions = [d for d, _ in found], [evidence["effective_dimension"] for _, evidence in found]
    assert dampings == sorted(dampings, reverse=True)
    # 2.5 sqrt(N), in part: the harmonic mean with all 1000 directions.
    np.testing.assert_allclose(dimensions, [1 / (1 / (2.5 * n**0.5) + 1 / 1000) for n in (50, 200, 800)], rtol=0.01)


def test_a_flat_spectrum() -> None:
    damping, evidence = chosen(np.full(100, 7.0), 100)
    assert evidence["effective_dimension"] == pytest.approx(100 / (1 + damping))
    assert effective_dimension(np.full(4, 2.0), 2.0) == 2.0


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(0), -np.ones(2)])
def test_nothing_to_choose_from(values: np.ndarray) -> None:
    with pytest.raises(Unsupported, match="all training gradients are zero"):
        chosen(values, 3)
