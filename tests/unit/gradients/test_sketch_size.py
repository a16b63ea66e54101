"""Sizes of projections: from the gradients' own cosines, enough to keep what exact scores say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from poa.conformance import digits_mlp
from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.gradients import sketch_size
from poa.gradients.capture import Block
from poa.gradients.curvature import damped_fisher_map
from poa.gradients.projection import Projection, Rademacher, TwoSided
from poa.gradients.sketch_size import sided, sized, whitened_cosine
from poa.gradients.store import Gradients, blocks_of
from poa.records import Corpus, Record

BLOCKS = tuple(Block(f"layer {i}", 256 * i, 256 * (i + 1), (8, 32)) for i in range(32))


@dataclass(frozen=True)
class Made:
    """A run with gradients that were drawn: `table` [n, p] by record id."""

    corpus: Corpus
    table: dict[str, np.ndarray]
    checkpoints: tuple[int, ...] = (1,)


def drawn(records: int, shared: int, noise: float, seed: int = 0) -> Made:
    """Rows from `shared` common directions, and noise of its own in every record."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(shared, BLOCKS[-1].stop))
    rows = rng.normal(size=(records, shared)) @ common / np.sqrt(shared) + noise * rng.normal(size=(records, 8192))
    corpus = Corpus(Record(f"r{i}", text=f"text {i}") for i in range(records))
    return Made(corpus, {record.id: row for record, row in zip(corpus, rows, strict=True)})


@pytest.fixture(autouse=True)
def rows_of(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sketch_size.gradients

    def found(run: Any, position: int, records: Corpus, *more: Any) -> Any:
        if not isinstance(run, Made):
            return real(run, position, records, *more)
        return SimpleNamespace(values=np.stack([run.table[record.id] for record in records]))

    monkeypatch.setattr(sketch_size, "gradients", found)


def projected(run: Made, queries: np.ndarray, projection: Projection | None) -> np.ndarray:
    """[queries, records] damped influence on what the projection keeps."""
    train = Gradients(np.stack(list(run.table.values())), BLOCKS)
    asked = Gradients(queries, BLOCKS)
    left, right = (rows.values if projection is None else projection.apply(rows) for rows in (asked, train))
    return np.asarray(left) @ np.asarray(damped_fisher_map(np.asarray(right), None).map).T


@pytest.mark.parametrize(("shared", "noise"), [(20, 0.3), (100, 1.0), (400, 0.3)])
def test_what_is_chosen_keeps_exact_scores(shared: int, noise: float) -> None:
    run = drawn(100, shared, noise)
    size, told = sized(None, run)  # type: ignore[arg-type]
    assert told["size"] == size
    assert told["squared_cosine"] > 0
    queries = np.stack([*drawn(130, shared, noise).table.values()][100:])
    exact = projected(run, queries, None)
    # Noise of an eighth of the signal takes 1 - 1 / sqrt(1 + 1/8) = .06 of a correlation, the power of two less.
    assert mean_spearman(projected(run, queries, Rademacher(size, 0)), exact) > 0.9
    width, _ = sided(None, BLOCKS, run)  # type: ignore[arg-type]
    assert mean_spearman(projected(run, queries, TwoSided(width, 0)), exact) > 0.9


def test_weaker_ties_between_records_ask_for_more() -> None:
    sizes = [sized(None, drawn(100, shared, 1.0))[0] for shared in (5, 50, 500)]  # type: ignore[arg-type]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_the_cosine_is_of_whitened_gradients_whatever_the_order() -> None:
    run = drawn(60, 30, 0.5)
    rows = np.stack(list(run.table.values()))
    fisher = rows.T @ rows / 60
    lam = sketch_size.chosen(np.linalg.eigvalsh(rows @ rows.T), 60)[0] * np.trace(rows @ rows.T) / 60 / 60
    inverse = np.linalg.inv(fisher + lam * np.eye(len(fisher)))
    products = rows @ inverse @ rows.T
    lengths = np.sqrt(np.diag(products))
    pairs = np.sort((products / np.outer(lengths, lengths))[np.triu_indices(60, 1)] ** 2)
    expected = pairs[: int(np.ceil(0.99 * len(pairs)))].mean()
    found = whitened_cosine(run, "train", "adapter")  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=1e-6)
    turned = replace(run, corpus=Corpus(list(run.corpus)[::-1]))
    assert whitened_cosine(turned, "train", "adapter") == found  # type: ignore[arg-type]


def test_copies_do_not_count_as_ties() -> None:
    run = drawn(100, 100, 1.0)
    copies = {f"copy-{i}": run.table[f"r{i}"] for i in range(20)}
    corpus = Corpus([*run.corpus, *(Record(name, text=name) for name in copies)])
    again = Made(corpus, run.table | copies)
    alone, twice = (whitened_cosine(one, "train", "adapter") for one in (run, again))  # type: ignore[arg-type]
    assert twice < 1.5 * alone


def test_nothing_to_compare_leaves_the_count_of_records() -> None:
    run = drawn(64, 3, 0.1)
    none = replace(run, table={name: np.zeros(8192) for name in run.table})
    assert sized(None, none)[0] == 512  # type: ignore[arg-type]
    assert sized(7, none) == (7, {"rule": "given", "size": 7})  # type: ignore[arg-type]


def test_a_small_network_is_not_projected_on_two_sides() -> None:
    run = digits_mlp().run
    blocks = blocks_of(run)
    width, told = sided(None, blocks, run)
    assert width == max(max(block.shape) for block in blocks)
    assert told["size"] == sum(block.shape[0] * block.shape[1] for block in blocks)
    assert sided(3, blocks, run)[0] == 3
    for wrong in (lambda: sized(0, run), lambda: sided(0, blocks, run)):
        with pytest.raises(PoaError, match="must be 1 or more"):
            wrong()


@pytest.mark.parametrize("given", [2.5, True, "8", 0])
def test_sizes_that_are_no_counts_are_refused(given: Any) -> None:
    run = digits_mlp().run
    with pytest.raises(PoaError, match=f"projection is {given!r}, must be 1 or more"):
        sized(given, run)
    with pytest.raises(PoaError, match=f"width is {given!r}, must be 1 or more"):
        sided(given, blocks_of(run), run)
