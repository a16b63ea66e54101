"""The top of the page: three sentences and four numbers that say what happened."""

from __future__ import annotations

from poa.report import numerals, standing
from poa.report.document import Node
from poa.report.markup import Html, el, join
from poa.report.payout import paying, settlements


def lede(document: Node) -> Html:
    """Who shaped the answers, how sure that is, what was paid and whether it is verified."""
    sentences = [_who(document), _sure(document), _paid(document)]
    return join(
        [el("p", *(join([el("span", sentence), " "]) for sentence in sentences), class_="lede"), _figures(document)]
    )


def _who(document: Node) -> Html:
    method = standing.lead(document)
    sums = standing.shares(document).get(method or "", {})
    helped = sorted(((value, who) for who, value in sums.items() if value > 0), reverse=True)
    if not helped:
        return join(["Who shaped the answers was not computed in this run."])
    total = sum(value for value, _ in helped)
    answers = len(document.rows("answers"))
    over = f" over {numerals.counted(answers, 'answer')}" if answers else ""
    why = ", the method closest to retraining," if method in standing.fidelity(document) else ""
    second = f", ahead of {helped[1][1]} with {numerals.percent(helped[1][0] / total)}" if len(helped) > 1 else ""
    return join(
        [
            el("b", helped[0][1]),
            " shaped what the model said the most: ",
            el("b", numerals.percent(helped[0][0] / total)),
            f" of all help that {method}{why} saw{over} came from there{second}",
            _crowd(document),
            ".",
        ]
    )


def _crowd(document: Node) -> str:
    found = document.part("intake")
    people = [] if found is None else found.rows("contributors")
    records = sum(person.integer("records") or 0 for person in people)
    return (
        f", among {numerals.counted(len(people), 'contributor')} and {numerals.counted(records, 'record')}"
        if people
        else ""
    )


def _sure(document: Node) -> Html:
    method, found = standing.lead(document), document.part("truth")
    known = standing.fidelity(document).get(method or "")
    if known is None:
        return join(["How sure that is was not measured: no retraining was done to check it."])
    mean, low, high = known
    count = 0 if found is None else len(found.numbers("effect"))
    tried = (
        f"after truly retraining without each of {numerals.counted(count, 'contributor')}"
        if count
        else "against retraining"
    )
    around = (
        f" (from {numerals.correlation(low)} to {numerals.correlation(high)})"
        if low is not None and high is not None
        else ""
    )
    ceiling = None if found is None else found.number("ceiling")
    best = f", where retraining agrees with itself at {numerals.correlation(ceiling)}" if ceiling is not None else ""
    return join(
        [
            f"Checked {tried}, its ranking has a correlation of ",
            el("b", numerals.correlation(mean)),
            f"{around} with the truth{best}.",
        ]
    )


def _paid(document: Node) -> Html:
    fee, currency, found = settlements(document)
    one, ledger = paying(found), document.part("ledger")
    checked = None if ledger is None else ledger.flag("verified")
    record = {
        True: "and the ledger that records it was verified",
        False: "but the ledger that records it did not verify",
        None: "and no ledger was verified",
    }[checked]
    if one is None:
        return join([f"Nothing was paid out, {record}."])
    verb = (
        "were owed to contributors"
        if one.payable is not False
        else "would go to contributors under a rule that is never paid"
    )
    return join(
        [
            f"Of a fee of {numerals.whole(fee)} {currency}, ",
            el("b", numerals.whole(one.paid)),
            f" {verb}, {numerals.whole(one.withheld)} were held back because nobody was shown to have earned them, ",
            el("b", record),
            ".",
        ]
    )


def _figures(document: Node) -> Html:
    method = standing.lead(document)
    known = standing.fidelity(document).get(method or "")
    fee, currency, found = settlements(document)
    one, ledger, intake = paying(found), document.part("ledger"), document.part("intake")
    people = [] if intake is None else intake.rows("contributors")
    checked = None if ledger is None else ledger.flag("verified")
    facts = [
        (numerals.whole(len(people)) if people else numerals.NONE, "contributors"),
        (
            numerals.correlation(known[0]) if known else numerals.NONE,
            f"rank correlation of {method} with retraining" if known else "not checked by retraining",
        ),
        (
            numerals.whole(one.paid) if one else numerals.NONE,
            f"of {numerals.whole(fee)} {currency} to contributors" if one else "no payout",
        ),
        (
            {True: "✓ yes", False: "✗ no", None: numerals.NONE}[checked],
            "ledger not checked" if checked is None else "ledger verified",
        ),
    ]
    return el("dl", *(el("div", el("dt", label), el("dd", number)) for number, label in facts), class_="headline")
