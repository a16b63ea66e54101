"""Section: who is paid what, what is held back, and that it adds up to the fee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poa.errors import PoaError
from poa.report import charts, numerals, standing
from poa.report.document import Node
from poa.report.frame import absent, figure, said, section, standfirst, verdict
from poa.report.markup import Html, el

_RESIDUALS = {
    "base model": "what the model already knew before training on these records",
    "unattributed": "influence that no contributor can be shown to have had",
    "below threshold": "influence too weak to be told from noise",
}


@dataclass(frozen=True)
class Settlement:
    """One pay rule's division of a fee, in integer money."""

    policy: str
    payable: bool | None
    parts: Mapping[str, int]
    payees: Mapping[str, int]
    residuals: Mapping[str, int]
    carry: int

    @property
    def paid(self) -> int:
        return sum(self.payees.values())

    @property
    def withheld(self) -> int:
        return sum(self.residuals.values())

    @property
    def total(self) -> int:
        return sum(self.parts.values()) + self.paid + self.withheld + self.carry


def settlements(document: Node) -> tuple[int, str, list[Settlement]]:
    """(fee, currency, settlements); raises `PoaError` where one does not add up to the fee."""
    found = document.part("payout")
    fee = None if found is None else found.amount("fee")
    if found is None or fee is None:
        return 0, "", []
    out = [
        Settlement(
            name,
            part.flag("payable"),
            part.amounts("parts"),
            part.amounts("payees"),
            part.amounts("residuals"),
            part.amount("carry") or 0,
        )
        for name, part in found.parts("policies").items()
    ]
    for settlement in out:
        if settlement.total != fee:
            raise PoaError(
                f"report document: payout.policies.{settlement.policy} adds up to {settlement.total}, "
                f"not to the fee of {fee}; parts + payees + residuals + carry must equal the fee exactly"
            )
    return fee, found.text("currency", "micro-credits"), out


def paying(found: Sequence[Settlement]) -> Settlement | None:
    """The rule that pays: the first payable one, else the first."""
    return next((one for one in found if one.payable), next(iter(found), None))


def payout(document: Node) -> Html:
    """The division of the fee under each rule, as a bar and as a table that adds up."""
    fee, currency, found = settlements(document)
    if not found:
        return section("payout", "Who is paid", absent("a payout"), _placebo(document))
    intro = standfirst(
        f"A fee of {numerals.whole(fee)} {currency} for these answers, divided in whole numbers. What nobody earned "
        "is not handed out: it stays in named accounts."
    )
    bars = [
        el(
            "div",
            el("h4", standing.policy_title(one.policy), el("small", _standing(one))),
            charts.stacked(_stack(one), f"Division of the fee under {standing.policy_title(one.policy)}"),
            _key(one, fee),
        )
        for one in found
    ]
    drawing = figure(
        "Where the fee goes",
        el("div", *bars, class_="multiples wide"),
        "Each bar is the whole fee, cut in the order of its legend; hatched = held back.",
    )
    return section(
        "payout", "Who is paid", intro, drawing, _ledger(fee, currency, found), _residuals(found), _placebo(document)
    )


def _standing(one: Settlement) -> str:
    if one.payable is None:
        return ""
    return " this rule pays" if one.payable else " for comparison, never paid"


def _stack(one: Settlement) -> list[charts.Part]:
    kinds = (
        ("fixed parts", sum(one.parts.values()), "fixed"),
        ("contributors", one.paid, "paid"),
        ("held back", one.withheld, "held"),
        ("carried over", one.carry, "carry"),
    )
    return [charts.Part(label, value, kind) for label, value, kind in kinds if value]


def _key(one: Settlement, fee: int) -> Html:
    items = [
        el(
            "li",
            el("span", class_=f"swatch {part.kind}"),
            f"{part.label} ",
            el("b", numerals.percent(part.value / fee if fee else 0.0)),
        )
        for part in _stack(one)
    ]
    return el("ul", *items, class_="key")


