"""The parts every section is set in: headings, captions, tables, what was not computed."""

from __future__ import annotations

from collections.abc import Sequence

from poa.report.markup import Html, el


def section(name: str, title: str, *children: str | None) -> Html:
    """A section with its own anchor and second-level heading."""
    heading = el("h2", title, id=f"{name}-title")
    return el("section", heading, *children, id=name, aria_labelledby=f"{name}-title")


def said(*words: str) -> Html:
    """A paragraph of running text, for a reader who has never seen the field."""
    return el("p", *words)


def standfirst(*words: str) -> Html:
    """The paragraph under a heading that says what the section shows."""
    return el("p", *words, class_="standfirst")


def absent(what: str) -> Html:
    """The plain statement that something was not computed."""
    return el("p", f"Not computed in this run: {what}.", class_="absent")


def figure(title: str, chart: Html, caption: str, behind: Html | None = None) -> Html:
    """A chart with a title above, a caption below and the numbers behind it."""
    return el("figure", el("h3", title), chart, el("figcaption", caption), behind)


def behind(label: str, table: Html) -> Html:
    """A table folded away behind a chart."""
    return el("details", el("summary", label), table, class_="numbers")


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> Html:
    """A table that scrolls sideways on its own; the first `words` columns are text, the others numbers."""
    top = el("tr", *(el("th", name, scope="col", class_=None if i < words else "n") for i, name in enumerate(head)))
    body = [
        el("tr", el("th", row[0], scope="row"), *(_cell(cell, i < words) for i, cell in enumerate(row[1:], 1)))
        for row in rows
    ]
    inner = el("table", el("caption", el("span", title, class_="unseen")), el("thead", top), el("tbody", *body))
    return el("div", inner, class_="scroll", tabindex=0, role="region", aria_label=title)


def _cell(text: str, words: bool) -> Html:
    return el("td", text, class_=None if words else "n")


def verdict(good: bool, text: str) -> Html:
    """A pass or fail that reads the same without colour."""
    return el("span", "✓ " if good else "✗ ", text, class_=f"verdict {'good' if good else 'bad'}")
