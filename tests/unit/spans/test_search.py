"""Spans, counts, documents and first registrants against brute force on small random corpora."""

from __future__ import annotations

import numpy as np
import pytest

from poa.spans import Document, SpanIndex
from poa.spans.search import documents_at, first_positions, held_by, intervals, matches, reach

Text = list[int | None]


class Brute:
    """The definitions, on Python lists: None separates documents."""

    def __init__(self, documents: list[Document]) -> None:
        placed = sorted(documents, key=lambda document: document.registered)
        self.ids = [document.record_id for document in placed]
        self.text: Text = []
        self.document: list[int] = []
        for i, document in enumerate(placed):
            self.text += [None, *document.tokens]
            self.document += [i] * (len(document.tokens) + 1)

    def occurrences(self, needle: list[int]) -> list[int]:
        """Positions in suffix order; the separator sorts above every token, the end of the text below."""
        places = [i for i in range(len(self.text)) if self.text[i : i + len(needle)] == needle]
        return sorted(places, key=lambda i: [float("inf") if t is None else t for t in self.text[i:]])

    def reach(self, query: list[int]) -> list[int]:
        out: list[int] = []
        for x in range(len(query)):
            y = x
            while y < len(query) and self.occurrences(query[x : y + 1]):
                y += 1
            out.append(y)
        return out

    def documents(self, needle: list[int], k: int) -> list[tuple[int, int]]:
        places = self.occurrences(needle)
        ranked = [min(places)] + [places[t * len(places) // k] for t in range(k)]
        seen: dict[int, int] = {}
        for place in ranked:
            seen.setdefault(self.document[place], place)
        return list(seen.items())


def corpus(draw: np.random.Generator, symbols: int) -> list[Document]:
    times = draw.permutation(20)
    kinds = [draw.integers(0, symbols, int(draw.integers(0, 14))) for _ in range(int(draw.integers(0, 5)))]
    if kinds and draw.random() < 0.4:
        kinds.append(np.tile(kinds[0], int(draw.integers(1, 5))))
    return [Document(f"r{i}", f"o{i % 2}", int(times[i]), one.tolist()) for i, one in enumerate(kinds)]


def asked(draw: np.random.Generator, documents: list[Document], symbols: int) -> list[int]:
    """Random tokens, or pieces of the corpus with a few tokens changed, so that long matches occur."""
    if not documents or draw.random() < 0.3:
        return draw.integers(0, symbols, int(draw.integers(0, 14))).tolist()
    pool = [token for document in documents for token in document.tokens]
    start = int(draw.integers(0, len(pool) + 1))
    piece = np.array(pool[start : start + int(draw.integers(0, 40))], np.int64)
    changed = draw.random(piece.size) < 0.08
    piece[changed] = draw.integers(0, symbols, int(changed.sum()))
    return piece.tolist()


def agree_with_brute_force(cases: int, seed: int) -> tuple[int, int]:
    """How many spans were compared, and how many of them were longer than 8 tokens (which gallop backwards)."""
    draw = np.random.default_rng(seed)
    compared, long = 0, 0
    for case in range(cases):
        # The query may hold a token that no document holds; every seventh index is of a 32-bit vocabulary.
        symbols, high = int(draw.integers(1, 5)), 70_000 if case % 7 == 0 else 0
        documents = corpus(draw, symbols)
        query = [token + high for token in asked(draw, documents, symbols + 1)]
        documents = [one._replace(tokens=[token + high for token in one.tokens]) for one in documents]
        index = SpanIndex.build(documents, high + symbols + 1, "t", "r")
        brute = Brute(documents)
        encoded = index.encode(query, "output")
        found, wanted = matches(index, encoded), brute.reach(query)
        assert found.reach.tolist() == reach(index, encoded).tolist() == wanted
        maximal = [(x, e) for x, e in enumerate(wanted) if e > x and e > max(wanted[:x], default=0)]
        assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == maximal
        first = first_positions(index, found.lo, found.hi)
        for i, (start, end) in enumerate(maximal):
            places = brute.occurrences(query[start:end])
            lo, hi = int(found.lo[i]), int(found.hi[i])
            assert index.suffixes[lo:hi].tolist() == places
            assert first[i] == min(places)
            k = int(draw.integers(1, 6))
            assert documents_at(index, lo, hi, int(first[i]), k) == brute.documents(query[start:end], k)
            compared, long = compared + 1, long + (end - start > 8)
    return compared, long


def test_two_thousand_random_corpora() -> None:
    compared, long = agree_with_brute_force(2200, seed=0)
    # The cases are not vacuous: about two spans each, and enough of them long.
    assert compared > 3500
    assert long > 250


@pytest.mark.slow
def test_ten_thousand_random_corpora() -> None:
    compared, _ = agree_with_brute_force(10_000, seed=1)
    assert compared > 16_000


def test_intervals_of_any_window() -> None:
    draw = np.random.default_rng(2)
    for _ in range(150):
        documents = corpus(draw, 3)
        index, brute = SpanIndex.build(documents, 3, "t", "r"), Brute(documents)
        query = draw.integers(0, 3, 9).tolist()
        pairs = np.array([(x, y) for x in range(9) for y in range(x + 1, 10)])
        starts, ends = pairs.T.copy()
        lo, hi = intervals(index, index.encode(query, "output"), starts, ends)
        least = int(draw.integers(1, 4))
        held = held_by(index, lo, hi, least)
        for i, (x, y) in enumerate(pairs):
            places = brute.occurrences(query[x:y])
            assert index.suffixes[lo[i] : hi[i]].tolist() == places
            assert bool(held[i]) == (len({brute.document[place] for place in places}) >= least)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_long_verbatim_pieces_with_one_changed_token(cut: int) -> None:
    text = np.random.default_rng(3).integers(0, 50, 400).tolist()
    index = SpanIndex.build([("a", "x", 1, text)], 60, "t", "r")
    query = [*text[100 : 100 + cut], 55, *text[200:260]]
    found = matches(index, index.encode(query, "output"))
    brute = Brute([Document("a", "x", 1, text)]).reach(query)
    assert found.reach.tolist() == brute
    assert (found.starts[0], found.ends[0]) == (0, cut)
    assert (found.starts[-1], found.ends[-1]) == (cut + 1, len(query))


def test_no_match_crosses_a_document() -> None:
    index = SpanIndex.build([("a", "x", 1, [1, 2, 3]), ("b", "y", 2, [4, 5])], 6, "t", "r")
    found = matches(index, index.encode([1, 2, 3, 4, 5], "output"))
    assert list(zip(found.starts, found.ends, strict=True)) == [(0, 3), (3, 5)]


def test_a_text_that_ends_in_token_zero() -> None:
    index = SpanIndex.build([("a", "x", 1, [5])], 6, "t", "r")
    found = matches(index, index.encode([5, 0, 0, 0], "output"))
    assert found.reach.tolist() == [1, 1, 2, 3]


def test_documents_come_from_all_over_the_interval() -> None:
    documents = [(f"r{i:03d}", "x", i, [7, i]) for i in range(100)]
    index = SpanIndex.build(documents, 101, "t", "r")
    found = matches(index, index.encode([7], "output"))
    lo, hi = int(found.lo[0]), int(found.hi[0])
    # Token 7 also stands as the second token of document 7.
    assert hi - lo == 101
    first = int(first_positions(index, found.lo, found.hi)[0])
    picked = [document for document, _ in documents_at(index, lo, hi, first, 10)]
    assert picked[0] == 0
    assert max(picked) >= 88
    assert len(picked) == 10