def _ledger(fee: int, currency: str, found: Sequence[Settlement]) -> Html:
    """The table that adds up: one column a rule, a total row computed from the integers above it."""
    head = el(
        "tr",
        el("th", f"In {currency}", scope="col"),
        *(el("th", standing.policy_title(one.policy), scope="col", class_="n") for one in found),
    )
    body = [
        *_group("Fixed parts of the rule", [one.parts for one in found]),
        *_group("Contributors", [one.payees for one in found], by_size=True),
        *_group("Held back", [one.residuals for one in found]),
        _line("Carried over to the next period", [one.carry for one in found]),
    ]
    foot = [
        _line("Total", [one.total for one in found], "total"),
        el(
            "tr",
            el("th", f"Equals the fee of {numerals.whole(fee)}?", scope="row"),
            *(el("td", verdict(one.total == fee, "adds up"), class_="n") for one in found),
        ),
    ]
    table = el(
        "table",
        el("caption", el("span", "Payout", class_="unseen")),
        el("thead", head),
        el("tbody", *body),
        el("tfoot", *foot),
    )
    return el(
        "div",
        el("h3", "Every credit accounted for"),
        el("div", table, class_="scroll", tabindex=0, role="region", aria_label="Payout"),
    )


def _group(title: str, columns: Sequence[Mapping[str, int]], by_size: bool = False) -> list[Html]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    if by_size:
        names.sort(key=lambda name: (-max(column.get(name, 0) for column in columns), name))
    if not names:
        return []
    head = el("tr", el("th", title, scope="rowgroup", colspan=len(columns) + 1), class_="group")
    lines = [_line(name, [column.get(name) for column in columns]) for name in names]
    return [head, *lines, _line("Together", [sum(column.values()) for column in columns], "subtotal")]


def _line(name: str, amounts: Sequence[int | None], kind: str | None = None) -> Html:
    return el(
        "tr",
        el("th", name, scope="row"),
        *(el("td", numerals.whole(amount), class_="n") for amount in amounts),
        class_=kind,
    )


def _residuals(found: Sequence[Settlement]) -> Html | None:
    names = dict.fromkeys(name for one in found for name in one.residuals)
    told = [
        (name, _RESIDUALS[key]) for name in names if (key := name.replace("_", " ").replace("-", " ")) in _RESIDUALS
    ]
    if not told:
        return None
    return el(
        "ul", *(el("li", el("b", name.replace("_", " ")), f": {meaning}") for name, meaning in told), class_="plainlist"
    )


def _placebo(document: Node) -> Html:
    found = document.part("placebo")
    if found is None:
        return el("div", el("h3", "The placebo"), absent("pay on placebo questions"))
    asked = found.size("queries")
    return el(
        "div",
        el("h3", "The placebo"),
        said(
            "As a control, the rule was also run on ",
            "placebo answers" if asked is None else numerals.counted(asked, "placebo answer"),
            " that no record can have helped. ",
            "They should pay (almost) nobody. ",
            *_would_pay(found),
        ),
        _own_words(document),
    )


def _own_words(document: Node) -> Html | None:
    """The harder control: the words are those of the training texts, only their order is chance."""
    found = document.part("own_words")
    if found is None:
        return None
    asked, moved = found.size("queries"), found.number("moved")
    return said(
        "A harder control: ",
        "answers" if asked is None else numerals.counted(asked, "answer"),
        " of random words out of the training texts themselves. They mean nothing",
        f", yet training did make them likelier (by {numerals.plain(moved)} nats on average), so by the quantity "
        "that is paid for they are no placebo"
        if moved is not None and moved > 0
        else "",
        ". ",
        *_would_pay(found),
    )


def _would_pay(found: Node) -> tuple[str | Html, ...]:
    ratio = found.number("ratio")
    return (
        "They would have paid contributors ",
        el("b", _money(found.number("paid"))),
        f", against {_money(found.number('real_paid'))} for the real ones",
        f": {numerals.percent(ratio)} of it per answer." if ratio is not None else ".",
    )


def _money(amount: float | None) -> str:
    """An amount that may be a mean over questions."""
    return numerals.whole(int(amount)) if amount is not None and amount.is_integer() else numerals.plain(amount)
