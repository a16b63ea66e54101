"""Tokens that belong to no owner whoever holds them: copied from the request, or common property."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.spans.documents import Document
from poa.spans.index import SpanIndex
from poa.spans.information import shortest_windows, span_sums

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Commons:
    """A frozen reference index, and how many of its documents must hold a window for it to be common property."""

    index: SpanIndex
    documents: int

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise PoaError(f"commons: documents is {self.documents}; it must be 1 or more")


def from_input(
    index: SpanIndex, output: Array, information: Array, theta: int, passages: Sequence[Sequence[int] | Array]
) -> npt.NDArray[np.bool_]:
    """bool[m]: tokens in a window of `theta` or more (1/1024 bit) that also stands in one of the request's passages.

    passages: token ids of the prompt and of each retrieved text; no window runs across two of them.
    """
    from poa.spans.search import matches

    given = [Document(f"passage {i}", "", i, tokens) for i, tokens in enumerate(passages)]
    request = SpanIndex.build(given, index.vocab_size, index.tokenizer_digest, "")
    # Whatever window stands there lies in a maximal match, which is informative as soon as the window is.
    found = matches(request, output)
    informative = span_sums(information, found.starts, found.ends) >= theta
    return _covered(found.starts[informative], found.ends[informative], output.size)


def common_property(commons: Commons, output: Array, information: Array, theta: int) -> npt.NDArray[np.bool_]:
    """bool[m]: tokens in a window of `theta` or more (1/1024 bit) that enough reference documents hold."""
    from poa.spans.search import held_by, intervals, reach

    starts, ends = shortest_windows(information, theta)
    there = ends <= reach(commons.index, output)[starts]
    starts, ends = starts[there], ends[there]
    held = held_by(commons.index, *intervals(commons.index, output, starts, ends), commons.documents)
    return _covered(starts[held], ends[held], output.size)


def _covered(starts: Array, ends: Array, m: int) -> npt.NDArray[np.bool_]:
    steps = np.zeros(m + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:m]) > 0
