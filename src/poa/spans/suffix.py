"""Suffix array by induced sorting (SA-IS), in linear time, over integer symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit

Array = npt.NDArray[Any]


def suffix_array(text: Array, alphabet: int) -> npt.NDArray[np.int32]:
    """Start positions of all suffixes of `text` in ascending order, int32[n].

    text: uint16[n] or int32[n] with 0 <= symbol < `alphabet` (not checked) and n < 2^31. The end of the text is
    smaller than every symbol, so a suffix comes before every longer one that it begins. Besides the result it needs
    n/8 bytes and one int32 pair per symbol, at every level of the recursion.
    Source: Nong, Zhang and Chan, Two Efficient Algorithms for Linear Time Suffix Array Construction (2011).
    """
    suffixes = np.empty(text.size, np.int32)
    _sort(_frozen(text), alphabet, suffixes)
    return suffixes


def _sort(text: Array, alphabet: int, suffixes: Array) -> None:
    if text.size == 0:
        return
    counts = np.zeros(alphabet, np.int32)
    pointers = np.empty(alphabet, np.int32)
    marks = np.zeros((text.size + 7) // 8, np.uint8)
    _count(text, counts)
    # LMS: a position whose suffix is smaller than the next one (type S) while the one before it is larger (type L).
    lms = _mark(text, marks)
    _seed(text, marks, counts, pointers, suffixes)
    _induce(text, counts, pointers, suffixes)
    if lms == 0:
        return
    names = _name(text, marks, suffixes)
    head, reduced = suffixes[:lms], suffixes[text.size - lms :]
    if names < lms:
        _sort(_frozen(reduced), names, head)
    else:
        head[reduced] = np.arange(lms, dtype=np.int32)
    _spread(text, marks, lms, counts, pointers, suffixes)
    _induce(text, counts, pointers, suffixes)


def _frozen(array: Array) -> Array:
    # A read-only array is another type to numba: one kind at every level means one compilation.
    view = array.view()
    view.flags.writeable = False
    return view


@jit
def _count(text: Array, counts: Array) -> None:
    for i in range(text.size):
        counts[text[i]] += 1


@jit
def _heads(counts: Array, pointers: Array) -> None:
    total = 0
    for c in range(counts.size):
        pointers[c] = total
        total += counts[c]


@jit
def _tails(counts: Array, pointers: Array) -> None:
    total = 0
    for c in range(counts.size):
        total += counts[c]
        pointers[c] = total


@jit
def _marked(marks: Array, i: int) -> bool:
    return (marks[i >> 3] >> (i & 7)) & 1 == 1


@jit
def _mark(text: Array, marks: Array) -> int:
    """Set the bit of every LMS position; how many there are. The last position is L: the end is smaller."""
    found = 0
    smaller = False
    for i in range(text.size - 2, -1, -1):
        before = smaller
        smaller = text[i] < text[i + 1] or (text[i] == text[i + 1] and before)
        if before and not smaller:
            marks[(i + 1) >> 3] |= 1 << ((i + 1) & 7)
            found += 1
    return found


@jit
def _seed(text: Array, marks: Array, counts: Array, pointers: Array, suffixes: Array) -> None:
    """LMS positions at the ends of their symbols' buckets, in text order; -1 elsewhere."""
    suffixes[:] = -1
    _tails(counts, pointers)
    for i in range(text.size):
        if _marked(marks, i):
            pointers[text[i]] -= 1
            suffixes[pointers[text[i]]] = i


@jit
def _induce(text: Array, counts: Array, pointers: Array, suffixes: Array) -> None:
    """Sort L positions from LMS ones left to right, then S positions from L ones right to left."""
    _heads(counts, pointers)
    last = text.size - 1
    # The end of the text is the smallest suffix and induces the last position before anything else.
    suffixes[pointers[text[last]]] = last
    pointers[text[last]] += 1
    for i in range(text.size):
        j = suffixes[i]
        if j > 0:
            c = text[j - 1]
            # Every j seen in this scan is L or LMS, so an equal symbol before it is L as well.
            if c >= text[j]:
                suffixes[pointers[c]] = j - 1
                pointers[c] += 1
    _tails(counts, pointers)
    for i in range(last, -1, -1):
        j = suffixes[i]
        if j > 0:
            c, d = text[j - 1], text[j]
            # S positions fill a bucket from its end down to its pointer: j is S exactly if i has been reached by it.
            if c < d or (c == d and pointers[d] <= i):
                pointers[c] -= 1
                suffixes[pointers[c]] = j - 1


@jit
def _same_piece(text: Array, marks: Array, p: int, q: int) -> bool:
    """Whether the stretches from LMS positions p and q to the next LMS position are equal, both ends included."""
    k = 0
    while p + k < text.size and q + k < text.size and text[p + k] == text[q + k]:
        if k > 0:
            p_ends, q_ends = _marked(marks, p + k), _marked(marks, q + k)
            if p_ends or q_ends:
                return p_ends and q_ends
        k += 1
    return False


@jit
def _name(text: Array, marks: Array, suffixes: Array) -> int:
    """Number the sorted LMS stretches; the reduced text is left in the tail of `suffixes`. How many names there are."""
    lms = 0
    for i in range(text.size):
        if _marked(marks, suffixes[i]):
            suffixes[lms] = suffixes[i]
            lms += 1
    suffixes[lms:] = -1
    names = 0
    for i in range(lms):
        if i == 0 or not _same_piece(text, marks, suffixes[i - 1], suffixes[i]):
            names += 1
        # Two LMS positions are at least two apart, so half the position is a place of its own.
        suffixes[lms + (suffixes[i] >> 1)] = names - 1
    free = text.size - 1
    for i in range(text.size - 1, lms - 1, -1):
        if suffixes[i] >= 0:
            suffixes[free] = suffixes[i]
            free -= 1
    return names


@jit
def _spread(text: Array, marks: Array, lms: int, counts: Array, pointers: Array, suffixes: Array) -> None:
    """The sorted reduced suffixes back as text positions, at the ends of their buckets, in order."""
    at = text.size - lms
    for i in range(text.size):
        if _marked(marks, i):
            suffixes[at] = i
            at += 1
    for i in range(lms):
        suffixes[i] = suffixes[text.size - lms + suffixes[i]]
    suffixes[lms:] = -1
    _tails(counts, pointers)
    for i in range(lms - 1, -1, -1):
        p = suffixes[i]
        suffixes[i] = -1
        pointers[text[p]] -= 1
        suffixes[pointers[text[p]]] = p
