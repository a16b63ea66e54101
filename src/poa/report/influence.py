"""Section: contributor shares by method side by side, and how far the methods agree."""

from __future__ import annotations

from collections.abc import Mapping

from poa.errors import PoaError
from poa.report import charts, numerals, standing
from poa.report.document import Node
from poa.report.frame import absent, behind, figure, section, standfirst, table
from poa.report.markup import Html, el
from poa.report.scales import covering

MOST_BARS = 12


def influence(document: Node) -> Html:
    """Shares over the whole batch and the agreement between methods."""
    return section(
        "influence",
        "Who shaped the answers",
        standfirst(
            "The same answers, explained by every method. For each contributor the help and the harm of all records "
            "are added up over all answers before anything is cut off, so that noise cancels instead of paying."
        ),
        _shares(document),
        _agreement(document),
    )


def _shares(document: Node) -> Html:
    shares = {name: sums for name, sums in standing.shares(document).items() if sums}
    if not shares:
        return absent("contributor shares")
    lead = standing.lead(document)
    first = lead if lead in shares else next(iter(shares))
    order = sorted(
        {who for sums in shares.values() for who in sums}, key=lambda who: (-shares[first].get(who, 0.0), who)
    )
    fractions = {name: standing.relative(sums) for name, sums in shares.items()}
    kept = _largest(fractions, order)
    scale = covering(value for part in fractions.values() for value in part.values())
    panels = [
        el(
            "div",
            el("h4", name, el("small", _family(document, name))),
            charts.bars(
                [
                    charts.Bar(
                        who, part.get(who, 0.0), numerals.signed_percent(part[who]) if who in part else numerals.NONE
                    )
                    for who in kept
                ],
                f"Share of all influence by contributor, {name}",
                scale,
            ),
        )
        for name, part in fractions.items()
    ]
    numbers = table(
        "Signed sums by contributor and method",
        ["Contributor", *(f"{name} ({standing.unit(document, name) or 'own unit'})" for name in shares)],
        [[who, *(numerals.signed(sums.get(who), 4) for sums in shares.values())] for who in order],
    )
    left = f" Only the {len(kept)} largest of {len(order)} are drawn." if len(kept) < len(order) else ""
    return figure(
        "Contributor shares, method by method",
        el("div", *panels, class_="multiples"),
        f"Signed sum as a share of all influence that the method saw, helping (right) and hurting (left), in the order "
        f"that {first} gives.{left}",
        behind("The signed sums as a table", numbers),
    )


def _largest(fractions: Mapping[str, Mapping[str, float]], order: list[str]) -> list[str]:
    size = {who: max(abs(part.get(who, 0.0)) for part in fractions.values()) for who in order}
    chosen = set(sorted(order, key=lambda who: -size[who])[:MOST_BARS])
    return [who for who in order if who in chosen]


def _family(document: Node, name: str) -> str:
    card = document.parts("methods").get(name)
    return "" if card is None else f" {card.text('family')}"


def _agreement(document: Node) -> Html:
    found = document.part("agreement")
    if found is None or not found.texts("methods"):
        return absent("the agreement between methods")
    names = found.texts("methods")
    values = _square(found, len(names))
    title = "Rank correlation between methods"
    return figure(
        "Do the methods agree?",
        charts.matrix(names, values, title),
        "Rank correlation of the scores: 1 = the same order, 0 = unrelated, below 0 (orange, with a minus) = reversed. "
        "Agreement is no proof, since methods of one family share their errors; the next section is the proof.",
    )


def _square(found: Node, size: int) -> list[list[float | None]]:
    rows = [
        Node({"row": row}, f"agreement.spearman[{i}]").items("row") for i, row in enumerate(found.items("spearman"))
    ]
    if len(rows) != size or any(len(row) != size for row in rows):
        raise PoaError(f"report document: agreement.spearman must be {size} x {size}, one row and column a method")
    return [
        [Node({"value": value}, f"agreement.spearman[{i}][{j}]").number("value") for j, value in enumerate(row)]
        for i, row in enumerate(rows)
    ]
