"""Trace: the immutable document of one answer, as integers, strings and lists, so that its JSON is canonical."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poa.digests import sha256

SCHEMA = "poa.trace/1"


@dataclass(frozen=True)
class Token:
    """Code points [start, end) of the output's text; logprob: decimal string, nats."""

    id: int
    start: int
    end: int
    logprob: str


@dataclass(frozen=True)
class Input:
    text: str
    n_tokens: int


@dataclass(frozen=True)
class Output:
    """finish_reason: "stop", "length", or "given" for an answer that the user gave."""

    text: str
    finish_reason: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class SpanRecord:
    """A record that holds a span: text_snippet[needle_offset_snippet:][:len(span.text)] is the span's text."""

    record_id: str
    contributor: str
    datanet: str
    licence: str
    text_snippet: str
    needle_offset_snippet: int


@dataclass(frozen=True)
class VerbatimSpan:
    """Output text [start, end) in code points, tokens [left, right); it stands `count` times in the corpus."""

    start: int
    end: int
    left: int
    right: int
    length: int
    count: int
    text: str
    documents: tuple[SpanRecord, ...]


@dataclass(frozen=True)
class RankedRecord:
    """score: signed decimal string in the method's unit; positive = the record raised the measurement (it helped)."""

    rank: int
    record_id: str
    contributor: str
    datanet: str
    licence: str
    score: str
    snippet: str


@dataclass(frozen=True)
class Share:
    """sum: signed sum over the contributor's records; parts: |sum| in billionths of all contributors' |sum|."""

    contributor: str
    sum: str
    parts: int


@dataclass(frozen=True)
class Evidence:
    """What one method says. id: its name; method: its identity with settings; index: digest of what it read."""

    id: str
    method: str
    channel: str
    unit: str
    index: str
    records: tuple[RankedRecord, ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Digests:
    """What answered and what was searched; index covers all indexes, config the recipe."""

    adapter: str
    base: str
    tokenizer: str
    run: str
    snapshot: str
    index: str
    config: str


@dataclass(frozen=True)
class Choice:
    """The sampling that was asked for; temperature and top_p as decimal strings."""

    max_new_tokens: int
    temperature: str
    top_p: str
    seed: int


@dataclass(frozen=True)
class Salts:
    """Hex salts that open the receipt's commitments to input and output; empty where there is no receipt."""

    input: str
    output: str


@dataclass(frozen=True)
class Trace:
    """v: schema. receipt_id: empty where nothing was recorded. versions: (library, version) pairs."""

    v: str
    receipt_id: str
    input: Input
    output: Output
    sampling: Choice
    spans: tuple[VerbatimSpan, ...]
    methods: tuple[Evidence, ...]
    digests: Digests
    salts: Salts
    versions: tuple[tuple[str, str], ...]

    @property
    def json(self) -> str:
        """Sorted keys, no spaces; no floats inside, so equal traces have equal bytes in every language."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the UTF-8 bytes of `json`."""
        return sha256(self.json.encode())


def decimal(value: float | np.floating[Any]) -> str:
    """The shortest decimal string that reads back as the same float, without an exponent; "-0" is "0"."""
    text = np.format_float_positional(value, unique=True, trim="-")
    return "0" if text == "-0" else text
