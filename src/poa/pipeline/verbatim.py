"""Verbatim spans of a response in its own characters, each with the documents that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poa.records import Record

if TYPE_CHECKING:
    from poa.factory.run import LoRARun
    from poa.methods.spans import SpansIndex

SHORTEST = 4  # tokens: shorter matches are everywhere and would underline the whole text
CONTEXT = 60  # characters of a document shown on either side


def spans_of(index: SpansIndex, run: LoRARun, record: Record, offsets: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Spans of at least four tokens for the report."""
    credited = {token for window in index.credit(record).windows for token in window.tokens}
    return [
        {
            "start": offsets[span.start][0],
            "end": offsets[span.end - 1][1],
            "length": span.length,
            "count": span.count,
            "p_value": span.p_value,
            "credited": not credited.isdisjoint(range(span.start, span.end)),
            "documents": [_document(run, d.record_id, d.position, span.length) for d in span.documents[:5]],
        }
        for span in index.trace(record)
        if span.length >= SHORTEST
    ]


def _document(run: LoRARun, name: str, position: int, length: int) -> dict[str, Any]:
    record = run.corpus[run.corpus.ids.index(name)]
    places = run.task.offsets(record.text)
    start, end = places[position][0], places[position + length - 1][1]
    return {
        "record_id": name,
        "contributor": record.contributor,
        "before": record.text[max(0, start - CONTEXT) : start],
        "match": record.text[start:end],
        "after": record.text[end : end + CONTEXT],
    }
