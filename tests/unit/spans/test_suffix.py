"""Suffix array and block minima against sorting and scanning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.spans.minima import block_minima, earliest
from poa.spans.suffix import suffix_array

LAW = settings(deadline=None, derandomize=True, max_examples=400)
TEXTS = st.integers(1, 4).flatmap(lambda symbols: st.lists(st.integers(0, symbols - 1), max_size=60))


def naive(text: list[int]) -> list[int]:
    return sorted(range(len(text)), key=lambda i: text[i:])


@LAW
@given(TEXTS, st.integers(1, 4))
def test_it_is_the_sorted_order_of_all_suffixes(text: list[int], times: int) -> None:
    whole = text * times
    for kind in (np.uint16, np.int32):
        assert suffix_array(np.array(whole, kind), 4).tolist() == naive(whole)


@pytest.mark.parametrize(
    "text",
    [
        [],
        [0],
        [3],
        [0, 0],
        [0, 1],
        [1, 0],
        [2] * 300,
        [1, 0, 2, 0] * 4,
        [1, 0, 2, 0] * 100,
        [5, 0, 0, 0],
        [5, 3, 5, 0],
        list(range(200)),
        list(range(200, 0, -1)),
        [0, 1] * 64 + [0],
    ],
)
def test_special_texts(text: list[int]) -> None:
    assert suffix_array(np.array(text, np.uint16), 256).tolist() == naive(text)


def test_the_end_of_the_text_is_smaller_than_token_zero() -> None:
    assert suffix_array(np.array([0, 0, 0], np.uint16), 1).tolist() == [2, 1, 0]


def test_the_largest_symbol_of_its_type() -> None:
    text = [0xFFFF, 1, 0xFFFF, 0, 0xFFFF, 1]
    assert suffix_array(np.array(text, np.uint16), 1 << 16).tolist() == naive(text)


def test_deep_recursion() -> None:
    # A Fibonacci word has the most levels of reduced texts for its length.
    a, b = [0], [0, 1]
    while len(b) < 1500:
        a, b = b, b + a
    assert suffix_array(np.array(b, np.uint16), 2).tolist() == naive(b)


@pytest.mark.slow
def test_ten_thousand_random_texts() -> None:
    draw = np.random.default_rng(1)
    for case in range(10_000):
        text = draw.integers(0, int(draw.integers(1, 6)), int(draw.integers(0, 120)))
        if case % 4 == 0:
            text = np.tile(text, 4)
        assert suffix_array(text.astype(np.uint16), 6).tolist() == naive(text.tolist())


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 300_000])
def test_the_earliest_position_of_any_range(size: int) -> None:
    draw = np.random.default_rng(size)
    ranks = draw.permutation(size).astype(np.int32)
    minima = block_minima(ranks)
    lo = draw.integers(0, size, 300)
    hi = np.minimum(size, lo + (size ** draw.random(300)).astype(np.int64) * draw.integers(0, 2, 300))
    lo, hi = np.append(lo, 0), np.append(hi, size)
    wanted = [ranks[a:b].min() if a < b else -1 for a, b in zip(lo, hi, strict=True)]
    assert earliest(ranks, minima, lo, hi).tolist() == wanted
