"""Passage: an answer's text cut at token and span borders, each piece with its shading and its underlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from poa.errors import PoaError
from poa.report import numerals
from poa.report.document import Node
from poa.report.markup import Html, el, escape, join
from poa.report.scales import shade


@dataclass(frozen=True)
class Source:
    """A training record in which a span stands word for word."""

    record: str
    contributor: str
    before: str
    match: str
    after: str


@dataclass(frozen=True)
class Span:
    """A verbatim stretch of the answer: [start, end) in code points."""

    start: int
    end: int
    length: int | None
    count: int | None
    chance: float | None
    credited: bool
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Passage:
    """A text, its tokens ([start, end) each) and per method one value a token."""

    text: str
    tokens: tuple[tuple[int, int], ...]
    heat: Mapping[str, Sequence[float]]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Cell:
    """A stretch of text that belongs to the same tokens; overlapping tokens (parts of one character) share one."""

    start: int
    end: int
    tokens: tuple[int, ...]


def read(answer: Node) -> Passage:
    """The passage of one answer; raises `PoaError` where offsets, heat or quotations do not fit the text."""
    text = answer.text("text")
    tokens = tuple(_bounds(pair, text, f"{answer.path}.tokens[{i}]") for i, pair in enumerate(answer.items("tokens")))
    part = answer.part("heat")
    heat = {} if part is None else {name: part.vector(name) for name, _ in part.places() if part.items(name)}
    for name, values in heat.items():
        if len(values) != len(tokens):
            raise PoaError(
                f"report document: {answer.path}.heat.{name} has {len(values)} values for {len(tokens)} tokens; "
                "give one value a token"
            )
    return Passage(text, tokens, heat, tuple(_span(node, text) for node in answer.rows("spans")))


def cells(passage: Passage) -> list[Cell]:
    """Tokens as disjoint stretches in text order; empty tokens (an end mark) have none."""
    out: list[Cell] = []
    order = sorted((start, end, i) for i, (start, end) in enumerate(passage.tokens) if end > start)
    for start, end, token in order:
        if out and start < out[-1].end:
            last = out[-1]
            out[-1] = Cell(last.start, max(last.end, end), (*last.tokens, token))
        else:
            out.append(Cell(start, end, (token,)))
    return out


def segments(passage: Passage) -> list[tuple[int, int, Cell | None, tuple[int, ...]]]:
    """(start, end, cell, spans): the whole text in pieces that no token or span border cuts."""
    stretches = cells(passage)
    borders = {0, len(passage.text)}
    borders.update(border for cell in stretches for border in (cell.start, cell.end))
    borders.update(border for span in passage.spans for border in (span.start, span.end))
    ordered, out, at = sorted(borders), list[tuple[int, int, Cell | None, tuple[int, ...]]](), 0
    for start, end in pairwise(ordered):
        while at < len(stretches) and stretches[at].end <= start:
            at += 1
        cell = stretches[at] if at < len(stretches) and stretches[at].start <= start else None
        inside = tuple(i for i, span in enumerate(passage.spans) if span.start <= start and end <= span.end)
        out.append((start, end, cell, inside))
    return out


def peaks(passage: Passage) -> dict[str, float]:
    """Magnitude at full colour by method: the strongest cell of this text."""
    stretches = cells(passage)
    return {
        name: max((abs(_sum(values, cell)) for cell in stretches), default=0.0) for name, values in passage.heat.items()
    }


def drawn(passage: Passage, methods: Sequence[str], units: Mapping[str, str], anchor: str) -> Html:
    """The text as HTML. `data-hK` carries the shade under method number K; the style sheet shows the chosen one."""
    tops = peaks(passage)
    pieces: list[str] = []
    for start, end, cell, inside in segments(passage):
        words = passage.text[start:end]
        if cell is None and not inside:
            pieces.append(words)
        else:
            pieces.append(_piece(words, passage, cell, start, inside, methods, units, tops))
        pieces.extend(_reference(anchor, i) for i, span in enumerate(passage.spans) if span.end == end and i in inside)
    return join(pieces)


def _piece(
    words: str,
    passage: Passage,
    cell: Cell | None,
    start: int,
    inside: tuple[int, ...],
    methods: Sequence[str],
    units: Mapping[str, str],
    tops: Mapping[str, float],
) -> Html:
    classes = [] if cell is None else ["t"]
    if inside:
        classes.append("credited" if any(passage.spans[i].credited for i in inside) else "seen")
        if any(passage.spans[i].start == start for i in inside):
            classes.append("begins")  # so that two matches side by side do not look like one
    named = f' class="{" ".join(classes)}"'
    if cell is None or not passage.heat:
        return Html(f"<span{named}>{escape(words)}</span>")
    values = {name: _sum(passage.heat[name], cell) for name in methods if name in passage.heat}
    steps = "".join(
        f' data-h{methods.index(name)}="{step}"'
        for name, value in values.items()
        if (step := shade(value, tops[name])) != "z"
    )
    told = " · ".join(
        f"{name} {numerals.signed(value, 2)} {units.get(name, '')}".rstrip() for name, value in values.items()
    )
    title = escape(f"“{passage.text[cell.start : cell.end].strip()}”  {told}")
    return Html(f'<span{named}{steps} title="{title}">{escape(words)}</span>')


def _reference(anchor: str, span: int) -> Html:
    link = el("a", str(span + 1), href=f"#{anchor}-span{span + 1}", aria_label=f"source {span + 1}")
    return el("sup", link, id=f"{anchor}-ref{span + 1}")


def _sum(values: Sequence[float], cell: Cell) -> float:
    return sum(values[token] for token in cell.tokens)


def _bounds(pair: object, text: str, path: str) -> tuple[int, int]:
    match pair:
        case [int(start), int(end)] if 0 <= start <= end <= len(text):
            return start, end
        case _:
            raise PoaError(
                f"report document: {path} must be [start, end] with 0 <= start <= end <= {len(text)}, not {pair!r}"
            )


def _span(node: Node, text: str) -> Span:
    start, end = _bounds([node.integer("start"), node.integer("end")], text, node.path)
    if start == end:
        raise PoaError(f"report document: {node.path} is empty; a span has at least one character")
    sources = tuple(
        Source(
            found.text("record_id"),
            found.text("contributor"),
            found.text("before"),
            _quoted(found, text[start:end]),
            found.text("after"),
        )
        for found in node.rows("documents")
    )
    credited = bool(node.flag("credited"))
    return Span(start, end, node.integer("length"), node.integer("count"), node.number("p_value"), credited, sources)


def _quoted(found: Node, shown: str) -> str:
    """What is shown as verbatim must be verbatim, white space apart."""
    match = found.text("match")
    if " ".join(match.split()) != " ".join(shown.split()):
        raise PoaError(
            f"report document: {found.path}.match is {match[:60]!r} but the answer says {shown[:60]!r}; "
            "a span shown as verbatim must be verbatim"
        )
    return match
