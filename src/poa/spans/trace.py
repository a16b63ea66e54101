"""The verbatim spans of an output: where they stand in the corpus, how often, how informative, since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.spans.calibrate import Calibration
from poa.spans.display import OlmoTrace, olmotrace
from poa.spans.index import SpanIndex
from poa.spans.information import Unigram, require_vocabulary, span_sums

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SpanDocument:
    """One document that holds a span: `position` is where the span starts in it, in tokens."""

    record_id: str
    owner: str
    position: int
    registered: int
    document: int


@dataclass(frozen=True)
class Span:
    """Output tokens [start, end), which stand `count` times in the corpus (occurrences, not documents).

    information: sum in 1/1024 bit, None without a unigram table. p_value: how often decoy text does as well, None
    without a calibration. documents: the first registrant first. common: above the display's count cap.
    """

    start: int
    end: int
    length: int
    count: int
    information: int | None
    p_value: float | None
    documents: tuple[SpanDocument, ...]
    common: bool = False


def trace(
    index: SpanIndex,
    output_tokens: Sequence[int] | Array,
    *,
    unigram: Unigram | None = None,
    calibration: Calibration | None = None,
    documents: int = 10,
    min_length: int = 1,
    theta: int | None = None,
    display: Literal["maximal", "olmotrace"] = "maximal",
    olmo: OlmoTrace | None = None,
) -> tuple[Span, ...]:
    """Spans of `output_tokens` in order of start.

    display "maximal": every match that no other match contains, whatever its count. "olmotrace": the choice OLMoTrace
    shows, with the settings `olmo`; a view that no payment reads. documents: ranks looked up per span besides the
    first registrant. min_length: in tokens. theta: least information in 1/1024 bit, for instance `calibration.theta`.
    Raises `PoaError` for tokens outside the vocabulary and for options that need a unigram table, `Mismatch` where
    index, table and calibration do not belong together.
    """
    _check(index, unigram, calibration, documents, min_length, theta, display, olmo)
    output = index.encode(output_tokens, "output")
    starts, ends, lo, hi, common = _chosen(index, output, unigram, display, olmo)
    sums = None if unigram is None else span_sums(unigram.information(output), starts, ends)
    keep = ends - starts >= min_length
    if theta is not None and sums is not None:
        keep &= sums >= theta
    from poa.spans.search import documents_at, first_positions

    first = first_positions(index, lo, hi)
    out: list[Span] = []
    for i in np.flatnonzero(keep).tolist():
        start, end, information = int(starts[i]), int(ends[i]), None if sums is None else int(sums[i])
        chance = None if calibration is None or information is None else calibration.p_value(information)
        held = documents_at(index, int(lo[i]), int(hi[i]), int(first[i]), documents)
        sources = tuple(_document(index, *pair) for pair in held)
        count = int(hi[i] - lo[i])
        out.append(Span(start, end, end - start, count, information, chance, sources, bool(common[i])))
    return tuple(out)


def _chosen(
    index: SpanIndex, output: Array, unigram: Unigram | None, display: str, olmo: OlmoTrace | None
) -> tuple[Array, Array, Array, Array, Array]:
    if display == "olmotrace":
        return olmotrace(index, output, olmo or OlmoTrace(), unigram)
    from poa.spans.search import matches

    found = matches(index, output)
    return found.starts, found.ends, found.lo, found.hi, np.zeros(found.starts.size, np.bool_)


def _document(index: SpanIndex, document: int, position: int) -> SpanDocument:
    return SpanDocument(
        index.record_ids[document],
        index.owner(document),
        position - int(index.offsets[document]) - 1,
        int(index.registered[document]),
        document,
    )


def _check(
    index: SpanIndex,
    unigram: Unigram | None,
    calibration: Calibration | None,
    documents: int,
    min_length: int,
    theta: int | None,
    display: str,
    olmo: OlmoTrace | None,
) -> None:
    if documents < 0:
        raise PoaError(f"documents is {documents}; it must be 0 or more")
    if min_length < 1:
        raise PoaError(f"min_length is {min_length}; it must be 1 or more")
    if display not in ("maximal", "olmotrace"):
        raise PoaError(f"display is {display!r}; choose 'maximal' or 'olmotrace'")
    if olmo is not None and display != "olmotrace":
        raise PoaError("olmo settings need display='olmotrace'")
    if unigram is None and (theta is not None or calibration is not None):
        raise PoaError(f"{'calibration' if theta is None else 'theta'} needs a unigram table: information is its sum")
    if unigram is not None:
        require_vocabulary(index, unigram)
        if calibration is not None:
            calibration.require(index, unigram)
