"""The end of the page: honest limits, and how the page was made."""

from __future__ import annotations

from poa.report import charts, numerals
from poa.report.document import Node
from poa.report.frame import figure, said, section, standfirst
from poa.report.markup import Html, el, join

# What holds for every report of this kind, whatever the run.
_ALWAYS = (
    "A score is an estimate. The retraining check covers a few contributors and answers, not every number here.",
    "Shading per word says where the measurement moved, not which words were copied; underlines say the reverse.",
    "The ledger shows that numbers were recorded and not changed; it cannot show who had the right to the data.",
)


def limits(document: Node) -> Html:
    """What the page does not show: the run's own limits first."""
    own = document.texts("limits")
    return section(
        "limits",
        "What this page does not show",
        standfirst("Read the numbers with these in mind."),
        el("ul", *(el("li", text) for text in (*own, *_ALWAYS)), class_="plainlist"),
    )


def colophon(document: Node) -> Html:
    """Command, version and time by stage."""
    seconds = document.numbers("seconds")
    facts = [
        (name, document.text(key)) for name, key in (("Made", "created"), ("Command", "command"), ("poa", "version"))
    ]
    known = el(
        "dl", *(join([el("dt", name), el("dd", el("code", value))]) for name, value in facts if value), class_="digests"
    )
    time = None
    if seconds:
        total = sum(seconds.values())
        rows = [charts.Bar(name.replace("_", " "), value, numerals.seconds(value)) for name, value in seconds.items()]
        time = figure(
            "Time by stage",
            charts.bars(rows, "Seconds by stage", neutral=True),
            f"{numerals.seconds(total)} in all, on the machine that made this page.",
        )
    still = said("This page is one file. It loads nothing from anywhere and tells nobody that you read it.")
    return section(
        "colophon", "How this page was made", known if any(value for _, value in facts) else None, time, still
    )
