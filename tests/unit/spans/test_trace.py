"""trace: the spans a person sees, their numbers and filters, and OLMoTrace's choice against its rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from poa.errors import Mismatch, PoaError
from poa.spans import OlmoTrace, Span, SpanDocument, SpanIndex, Unigram, calibrate, trace

VOCABULARY = 8
TABLE = Unigram(np.arange(1, 9, dtype=np.int64), 8)
DOCUMENTS = [("old", "ann", 5, [1, 2, 3, 4]), ("new", "bob", 9, [0, 2, 3, 4, 5, 2, 3])]


@pytest.fixture(scope="module")
def index() -> SpanIndex:
    return SpanIndex.build(DOCUMENTS, VOCABULARY, "t", "r")


def test_a_span_says_everything(index: SpanIndex) -> None:
    measured = calibrate(index, TABLE, [[2, 3], [7, 7]])
    found = trace(index, [6, 2, 3, 4, 7, 2, 3], unigram=TABLE, calibration=measured)
    old, new = SpanDocument("old", "ann", 1, 5, 0), SpanDocument("new", "bob", 1, 9, 1)
    # Decoy tokens reach 7 (2 + 3), 7, 0 and 0.
    assert measured.scores.tolist() == [0, 0, 7, 7]
    # By rank: "2 3" at the end of the text, then before "4" (the separator follows in old, 5 in new).
    assert found == (
        Span(1, 4, 3, 2, 12, 1 / 5, (old, new)),
        Span(5, 7, 2, 3, 7, 3 / 5, (old, SpanDocument("new", "bob", 5, 9, 1))),
    )


def test_without_a_table_there_is_no_information(index: SpanIndex) -> None:
    assert [(s.information, s.p_value) for s in trace(index, [2, 3])] == [(None, None)]
    assert [s.p_value for s in trace(index, [2, 3], unigram=TABLE)] == [None]


def test_filters(index: SpanIndex) -> None:
    query = [6, 2, 3, 4, 7, 2, 3, 0]
    whole = trace(index, query, unigram=TABLE)
    assert [s.length for s in whole] == [3, 2, 1]
    assert trace(index, query, unigram=TABLE, min_length=2) == whole[:2]
    assert trace(index, query, unigram=TABLE, theta=8) == whole[:1]
    assert [len(s.documents) for s in trace(index, query, documents=0)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"documents": -1}, "documents is -1"),
        ({"min_length": 0}, "min_length is 0"),
        ({"theta": 3}, "theta needs a unigram table"),
        ({"display": "all"}, "display is 'all'; choose 'maximal' or 'olmotrace'"),
        ({"olmo": OlmoTrace()}, "olmo settings need display='olmotrace'"),
        ({"display": "olmotrace", "olmo": OlmoTrace(rank="unigram")}, "rank 'unigram' needs a unigram table"),
    ],
)
def test_bad_options_are_refused(index: SpanIndex, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        trace(index, [1], **options)


def test_what_does_not_belong_together_is_refused(index: SpanIndex) -> None:
    other = calibrate(SpanIndex.build([], VOCABULARY, "t", "r"), TABLE, [[1], [2]])
    with pytest.raises(Mismatch, match="calibration belongs to index"):
        trace(index, [1], unigram=TABLE, calibration=other)
    with pytest.raises(PoaError, match="calibration needs a unigram table"):
        trace(index, [1], calibration=other)
    with pytest.raises(Mismatch, match="unigram table has 2 tokens"):
        trace(index, [1], unigram=Unigram(TABLE.table[:2], 8))
    with pytest.raises(PoaError, match="output: token 8 at position 1 is outside the vocabulary of 8"):
        trace(index, [1, 8])


@pytest.mark.parametrize("bad", [{"max_count": 0}, {"percent": 0}, {"percent": 101}, {"rank": "bm25"}])
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(PoaError, match="olmotrace"):
        OlmoTrace(**bad)


def by_the_rules(index: SpanIndex, query: list[int], olmo: OlmoTrace) -> list[tuple[int, int, int, bool]]:
    """OLMoTrace step by step (start, end, count, common), on lists."""
    documents = [index.tokens(i).tolist() for i in range(len(index))]

    def count(piece: list[int]) -> int:
        return sum(piece == one[i : i + len(piece)] for one in documents for i in range(len(one)))

    def begins(i: int) -> bool:
        return i == len(query) or olmo.word_starts is None or query[i] in olmo.word_starts

    kept, common, passed, seen = [], [], 0, 0
    for start in range(len(query)):
        if not begins(start):
            continue
        end = start
        while end < len(query) and count(query[start : end + 1]):
            end += 1
        cut = [i for i in range(start, end) if query[i] in olmo.delimiters]
        end = cut[0] + 1 if cut else end
        while end > start and not begins(end):
            end -= 1
        if end == start:
            continue
        times = count(query[start:end])
        if times > olmo.max_count:
            if end > seen:
                common.append((start, end, times, True))
        elif end > passed:
            kept.append((start, end, times, False))
            passed = end
        seen = max(seen, end)

    def worth(span: tuple[int, int, int, bool]) -> int:
        piece = query[span[0] : span[1]]
        return len(piece) if olmo.rank == "length" else sum(int(TABLE.table[token]) for token in piece)

    most = -(-len(query) * olmo.percent // 100)
    return sorted(sorted(kept, key=lambda span: (-worth(span), span[0]))[:most] + common)


def test_olmotrace_follows_the_rules() -> None:
    draw = np.random.default_rng(0)
    common = 0
    for case in range(250):
        symbols = int(draw.integers(2, VOCABULARY + 1))
        rows = [(f"r{i}", "x", i, draw.integers(0, symbols, int(draw.integers(0, 25))).tolist()) for i in range(4)]
        index = SpanIndex.build(rows, VOCABULARY, "t", "r")
        query = draw.integers(0, symbols, int(draw.integers(0, 30))).tolist()
        olmo = OlmoTrace(
            max_count=int(draw.integers(1, 5)),
            percent=int(draw.choice([5, 10, 40, 100])),
            rank="unigram" if case % 2 else "length",
            delimiters=frozenset(draw.integers(0, symbols, int(draw.integers(0, 2))).tolist()),
            word_starts=None if case % 3 == 0 else frozenset(draw.integers(0, symbols, 3).tolist()),
        )
        found = trace(index, query, unigram=TABLE, display="olmotrace", olmo=olmo)
        assert [(s.start, s.end, s.count, s.common) for s in found] == by_the_rules(index, query, olmo)
        common += sum(s.common for s in found)
    assert common > 50


def test_olmotrace_defaults() -> None:
    rows = [(f"r{i}", "x", i, [1, 2, 3, i % 3 + 4]) for i in range(12)]
    index = SpanIndex.build(rows, VOCABULARY, "t", "r")
    # Twelve documents hold "1 2 3": OLMoTrace would hide it, here it is shown as common; 20 tokens allow one more span.
    query = [1, 2, 3, 0, 2, 3, 5, 0, 3, 6, *[0] * 10]
    found = trace(index, query, display="olmotrace")
    assert [(s.start, s.end, s.count, s.common) for s in found] == [(0, 3, 12, True), (4, 7, 4, False)]
    assert [s.count for s in trace(index, query)] == [12, 4, 4]


def test_settings_take_any_collection() -> None:
    assert OlmoTrace(delimiters=[1, 2]) == OlmoTrace(delimiters=frozenset({2, 1}))  # type: ignore[arg-type]
    assert hash(OlmoTrace(word_starts=[1])) == hash(OlmoTrace(word_starts=frozenset({1})))  # type: ignore[arg-type]
