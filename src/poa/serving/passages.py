"""Passages: where the answer's words stand in the run's records, letter for letter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from poa.digests import folder_digest, plain_digest
from poa.errors import Mismatch
from poa.serving.document import SpanRecord, VerbatimSpan
from poa.spans import Document, SpanIndex, trace

if TYPE_CHECKING:
    from poa.factory.causal import CausalLM
    from poa.factory.run import LoRARun
    from poa.records import Record

_CONTEXT = 60


@dataclass(frozen=True, eq=False)
class Passages:
    """The span index of a run's texts, with the records it was built from."""

    index: SpanIndex
    task: CausalLM
    records: dict[str, Record]

    @staticmethod
    def of(run: LoRARun) -> Passages:
        """Build the index of `run`, or open it where it was kept before; raises `Corrupt` for changed files."""
        tokenizer = tokenizer_digest(run)
        folder = run.cache / "passages" / plain_digest([1, run.digest, tokenizer])[:24]
        if not (folder / "manifest.json").is_file():
            SpanIndex.build(
                [Document(r.id, r.contributor, r.registered, run.task.encode(r.text), r.digest) for r in run.corpus],
                len(run.task.tokenizer),
                tokenizer,
                run.digest,
            ).save(folder)
        index = SpanIndex.load(folder)
        if index.run_digest != run.digest:
            raise Mismatch(f"span index {folder} belongs to run {index.run_digest}, not {run.digest}")
        return Passages(index, run.task, {record.id: record for record in run.corpus})

    def spans(self, text: str, least: int, documents: int) -> tuple[VerbatimSpan, ...]:
        """Maximal spans of at least `least` tokens with a letter or digit, in order; up to `documents` records each.

        Tokens may be parts of one character; a span's text is its whole characters.
        """
        ids, offsets = self.task.encode(text), self.task.offsets(text)
        out: list[VerbatimSpan] = []
        for span in trace(self.index, ids, min_length=least, documents=documents):
            start, end = whole_characters(offsets, span.start, span.end)
            if not any(c.isalnum() for c in text[start:end]):
                continue
            held = tuple(
                self._quoted(document.record_id, document.position, span.length) for document in span.documents
            )
            out.append(VerbatimSpan(start, end, span.start, span.end, span.length, span.count, text[start:end], held))
        return tuple(out)

    def _quoted(self, record_id: str, position: int, length: int) -> SpanRecord:
        record = self.records[record_id]
        start, end = whole_characters(self.task.offsets(record.text), position, position + length)
        first = max(0, start - _CONTEXT)
        snippet = record.text[first : end + _CONTEXT]
        return SpanRecord(record.id, record.contributor, record.datanet, record.licence, snippet, start - first)

    @cached_property
    def digest(self) -> str:
        return self.index.digest


def whole_characters(offsets: list[tuple[int, int]], left: int, right: int) -> tuple[int, int]:
    """Code points of the characters that lie wholly inside tokens [left, right)."""
    start, end = offsets[left][0], offsets[right - 1][1]
    if left > 0 and offsets[left - 1][1] > start:
        start += 1
    if right < len(offsets) and offsets[right][0] < end:
        end -= 1
    return start, max(start, end)


def tokenizer_digest(run: LoRARun) -> str:
    """SHA-256 over the tokenizer files of the run's base."""
    names = tuple(path.name for path in run.parent.folder.glob("tokenizer*"))
    return folder_digest(run.parent.folder, names)
