"""BM25 equals a short reference, and knows what it cannot do."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.conformance import digits_linear, text_bigram
from poa.conformance.bigram import BigramRun, train_bigram
from poa.errors import PoaError, Unsupported
from poa.methods.bm25 import BM25, BM25Index, words
from poa.records import Corpus, Record

TEXTS = st.lists(
    st.lists(st.sampled_from(["ant", "bee", "cat", "Dog", "EEL", "é1"]), min_size=1, max_size=9), min_size=1, max_size=7
)


def reference(query: str, documents: list[str], k1: float, b: float) -> list[float]:
    bags = [re.findall(r"\w+", document.lower()) for document in documents]
    mean = sum(map(len, bags)) / len(bags)
    scores = []
    for bag in bags:
        total = 0.0
        for word in re.findall(r"\w+", query.lower()):
            containing = sum(word in other for other in bags)
            if containing == 0:
                continue
            idf = math.log(1 + (len(bags) - containing + 0.5) / (containing + 0.5))
            frequency = bag.count(word)
            total += idf * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * len(bag) / mean))
        scores.append(total)
    return scores


def run_on(texts: list[str]) -> BigramRun:
    return train_bigram(Corpus(Record(f"r{i}", text) for i, text in enumerate(texts)), steps=1)


def ask(index: BM25Index, query: str) -> np.ndarray:
    return index.attribute(Corpus([Record("q", query)])).values[0]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(TEXTS, TEXTS, st.floats(0.1, 3), st.floats(0, 1))
def test_equals_the_reference(records: list[list[str]], queries: list[list[str]], k1: float, b: float) -> None:
    texts = [" ".join(record) for record in records]
    index = BM25(k1, b).fit(run_on(texts))
    for query in (", ".join(query) for query in queries):
        np.testing.assert_allclose(ask(index, query), reference(query, texts, k1, b), rtol=1e-12)


def test_known_numbers() -> None:
    index = BM25(k1=1.2, b=0.75).fit(run_on(["a b", "a a c d"]))
    idf = math.log(1 + 0.5 / 2.5)
    # lengths 2 and 4, mean 3: damping 1.2 (1/4 + 3/4 * 2/3) = 0.9 and 1.2 (1/4 + 3/4 * 4/3) = 1.5
    assert ask(index, "A") == pytest.approx([idf * 2.2 / 1.9, idf * 2 * 2.2 / 3.5], rel=1e-14)
    assert ask(index, "b")[1] == 0.0


def test_a_query_without_known_words_scores_zero() -> None:
    index = BM25().fit(run_on(["one two", "three"]))
    for query in ("?!", "four five"):
        assert ask(index, query).tolist() == [0.0, 0.0]


def test_prompts_count_as_text() -> None:
    corpus = Corpus([Record("a", "yes", prompt="is water wet"), Record("b", "no")])
    index = BM25().fit(train_bigram(corpus, steps=1))
    found = index.attribute(Corpus([Record("q", "maybe", prompt="Water?")])).values[0]
    assert found[0] > 0 == found[1]
    assert words(corpus[0]) == ["is", "water", "wet", "yes"]


def test_record_order_does_not_change_a_byte() -> None:
    texts = ["b a c a", "c c b", "a", "d b a a a c", "b b b d"]
    forth, back = BM25().fit(run_on(texts)), BM25().fit(run_on(texts[::-1]))
    for query in ("a b c d", "d c b a a", "b"):
        assert ask(forth, query).tobytes() == ask(back, query)[::-1].tobytes()


def test_a_classifier_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="bm25 compares words, but record 'digit-0484' is a feature vector"):
        BM25().fit(digits_linear().run)


def test_a_query_of_features_is_refused() -> None:
    index = BM25().fit(text_bigram().run)
    with pytest.raises(PoaError, match="query 'f' has no text"):
        index.attribute(Corpus([Record("f", features=(1.0,), label=0)]))


@pytest.mark.parametrize(("k1", "b"), [(-1.0, 0.5), (float("nan"), 0.5), (1.0, 1.5), (1.0, float("nan"))])
def test_bad_parameters_are_refused(k1: float, b: float) -> None:
    with pytest.raises(PoaError, match="must be"):
        BM25(k1, b)


def test_save_and_load(tmp_path: Path) -> None:
    run = run_on(["ünï cödé", "code ünï", "x_1 2"])
    index = BM25(k1=0.9, b=0.4).fit(run)
    index.save(tmp_path / "index")
    loaded = BM25Index.load(tmp_path / "index", run)
    assert loaded.method == BM25(k1=0.9, b=0.4)
    assert loaded.vocabulary == index.vocabulary
    assert ask(loaded, "ÜNÏ 2").tobytes() == ask(index, "ÜNÏ 2").tobytes()


def test_a_corpus_without_words(tmp_path: Path) -> None:
    from dataclasses import replace

    from poa.conformance import isolated

    corpus = Corpus([Record("a", "!"), Record("b", "...")])
    with isolated(text_bigram().run) as view:
        wordless = replace(view, corpus=corpus, groups={})
        index = BM25().fit(wordless)
        assert ask(index, "word").tolist() == [0.0, 0.0]
        index.save(tmp_path / "index")
        assert BM25Index.load(tmp_path / "index", wordless).vocabulary == ()
