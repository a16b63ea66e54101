"""Information of tokens under a frozen unigram table, in whole 1/1024 bits, and the shortest informative windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch, PoaError
from poa.spans.documents import encoded
from poa.spans.stored import MANIFEST, load_arrays, save_arrays

if TYPE_CHECKING:
    from poa.spans.index import SpanIndex

Array = npt.NDArray[Any]
BIT = 1024
SCHEMA = "poa.unigram/1"


@dataclass(frozen=True, eq=False, repr=False)
class Unigram:
    """table: int64[V] information of each token in 1/1024 bit, 0 to `cap`. Integers, so that sums are exact.

    It is frozen: made from a reference corpus that contributors cannot change. `cap` keeps one rare token from
    reaching a threshold alone.
    """

    table: Array
    cap: int

    def __post_init__(self) -> None:
        view = np.asarray(self.table).view()
        view.flags.writeable = False
        object.__setattr__(self, "table", view)

    @staticmethod
    def from_counts(counts: Sequence[int] | Array, cap: int = 20 * BIT) -> Unigram:
        """floor(1024 * -log2(count / total)) per token id, at most `cap` (1/1024 bit); a count of 0 stands for 0.5.

        The floor is exact, not that of a rounded logarithm, so every machine makes the same table.
        """
        given: Array = np.asarray(counts)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu" or bool((given < 0).any()):
            raise PoaError("unigram counts must be a flat, non-empty sequence of integers of 0 or more")
        if cap < 1:
            raise PoaError(f"the cap of a unigram table is {cap}/1024 bit; it must be 1 or more")
        halves = np.maximum(given.astype(np.int64) * 2, 1)
        values, inverse = np.unique(halves, return_inverse=True)
        total = int(halves.sum())
        table = np.array([min(cap, _floor_log2(total, int(value))) for value in values], np.int64)
        return Unigram(table[inverse], cap)

    @staticmethod
    def from_documents(documents: Iterable[Sequence[int] | Array], vocab_size: int, cap: int = 20 * BIT) -> Unigram:
        """`from_counts` over the tokens of a reference corpus."""
        counts = np.zeros(vocab_size, np.int64)
        for i, tokens in enumerate(documents):
            np.add.at(counts, encoded(tokens, vocab_size, f"reference document {i}"), 1)
        return Unigram.from_counts(counts, cap)

    def __repr__(self) -> str:
        return f"Unigram({self.table.size} tokens, cap {self.cap / BIT:g} bits, {self.digest[:12]})"

    @cached_property
    def digest(self) -> str:
        return plain_digest([SCHEMA, self.cap, sha256(self.table.tobytes())])

    def information(self, tokens: Array) -> npt.NDArray[np.int64]:
        """int64[m] information of token ids below V, in 1/1024 bit."""
        return self.table[tokens]

    def save(self, folder: str | Path) -> None:
        save_arrays(Path(folder), SCHEMA, {"table": self.table}, {"cap": self.cap})

    @staticmethod
    def load(folder: str | Path) -> Unigram:
        """What `save` wrote; raises `Corrupt`, naming the file."""
        arrays, note = load_arrays(Path(folder), SCHEMA, ("table",), check=True)
        table, cap = arrays["table"], note.get("cap")
        if not isinstance(cap, int):
            raise Corrupt(f"{Path(folder) / MANIFEST}: its note must give the cap")
        if table.dtype != np.int64 or table.ndim != 1 or not 0 <= int(table.min()) <= int(table.max()) <= cap:
            raise Corrupt(f"{Path(folder) / 'table.npy'}: must be flat int64 from 0 to the cap of {cap}")
        return Unigram(table, cap)


def _floor_log2(a: int, b: int) -> int:
    """floor(1024 * log2(a / b)) for a >= b >= 1, exact."""
    near = BIT * (math.log2(a) - math.log2(b))
    whole = round(near)
    # The float is wrong by less than 1e-10, so integers have to decide only where it stands beside a whole number.
    if abs(near - whole) > 1e-6:
        return math.floor(near)
    return whole if a**BIT >= b**BIT << whole else whole - 1


def require_vocabulary(index: SpanIndex, unigram: Unigram) -> None:
    """Raise `Mismatch` unless the table has one entry per token of the index's vocabulary."""
    if unigram.table.size != index.vocab_size:
        raise Mismatch(f"unigram table has {unigram.table.size} tokens, the span index {index.vocab_size}")


def span_sums(information: Array, starts: Array, ends: Array) -> npt.NDArray[np.int64]:
    """int64[k] sums of `information[starts[i]:ends[i]]`."""
    before = np.zeros(information.size + 1, np.int64)
    np.cumsum(information, out=before[1:])
    return before[ends] - before[starts]


def shortest_windows(information: Array, theta: int) -> tuple[Array, Array]:
    """(starts, ends): for every start the shortest window with a sum of `theta` or more, and for every end likewise.

    information: int64[m] of 0 or more; theta 1 or more. Every window that reaches theta and holds a token t contains
    one of these that also holds t, so what is asked of all windows need be asked of at most 2m.
    """
    m = information.size
    before = np.zeros(m + 1, np.int64)
    np.cumsum(information, out=before[1:])
    places = np.arange(m + 1, dtype=np.int64)
    first_end = np.searchsorted(before, before + theta, side="left")
    last_start = np.searchsorted(before, before - theta, side="right") - 1
    forward, backward = first_end <= m, last_start >= 0
    pairs = np.concatenate(
        [
            np.stack([places[forward], first_end[forward]], axis=1),
            np.stack([last_start[backward], places[backward]], axis=1),
        ]
    )
    unique = np.unique(pairs, axis=0).astype(np.int64)
    return np.ascontiguousarray(unique[:, 0]), np.ascontiguousarray(unique[:, 1])
