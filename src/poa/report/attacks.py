"""Section: what a copier, a noise farm and a boilerplate farm would earn under each pay rule."""

from __future__ import annotations

from poa.report import charts, numerals, standing
from poa.report.document import Node
from poa.report.frame import absent, behind, figure, section, standfirst, table
from poa.report.markup import Html, el
from poa.report.scales import covering


def attacks(document: Node) -> Html:
    """One before/after chart a policy, on a common scale."""
    rows = document.rows("attacks")
    if not rows:
        return section("attacks", "What cheats would earn", absent("attacks on the pay rules"))
    policies = list(dict.fromkeys(row.text("policy") for row in rows))
    scale = covering(
        v for row in rows for v in (row.number("share_before"), row.number("share_after")) if v is not None
    )
    panels = [
        el(
            "div",
            el("h4", standing.policy_title(policy)),
            charts.dumbbells(
                [c for row in rows if row.text("policy") == policy if (c := _change(row)) is not None],
                f"Attacker’s share before and after, {standing.policy_title(policy)}",
                scale,
            ),
        )
        for policy in policies
    ]
    numbers = table(
        "Attacker’s share of the contributors’ pool",
        ["Attack", "Pay rule", "Before", "After", "Gain in points"],
        [
            [
                _attack(row),
                row.text("policy"),
                numerals.percent(row.number("share_before")),
                numerals.percent(row.number("share_after")),
                _gain(row),
            ]
            for row in rows
        ],
        2,
    )
    return section(
        "attacks",
        "What cheats would earn",
        standfirst(
            "A contributor tries to be paid for nothing: a copier uploads what others wrote, a noise farm uploads "
            "random text, a boilerplate farm uploads stock phrases. Each attack is run against each pay rule."
        ),
        _worst(rows, policies),
        figure(
            "Share of the pool, before and after the attack",
            el("div", *panels, class_="multiples wide"),
            "Hollow dot: the attacker’s share as an honest contributor. Full dot: the share after the attack. A long "
            "line to the right means that cheating pays. A short line alone does not make a rule sound: one that pays "
            "almost nobody draws only short lines, so read the payouts beside it. Both rules are on the same scale.",
            behind("The shares as a table", numbers),
        ),
    )


def _worst(rows: list[Node], policies: list[str]) -> Html | None:
    said: list[str | Html] = []
    for policy in policies:
        mine = [row for row in rows if row.text("policy") == policy and row.number("share_after") is not None]
        if mine:
            worst = max(mine, key=lambda row: row.number("share_after") or 0.0)
            said += [
                f"Under {standing.policy_title(policy)} the best of these attacks takes ",
                el("b", numerals.percent(worst.number("share_after"))),
                f" of the pool ({_attack(worst)}, from {numerals.percent(worst.number('share_before'))}). ",
            ]
    return el("p", *said) if said else None


def _attack(row: Node) -> str:
    return row.text("attack").replace("_", " ")


def _gain(row: Node) -> str:
    before, after = row.number("share_before"), row.number("share_after")
    return numerals.NONE if before is None or after is None else numerals.signed(100 * (after - before), 3)


def _change(row: Node) -> charts.Change | None:
    """A row that can be drawn: one with both shares."""
    before, after = row.number("share_before"), row.number("share_after")
    if before is None or after is None:
        return None
    return charts.Change(_attack(row), before, after, f"{numerals.percent(before)} → {numerals.percent(after)}")
