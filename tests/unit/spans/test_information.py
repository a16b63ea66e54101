"""Unigram information in exact integers, and the two families of shortest windows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import Corrupt, Mismatch, PoaError
from poa.spans import SpanIndex, Unigram
from poa.spans.information import BIT, require_vocabulary, shortest_windows, span_sums
from poa.spans.stored import save_arrays

LAW = settings(deadline=None, derandomize=True, max_examples=200)


@LAW
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_the_table_is_the_floor_of_the_logarithm(counts: list[int]) -> None:
    table = Unigram.from_counts(counts, cap=60 * BIT).table
    halves = [max(2 * count, 1) for count in counts]
    for value, half in zip(table.tolist(), halves, strict=True):
        # value <= 1024 log2(total / half) < value + 1, decided in exact arithmetic.
        odds = Fraction(sum(halves), half) ** BIT
        assert Fraction(2) ** value <= odds < Fraction(2) ** (value + 1)


def test_powers_of_two_are_exact() -> None:
    assert Unigram.from_counts([4, 2, 1, 1]).table.tolist() == [BIT, 2 * BIT, 3 * BIT, 3 * BIT]
    assert Unigram.from_counts([9]).table.tolist() == [0]


def test_an_unseen_token_counts_half_and_is_capped() -> None:
    seen = 1 << 30
    counts = [seen, 0]
    assert Unigram.from_counts(counts).table.tolist() == [0, 20 * BIT]
    assert Unigram.from_counts(counts, cap=40 * BIT).table.tolist() == [0, 31 * BIT]


def test_from_documents_counts_tokens() -> None:
    made = Unigram.from_documents([[0, 0, 1], [], [0, 2, 0, 3]], 4)
    assert made.digest == Unigram.from_counts([4, 1, 1, 1]).digest
    assert made.digest != Unigram.from_counts([4, 1, 1, 1], cap=19 * BIT).digest
    with pytest.raises(PoaError, match="reference document 1: token 4 at position 0"):
        Unigram.from_documents([[0], [4]], 4)


@pytest.mark.parametrize("counts", [[], [1, -1], [0.5], [[1]]])
def test_counts_must_be_counts(counts: list[object]) -> None:
    with pytest.raises(PoaError, match="unigram counts"):
        Unigram.from_counts(counts)  # type: ignore[arg-type]


def test_a_cap_must_be_positive() -> None:
    with pytest.raises(PoaError, match="cap"):
        Unigram.from_counts([1], cap=0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    made = Unigram.from_counts([5, 0, 3])
    made.save(tmp_path / "unigram")
    again = Unigram.load(tmp_path / "unigram")
    assert again.digest == made.digest
    assert repr(again).startswith("Unigram(3 tokens, cap 20 bits")
    save_arrays(tmp_path / "forged", "poa.unigram/1", {"table": made.table}, {"cap": 3})
    with pytest.raises(Corrupt, match=r"table\.npy"):
        Unigram.load(tmp_path / "forged")


def test_the_table_must_have_the_index_vocabulary() -> None:
    index = SpanIndex.build([], 4, "t", "r")
    with pytest.raises(Mismatch, match="unigram table has 3 tokens, the span index 4"):
        require_vocabulary(index, Unigram.from_counts([1, 1, 1]))


@LAW
@given(st.lists(st.integers(0, 6), max_size=14), st.integers(1, 20))
def test_the_windows_are_the_shortest_of_every_start_and_every_end(bits: list[int], theta: int) -> None:
    m = len(bits)
    informative = [(x, y) for x in range(m) for y in range(x + 1, m + 1) if sum(bits[x:y]) >= theta]
    wanted = {(x, min(y for s, y in informative if s == x)) for x, _ in informative}
    wanted |= {(max(x for x, e in informative if e == y), y) for _, y in informative}
    starts, ends = shortest_windows(np.array(bits, np.int64), theta)
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == sorted(wanted)
    sums = span_sums(np.array(bits, np.int64), starts, ends)
    assert sums.tolist() == [sum(bits[x:y]) for x, y in sorted(wanted)]
    # What rule P rests on: each informative span that holds t contains one of these windows that holds t.
    for x, y in informative:
        for t in range(x, y):
            assert any(x <= a <= t < b <= y for a, b in wanted)
