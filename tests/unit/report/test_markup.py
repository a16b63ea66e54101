"""Everything that is not markup is escaped, and pages always encode."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from poa.report.markup import breakable, el, escape, join, trusted

exact = settings(deadline=None, derandomize=True)


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@exact
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_and_attributes_survive_a_parser(text: str) -> None:
    seen = Seen()
    seen.feed(el("p", text, title=text))
    seen.close()
    assert seen.tags == [("p", {"title": text})]
    assert seen.words == text


@exact
@given(st.text(alphabet=st.characters()))
def test_escaping_keeps_length_and_encodes(text: str) -> None:
    seen = Seen()
    seen.feed(escape(text).replace("\r", "?"))
    seen.close()
    assert len(seen.words) == len(text)
    escape(text).encode()


def test_markup_is_kept_and_strings_are_not() -> None:
    assert el("p", el("b", "1 < 2"), "<i>") == "<p><b>1 &lt; 2</b>&lt;i&gt;</p>"
    assert join(["<", trusted("<br>")], " & ") == "&lt; &amp; <br>"


def test_attribute_names_and_absent_values() -> None:
    made = el("input", class_="a", aria_label='"x"', checked=True, disabled=False, title=None, data_h0=3)
    assert made == '<input class="a" aria-label="&quot;x&quot;" checked data-h0="3">'


def test_concatenation_falls_back_to_escaping() -> None:
    assert el("p", el("b") + "<x>") == "<p>&lt;b&gt;&lt;/b&gt;&lt;x&gt;</p>"


def test_names_break_after_their_separators_only() -> None:
    assert breakable("a.b_c<d") == "a.<wbr>b_<wbr>c&lt;d"
    assert breakable("") == ""
