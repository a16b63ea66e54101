"""Held-out texts are nobody's copy, disjoint from training, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poa.errors import PoaError
from poa.pipeline.placebo import WORDS, placebo
from poa.pipeline.selection import choose
from poa.pipeline.settings import Answers, Select, Stages, read
from poa.records import Corpus, Record

SELECT = Select(contributors=3, records=4, queries=2, responses=1, shortest=100, longest=400)


def prose(seed: int) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, 40))


@pytest.fixture(scope="module")
def honest() -> Corpus:
    """Four contributors with 12, 12, 12 and 10 unrelated texts, and one text that is too short."""
    owners = [f"c{i % 4}" for i in range(40)] + ["c0", "c1", "c2", "c0", "c1", "c2"]
    return Corpus(
        [Record(f"h{i}", prose(i), contributor=owner) for i, owner in enumerate(owners)]
        + [Record("short", "brief", contributor="c3")]
    )


def test_parts_are_disjoint_and_as_large_as_asked(honest: Corpus) -> None:
    chosen = choose(honest, SELECT)
    parts = (chosen.train, chosen.queries, chosen.responses)
    assert [len(part) for part in parts] == [12, 6, 3]
    assert len({record.id for part in parts for record in part}) == 21
    for part, each in zip(parts, (4, 2, 1), strict=True):
        assert [part.contributors.count(f"c{i}") for i in range(4)] == [each, each, each, 0]
    assert choose(honest, SELECT) == chosen
    assert choose(honest, replace(SELECT, seed=1)) != chosen


def test_order_of_the_corpus_of_others_does_not_matter(honest: Corpus) -> None:
    named = replace(SELECT, contributors=("c1",))
    alone = honest.where(lambda record: record.contributor == "c1")
    assert choose(honest, named) == choose(alone, named)


def test_a_copy_is_never_held_out() -> None:
    copied = [Record(f"{name}{i}", prose(i), contributor=name) for name in "ab" for i in range(9)]
    own = [
        Record(f"{name}-own-{i}", prose(100 * place + i), contributor=name)
        for place, name in enumerate("ab", 1)
        for i in range(3)
    ]
    # Nine and a third to spare is all twelve texts of each.
    select = Select(contributors=2, records=7, queries=1, responses=1, shortest=10, longest=400)
    for seed in range(5):
        chosen = choose(Corpus(copied + own), replace(select, seed=seed))
        assert all("own" in record.id for record in (*chosen.queries, *chosen.responses))


def test_nothing_but_copies_is_refused() -> None:
    twins = Corpus(Record(f"{name}{i}", prose(i), contributor=name) for name in "ab" for i in range(9))
    with pytest.raises(PoaError, match="contributor 'a' has only 0 texts that are nobody's copy; hold out fewer"):
        choose(twins, Select(contributors=2, records=5, queries=1, responses=1, shortest=10, longest=400))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contributors": ("c0", "nobody")}, "names 'nobody', who has no text"),
        ({"records": 40}, "contributor 'c0' has 12 texts of 100-400 characters; select asks for 43"),
    ],
)
def test_what_cannot_be_chosen(honest: Corpus, change: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        choose(honest, replace(SELECT, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Select, {"records": 0}, r"select\.records is 0"),
        (Select, {"queries": 0}, r"select\.queries is 0"),
        (Select, {"quaries": 3}, "select has no option 'quaries'; did you mean 'queries'"),
        (Stages, {"pay": True}, "at least two seeds: an unmeasured method may not pay"),
        (Stages, {"pay": True, "truth": [0]}, "at least two seeds"),
        (Stages, {"attacks": ["copier"]}, "at least two seeds"),
        (Stages, {"fee": 0}, r"stages\.fee is 0"),
        (Stages, {"settings": {"logra": {}}, "compare": ["bm25"]}, "settings names logra, which stages.compare does"),
        (Answers, {"token": 3}, "did you mean 'tokens'"),
    ],
)
def test_wrong_settings(kind: type[Select], given: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        read(kind, given, kind.__name__.lower())


def test_lists_become_tuples() -> None:
    assert read(Stages, {"compare": ["bm25"], "truth": [0, 1]}, "stages") == Stages(("bm25",), (0, 1))
    assert hash(read(Select, {"contributors": ["a"]}, "select")) == hash(Select(contributors=("a",)))


def test_placebos_are_words_of_the_texts_in_their_frequencies() -> None:
    texts = ["alpha alpha alpha beta", "Alpha, gamma!"]
    found = placebo(texts, 40, seed=1)
    assert found.ids == tuple(f"placebo-{i}" for i in range(40))
    drawn = [word for record in found for word in record.text.split()]
    assert len(drawn) == 40 * WORDS
    assert set(drawn) == {"alpha", "beta", "gamma"}
    assert drawn.count("alpha") / len(drawn) == pytest.approx(4 / 6, abs=4 * (2 / 9 / len(drawn)) ** 0.5)
    assert placebo(texts, 40, seed=1) == found
    assert placebo(texts, 40, seed=2) != found
