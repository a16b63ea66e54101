"""Two-sided projection: unbiased, exact at full width, and with an adjoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.unit.gradients import architectures as arch
from tests.unit.gradients.test_certificates import text

from poa.gradients.capture import Block, capturing
from poa.gradients.projection import TwoSided
from poa.gradients.store import Gradients

BLOCKS = (Block("first", 0, 42, (6, 7)), Block("second", 42, 62, (10, 2)))


def rows(count: int, seed: int = 0) -> Gradients:
    return Gradients(np.random.default_rng(seed).normal(size=(count, 62)), BLOCKS)


def test_full_width_changes_nothing() -> None:
    given = rows(3)
    assert np.array_equal(TwoSided(10).apply(given), given.values)


def test_equals_the_explicit_products() -> None:
    projection, given = TwoSided(3, seed=5), rows(2)
    found = projection.apply(given)
    left, right = projection.factor("first", "out", 6), projection.factor("first", "in", 7)
    assert left is not None
    assert right is not None
    np.testing.assert_allclose(found[1, :9], (left.T @ given.values[1, :42].reshape(6, 7) @ right).ravel(), rtol=1e-12)
    assert projection.factor("second", "in", 2) is None
    assert found.shape == (2, 9 + 3 * 2)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    given = rows(4)
    alone = Gradients(given.values[2:3], BLOCKS)
    assert TwoSided(3).apply(given)[2].tobytes() == TwoSided(3).apply(alone)[0].tobytes()


def test_lift_is_the_adjoint_of_apply() -> None:
    projection, given = TwoSided(4, seed=1), rows(5)
    features = np.random.default_rng(9).normal(size=projection.apply(given).shape[1])
    direction = projection.lift(features, BLOCKS)
    np.testing.assert_allclose(given.values @ direction, projection.apply(given) @ features, rtol=1e-10)


@pytest.mark.parametrize("width", [2, 5])
def test_dot_products_are_unbiased_over_200_seeds(width: int) -> None:
    given = rows(2, seed=3)
    dots = []
    for seed in range(200):
        a, b = TwoSided(width, seed).apply(given)
        dots.append(float(a @ b))
    truth = float(given.values[0] @ given.values[1])
    assert abs(np.mean(dots) - truth) < 3 * np.std(dots, ddof=1) / np.sqrt(200)
    assert np.std(dots) > 0


def test_factors_differ_by_seed_layer_and_side() -> None:
    drawn = [
        TwoSided(2, seed).factor(name, side, 8) for seed in (0, 1) for name in ("a", "b") for side in ("in", "out")
    ]
    assert len({factor.tobytes() for factor in drawn if factor is not None}) == 8
    again = TwoSided(2, 0).factor("a", "in", 8)
    assert again is not None
    assert drawn[0] is not None
    assert again.tobytes() == drawn[0].tobytes()


@pytest.mark.parametrize("name", ["gpt2", "lora on llama"])
def test_factors_are_projected_as_rows_are(name: str) -> None:
    """Linear layers, tied embedding and head, norms: the sketch of the factors is the sketch of the rows."""
    task, model = text(name, "sum", "right", torch.float64)
    projection = TwoSided(3, seed=4)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    expected = projection.apply(Gradients(captured.rows().numpy(), captured.blocks))
    found = projection.prepared(captured.blocks, torch.float64).features(captured)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)
