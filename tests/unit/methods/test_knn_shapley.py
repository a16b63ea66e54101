"""KNN-Shapley equals the average over all orders and coalitions, computed by enumeration."""

from __future__ import annotations

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.conformance import digits_linear, digits_mlp, text_bigram
from poa.errors import PoaError, Unsupported
from poa.factory.classifier import train_classifier
from poa.methods.knn_shapley import KNNShapley, KNNShapleyIndex, shapley_of_sorted
from poa.records import Corpus, Record


def utility(members: tuple[int, ...], hits: list[bool], k: int) -> float:
    return sum(hits[i] for i in sorted(members)[:k]) / k


def enumerated(hits: list[bool], k: int) -> list[float]:
    n = len(hits)
    values = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        values.append(
            sum(
                (utility((*s, i), hits, k) - utility(s, hits, k)) / (n * comb(n - 1, size))
                for size in range(n)
                for s in combinations(others, size)
            )
        )
    return values


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 10))
def test_equals_enumeration(hits: list[bool], k: int) -> None:
    found = shapley_of_sorted(np.asarray(hits), k)
    np.testing.assert_allclose(found, enumerated(hits, k), atol=1e-12)
    assert found.sum() == pytest.approx(utility(tuple(range(len(hits))), hits, k), abs=1e-12)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.data(), st.integers(1, 8), st.integers(1, 4))
def test_the_method_sorts_by_distance_then_content(data: st.DataObject, n: int, k: int) -> None:
    grid = st.integers(-1, 1).map(float)
    rows = [(data.draw(grid), data.draw(grid), data.draw(st.integers(0, 1))) for _ in range(n)]
    corpus = Corpus(Record(f"r{i}", features=(x, y), label=label) for i, (x, y, label) in enumerate(rows))
    run = train_classifier(corpus, steps=1)
    query = Record("q", features=(data.draw(grid), data.draw(grid)), label=data.draw(st.integers(0, 1)))
    found = KNNShapley(k).fit(run).attribute(Corpus([query])).values[0]

    def far(i: int) -> tuple[float, str]:
        return sum((a - b) ** 2 for a, b in zip(corpus[i].features, query.features, strict=True)), corpus[i].digest

    order = sorted(range(n), key=far)
    expected = np.zeros(n)
    expected[order] = enumerated([corpus[i].label == query.label for i in order], k)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # equal records, equal bytes
    for i in range(n):
        for j in range(i):
            assert corpus[i].digest != corpus[j].digest or found[i].tobytes() == found[j].tobytes()


def test_efficiency_is_the_vote_of_the_neighbours() -> None:
    case = digits_mlp()
    scores = KNNShapley(k=5, space="input").fit(case.run).attribute(case.queries)
    for query, row in zip(case.queries, scores.values, strict=True):
        gaps = [np.subtract(record.features, query.features) for record in case.run.corpus]
        near = np.argsort([np.square(gap).sum() for gap in gaps], kind="stable")[:5]
        votes = np.mean([case.run.corpus[int(i)].label == query.label for i in near])
        assert row.sum() == pytest.approx(votes, abs=1e-12)


def test_hidden_space_is_the_models() -> None:
    linear, deep = digits_linear(), digits_mlp()
    hidden, raw = KNNShapley(space="hidden"), KNNShapley(space="input")
    # logistic regression has no hidden layer: both spaces are the features
    assert np.array_equal(
        hidden.fit(linear.run).attribute(linear.queries).values, raw.fit(linear.run).attribute(linear.queries).values
    )
    assert not np.array_equal(
        hidden.fit(deep.run).attribute(deep.queries).values, raw.fit(deep.run).attribute(deep.queries).values
    )


def test_text_is_unsupported_and_bad_input_refused() -> None:
    with pytest.raises(Unsupported, match="needs features and a label, record 'text-000' lacks them"):
        KNNShapley().fit(text_bigram().run)
    with pytest.raises(PoaError, match="k is 0, must be 1 or more"):
        KNNShapley(k=0)
    with pytest.raises(PoaError, match="space is 'pixel'"):
        KNNShapley(space="pixel")  # type: ignore[arg-type]
    index = KNNShapley(space="input").fit(digits_linear().run)
    with pytest.raises(PoaError, match="record 'q' has label -1, must be 0 to 2"):
        index.attribute(Corpus([Record("q", features=(0.0,) * 64)]))


def test_save_and_load(tmp_path: Path) -> None:
    case = digits_mlp()
    index = KNNShapley(k=3).fit(case.run)
    index.save(tmp_path / "index")
    loaded = KNNShapleyIndex.load(tmp_path / "index", case.run)
    assert loaded.method == KNNShapley(k=3)
    assert loaded.attribute(case.queries).digest == index.attribute(case.queries).digest
