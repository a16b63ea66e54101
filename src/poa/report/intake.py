"""Section: what went in, from whom, under which licence, and what was set aside as a copy."""

from __future__ import annotations

from poa.report import charts, numerals
from poa.report.document import Node
from poa.report.frame import absent, behind, figure, said, section, standfirst, table
from poa.report.markup import Html, el, join

MOST_BARS = 16


def intake(document: Node) -> Html:
    """Datanets, contributors, duplicates and the snapshot that training consumed."""
    found = document.part("intake")
    if found is None:
        return section("intake", "What went in", absent("the intake of records"))
    intro = standfirst(
        "Training text is held in datanets: named collections with an owner and a licence. Every record is registered "
        "by a contributor. Near-copies are put into one cluster whoever uploaded them, so that copying adds nothing."
    )
    return section(
        "intake", "What went in", intro, _datanets(found), _contributors(found), _examples(found), _snapshot(found)
    )


def _datanets(found: Node) -> Html:
    nets = found.rows("datanets")
    if not nets:
        return absent("the list of datanets")
    rows = [
        [
            net.text("name"),
            ", ".join(net.texts("licences")) or numerals.NONE,
            *(
                numerals.whole(net.size(key))
                for key in ("records", "contributors", "tokens", "exact_duplicates", "near_duplicates", "clusters")
            ),
        ]
        for net in nets
    ]
    head = ["Datanet", "Licences", "Records", "Contributors", "Tokens", "Exact copies", "Near copies", "Clusters"]
    return join([el("h3", "Datanets"), table("Datanets", head, rows, 2)])


def _contributors(found: Node) -> Html:
    people = sorted(
        found.rows("contributors"), key=lambda node: -(node.integer("tokens") or node.integer("records") or 0)
    )
    if not people:
        return absent("the list of contributors")
    by_tokens = any(person.integer("tokens") for person in people)
    key, noun = ("tokens", "tokens") if by_tokens else ("records", "records")
    rows = [
        charts.Bar(p.text("id"), float(p.integer(key) or 0), numerals.whole(p.integer(key)), p.text("datanet"))
        for p in people[:MOST_BARS]
    ]
    others = people[MOST_BARS:]
    if others:
        rest = sum(p.integer(key) or 0 for p in others)
        rows.append(charts.Bar(f"{len(others)} others, together", float(rest), numerals.whole(rest)))
    numbers = table(
        "Contributors",
        ["Contributor", "Datanet", "Records", "Tokens"],
        [
            [p.text("id"), p.text("datanet"), numerals.whole(p.integer("records")), numerals.whole(p.integer("tokens"))]
            for p in people
        ],
        2,
    )
    title = f"Contributors by {noun}"
    return figure(
        title,
        charts.bars(rows, title, neutral=True),
        f"What each contributor registered, in {noun}. Volume is not influence: compare with the shares below.",
        behind(f"All {numerals.counted(len(people), 'contributor')} as a table", numbers),
    )


def _examples(found: Node) -> Html | None:
    rows = found.rows("examples")
    if not rows:
        return None
    items = [
        el(
            "li",
            el("p", el("b", "Kept"), " ", row.text("kept"), dir="auto"),
            el("p", el("b", "Set aside"), " ", row.text("dropped"), dir="auto"),
            el("p", "Why: ", row.text("reason"), class_="facts"),
        )
        for row in rows
    ]
    return el(
        "details",
        el("summary", f"{numerals.counted(len(rows), 'example')} of copies set aside"),
        el("ul", *items, class_="examples"),
    )


def _snapshot(found: Node) -> Html:
    snapshot = found.part("snapshot")
    if snapshot is None:
        return absent("a snapshot of the manifest")
    return join(
        [
            said(
                f"Training consumed a frozen list of {numerals.counted(snapshot.integer('records'), 'record')}; ",
                f"{numerals.counted(snapshot.integer('heldout'), 'record')} were held out for testing. ",
                "The list is named by these digests, so anybody who holds the records can check that it is this list.",
            ),
            el(
                "dl",
                *(
                    join([el("dt", name), el("dd", el("code", snapshot.text(key, numerals.NONE)))])
                    for name, key in (("Merkle root", "root"), ("Digest", "digest"))
                ),
                class_="digests",
            ),
        ]
    )
