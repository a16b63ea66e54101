"""The drawn text against a brute force that looks at one character at a time."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.report import passage
from poa.report.document import Node
from poa.report.passage import Passage, Span
from poa.report.scales import shade

exact = settings(deadline=None, derandomize=True)


class Letters(HTMLParser):
    """(character, attributes of the span around it) for the text, references left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.letters: list[tuple[str, dict[str, str | None]]] = []
        self.around: dict[str, str | None] = {}
        self.raised = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.raised |= tag == "sup"
        self.around = dict(attrs) if tag == "span" else self.around

    def handle_endtag(self, tag: str) -> None:
        self.raised &= tag != "sup"
        self.around = {} if tag == "span" else self.around

    def handle_data(self, data: str) -> None:
        if not self.raised:
            self.letters += [(letter, self.around) for letter in data]


def _letters(made: str) -> list[tuple[str, dict[str, str | None]]]:
    seen = Letters()
    seen.feed(made)
    seen.close()
    return seen.letters


@st.composite
def passages(draw: st.DrawFn) -> Passage:
    text = draw(st.text(alphabet="ab <&é漢\n", min_size=1, max_size=30))
    bounds = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(lambda pair: tuple(sorted(pair)))
    tokens = draw(st.lists(bounds, max_size=8))
    heat = {"M": draw(st.lists(st.floats(-1, 1), min_size=len(tokens), max_size=len(tokens)))} if tokens else {}
    spans = [
        Span(start, end, None, None, None, draw(st.booleans()), ())
        for start, end in draw(st.lists(bounds, max_size=4))
        if start < end
    ]
    return Passage(text, tuple(tokens), heat, tuple(spans))


def _group(text: Passage, at: int) -> set[int]:
    """Tokens that share a cell with character `at`: those that cover it and, in turn, overlap one of those."""
    full = [(start, end) for start, end in text.tokens]
    group = {i for i, (start, end) in enumerate(full) if start <= at < end}
    while True:
        more = {
            i
            for i, (start, end) in enumerate(full)
            for j in group
            if start < end and start < full[j][1] and full[j][0] < end
        }
        if more <= group:
            return group
        group |= more


@exact
@given(passages())
def test_every_letter_has_its_shade_and_underline(text: Passage) -> None:
    letters = _letters(passage.drawn(text, ["M"], {}, "a1"))
    assert "".join(letter for letter, _ in letters) == text.text
    top = passage.peaks(text).get("M", 0.0)
    for at, (_, around) in enumerate(letters):
        covering = [span for span in text.spans if span.start <= at < span.end]
        classes = (around.get("class") or "").split()
        assert ("credited" in classes) == any(span.credited for span in covering)
        assert ("seen" in classes) == (bool(covering) and not any(span.credited for span in covering))
        group = _group(text, at)
        assert ("t" in classes) == bool(group)
        step = (
            shade(sum(text.heat["M"][i] for i in sorted(group, key=lambda i: (*text.tokens[i], i))), top)
            if group
            else "z"
        )
        assert around.get("data-h0", "z") == step


@exact
@given(passages())
def test_segments_tile_the_text(text: Passage) -> None:
    pieces = passage.segments(text)
    assert [start for start, *_ in pieces] == [0, *[end for _, end, *_ in pieces][:-1]]
    assert pieces[-1][1] == len(text.text)


def _answer(**changes: Any) -> Node:
    return Node({"text": "one two three", "tokens": [[0, 3], [3, 7], [7, 13]], **changes}, "answers[0]")


def _spanned(match: str, start: int = 4, end: int = 13) -> Node:
    return _answer(spans=[{"start": start, "end": end, "documents": [{"record_id": "r", "match": match}]}])


def test_verbatim_up_to_white_space() -> None:
    assert passage.read(_spanned("two\n   three")).spans[0].sources[0].match == "two\n   three"


@pytest.mark.parametrize("match", ["two Three", "two thre", "twothree", "", "xtwo three"])
def test_what_is_not_verbatim_is_refused(match: str) -> None:
    with pytest.raises(PoaError, match=r"answers\[0\]\.spans\[0\]\.documents\[0\]\.match .* must be verbatim"):
        passage.read(_spanned(match))


@pytest.mark.parametrize(("start", "end"), [(4, 14), (-1, 3), (5, 4), (4, 4)])
def test_spans_outside_the_text_are_refused(start: int, end: int) -> None:
    with pytest.raises(PoaError, match=r"answers\[0\]\.spans\[0\]"):
        passage.read(_spanned("two three", start, end))


@pytest.mark.parametrize("tokens", [[[0, 14]], [[3, 1]], [[0]], ["ab"], [[0.0, 1.0]]])
def test_tokens_outside_the_text_are_refused(tokens: list[Any]) -> None:
    with pytest.raises(PoaError, match=r"answers\[0\]\.tokens\[0\] must be \[start, end\]"):
        passage.read(_answer(tokens=tokens))


def test_heat_needs_one_value_a_token() -> None:
    with pytest.raises(PoaError, match=r"answers\[0\]\.heat\.M has 2 values for 3 tokens"):
        passage.read(_answer(heat={"M": [0.1, 0.2]}))


def test_the_title_says_the_sign() -> None:
    made = passage.drawn(passage.read(_answer(heat={"M": [0.5, -0.25, 0.0]})), ["M"], {"M": "nats"}, "a1")
    titles = [around["title"] for letter, around in _letters(made) if letter in "owh"][:2]
    assert titles == ["“one”  M +0.50 nats", "“two”  M −0.25 nats"]
