"""Every projection: unbiased, with an adjoint, row by row, the same on factors, drawn from names alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.gradients import architectures as arch
from tests.unit.gradients.test_certificates import text

from poa.errors import Mismatch, PoaError
from poa.gradients import dense_jl
from poa.gradients.capture import Block, capturing
from poa.gradients.dense_jl import Gaussian, Rademacher
from poa.gradients.grass import FactGrass, Grass
from poa.gradients.masks import Layers, Mask
from poa.gradients.projection import Projection, TwoSided, projection_of
from poa.gradients.sparse_jl import SparseJL
from poa.gradients.store import Gradients

BLOCKS = (Block("first", 0, 420, (20, 21)), Block("second", 420, 440, (10, 2)))
MAKERS: dict[str, Callable[[int], Any]] = {
    "two-sided": lambda seed: TwoSided(3, seed),
    "gaussian": lambda seed: Gaussian(24, seed),
    "rademacher": lambda seed: Rademacher(24, seed),
    "sparse-jl": lambda seed: SparseJL(24, 1, seed),
    "sparse-jl of 4": lambda seed: SparseJL(24, 4, seed),
    "mask": lambda seed: Mask(60, seed),
    "grass": lambda seed: Grass(24, 60, 2, seed),
    "factgrass": lambda seed: FactGrass(6, 5, 2, seed),
}


@pytest.fixture(params=list(MAKERS))
def maker(request: pytest.FixtureRequest) -> Callable[[int], Projection]:
    return MAKERS[request.param]


def rows(count: int, seed: int = 0, blocks: tuple[Block, ...] = BLOCKS) -> Gradients:
    return Gradients(np.random.default_rng(seed).normal(size=(count, blocks[-1].stop)), blocks)


def test_dot_products_are_unbiased_over_200_seeds(maker: Callable[[int], Projection]) -> None:
    given = rows(2, seed=3)
    dots = [float(np.dot(*maker(seed).apply(given))) for seed in range(200)]
    truth = float(given.values[0] @ given.values[1])
    assert np.std(dots) > 0
    assert abs(np.mean(dots) - truth) < 3 * np.std(dots, ddof=1) / np.sqrt(200)


def test_lift_is_the_adjoint_of_apply(maker: Callable[[int], Projection]) -> None:
    projection, given = maker(1), rows(5)
    found = projection.apply(given)
    features = np.random.default_rng(9).normal(size=found.shape[1])
    np.testing.assert_allclose(given.values @ projection.lift(features, BLOCKS), found @ features, rtol=1e-10)


def test_a_row_does_not_depend_on_its_neighbours(maker: Callable[[int], Projection]) -> None:
    given = rows(4)
    alone = Gradients(given.values[2:3], BLOCKS)
    assert maker(0).apply(given)[2].tobytes() == maker(0).apply(alone)[0].tobytes()


def test_the_layout_covers_the_features(maker: Callable[[int], Projection]) -> None:
    layout = maker(0).layout(BLOCKS)
    assert layout[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(layout))
    assert all(block.stop - block.start == block.shape[0] * block.shape[1] for block in layout)
    assert layout[-1].stop == maker(0).apply(rows(1)).shape[1]


def test_settings_survive_json(maker: Callable[[int], Projection]) -> None:
    projection: Any = maker(7)
    plain = json.loads(json.dumps({"kind": projection.kind, "settings": asdict(projection)}))
    assert projection_of(plain) == projection


def test_another_seed_draws_something_else(maker: Callable[[int], Projection]) -> None:
    given = rows(1)
    drawn = [maker(seed).apply(given).tobytes() for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_layers_are_drawn_by_name(maker: Callable[[int], Projection]) -> None:
    renamed = tuple(Block(f"other {block.name}", block.start, block.stop, block.shape) for block in BLOCKS)
    given = rows(1)
    assert maker(0).apply(given).tobytes() != maker(0).apply(Gradients(given.values, renamed)).tobytes()


@pytest.mark.parametrize("name", ["gpt2", "lora on llama"])
def test_factors_are_projected_as_rows_are(name: str, maker: Callable[[int], Projection]) -> None:
    """Linear layers, tied embedding and head, norms: the sketch of the factors is the sketch of the rows."""
    task, model = text(name, "sum", "right", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    expected = maker(4).apply(Gradients(captured.rows().numpy(), captured.blocks))
    sketch = maker(4).prepared(captured.blocks, torch.float64)
    for _ in range(2):  # drawn pieces may be kept
        np.testing.assert_allclose(sketch.features(captured).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "projection", [Gaussian(440), Rademacher(500), SparseJL(440), Mask(440), Grass(440, 450), FactGrass(420, 21)]
)
def test_full_width_changes_nothing(projection: Any) -> None:
    given = rows(3)
    assert np.array_equal(projection.apply(given), given.values)
    assert np.array_equal(projection.lift(given.values[0], BLOCKS), given.values[0])


def test_factored_masks_equal_masks_of_the_multiplied_gradient() -> None:
    """Kept rows of s^T, kept columns of a, their Kronecker products: what a mask of the whole matrix would keep."""
    projection, given = FactGrass(8, 4, seed=2), rows(2)
    outs, ins, scale, left = projection.masked(BLOCKS[0])
    assert (len(outs), len(ins), left.shape) == (4, 4, (4, 4))
    assert scale == pytest.approx(np.sqrt(420 / 16))
    flat = (outs[:, None] * 21 + ins).ravel()
    masked = given.values[:, flat] * scale
    expected = SparseJL(8, seed=2).apply(Gradients(masked, (Block("first", 0, 16, (4, 4)),)))
    np.testing.assert_allclose(projection.apply(given)[:, :8], expected, rtol=1e-12)


def test_a_sparse_projection_is_its_explicit_matrix() -> None:
    projection, given = SparseJL(6, 3, seed=8), rows(3)
    matrix = np.concatenate([projection.lift(one, BLOCKS)[None] for one in np.eye(6)])  # [6, p]
    assert np.array_equal(np.count_nonzero(matrix, 0), np.full(440, 3))
    np.testing.assert_allclose((matrix**2).sum(0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(projection.apply(given), given.values @ matrix.T, rtol=1e-10, atol=1e-12)


def test_dense_entries_have_variance_one_over_size() -> None:
    for projection in (Gaussian(50), Rademacher(50)):
        entries = projection.piece("a", 0, 256)
        assert entries.shape == (256, 50)
        assert entries.var() == pytest.approx(1 / 50, rel=0.05)
        assert abs(entries.mean()) < 0.01
    assert set(np.unique(Rademacher(4).piece("a", 0, 9)).tolist()) == {-0.5, 0.5}


def test_pieces_that_do_not_fit_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = text("gpt2", "sum", "right", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    kept = Gaussian(16).prepared(captured.blocks, torch.float64)
    monkeypatch.setattr(dense_jl, "KEPT_BYTES", 1000)
    drawn = Gaussian(16).prepared(captured.blocks, torch.float64)
    again = drawn.features(captured)
    assert not drawn.kept
    monkeypatch.undo()
    assert torch.equal(kept.features(captured), again)
    assert kept.kept


def test_a_mask_by_scores_keeps_the_highest() -> None:
    scores = np.zeros(440)
    scores[[5, 430]] = 2.0
    scores[7] = 1.0
    mask = Mask.by_scores(scores, 3)
    assert mask.kept == (5, 7, 430)
    assert np.array_equal(mask.apply(rows(2)), rows(2).values[:, [5, 7, 430]])


def test_a_random_mask_keeps_different_coordinates_of_every_layer() -> None:
    places = Mask(100, seed=1).places(BLOCKS)
    assert len(set(places.tolist())) == 100
    counts = np.zeros(440)
    for seed in range(300):
        counts[Mask(100, seed).places(BLOCKS)] += 1
    assert abs(counts[:420].mean() - counts[420:].mean()) < 6
    assert counts.min() > 30


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(0), "size is 0"),
        (lambda: SparseJL(10, 3), "must divide the projection size 10"),
        (lambda: Grass(10, 20, 3), "must divide"),
        (lambda: FactGrass(8, 0), "size is 0"),
        (lambda: Mask(3, kept=(1, 1, 2)), "2 different coordinates"),
        (lambda: Mask(1, kept=(-1,)), "must be 0 or more"),
        (lambda: Mask(1, kept=(440,)).apply(rows(1)), "keeps coordinate 440 of gradients with 440"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(PoaError, match=words):
        make()


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Mismatch, match="known are two-sided, gaussian, rademacher, sparse-jl, mask, layers, grass"):
        projection_of({"kind": "fjlt", "settings": {}})


def test_layers_may_leave_biases_out() -> None:
    given = rows(3)
    first, second = BLOCKS[0], BLOCKS[1]
    kept = Layers((second.name, first.name), inputs=first.shape[1] - 1)
    expected = [
        given.values[:, block.start : block.stop].reshape(3, *block.shape)[:, :, : first.shape[1] - 1].reshape(3, -1)
        for block in (first, second)
    ]
    assert np.array_equal(kept.apply(given), np.concatenate(expected, 1))
    laid = kept.layout(BLOCKS)
    assert [block.stop - block.start for block in laid] == [part.shape[1] for part in expected]
    direction = kept.lift(kept.apply(given)[0], BLOCKS)
    np.testing.assert_allclose(given.values @ direction, kept.apply(given) @ kept.apply(given)[0], rtol=1e-12)
