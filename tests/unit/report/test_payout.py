"""The payout adds up before a reader's eyes, or there is no page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.report import render
from poa.report.document import Node
from poa.report.payout import paying, payout, settlements

exact = settings(deadline=None, derandomize=True)

money = st.integers(0, 10**18)
accounts = st.dictionaries(st.sampled_from(["a", "b", "c"]), money)


def _document(parts: dict[str, int], payees: dict[str, int], held: dict[str, int], carry: int, fee: int) -> Node:
    policy = {"parts": parts, "payees": payees, "residuals": held, "carry": carry, "payable": True}
    return Node({"payout": {"fee": fee, "currency": "micro-credits", "policies": {"rule": policy}}})


@exact
@given(accounts, accounts, accounts, money, st.integers(-3, 3))
def test_exactly_the_sums_that_add_up_are_shown(
    parts: dict[str, int], payees: dict[str, int], held: dict[str, int], carry: int, off: int
) -> None:
    total = sum((*parts.values(), *payees.values(), *held.values(), carry))
    if total + off < 0:
        return
    node = _document(parts, payees, held, carry, total + off)
    if off:
        with pytest.raises(PoaError, match=rf"policies\.rule adds up to {total}, not to the fee of {total + off}"):
            payout(node)
    else:
        row = re.search(r'<tr class="total">.*?</tr>', payout(node))
        assert row is not None
        assert f">{total:,}<" in row[0]


def test_the_rows_shown_add_up_to_the_total_shown(document: dict[str, Any]) -> None:
    page = payout(Node(document))
    body = page[page.index("<tbody>") : page.index("</tbody>", page.index("<tbody>"))]
    lines = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body)
    columns = [
        [int(cell.replace(",", "")) if cell != "–" else 0 for cell in re.findall(r">([^<]+)</td>", line)]
        for _, line in lines
    ]
    assert [sum(column) for column in zip(*columns, strict=True)] == [1_000_000, 1_000_000]


def test_one_credit_too_many_stops_the_page(document: dict[str, Any]) -> None:
    document["payout"]["policies"]["net-epoch"]["carry"] += 1
    with pytest.raises(PoaError, match="adds up to 1000001, not to the fee of 1000000"):
        render(document)


def test_the_payable_rule_is_the_one_that_pays(document: dict[str, Any]) -> None:
    found = settlements(Node(document))[2]
    assert [one.policy for one in found] == ["openledger-printed", "net-epoch"]
    chosen = paying(found)
    assert chosen is not None
    assert chosen.policy == "net-epoch"


def test_placebo_amounts_read_as_money(document: dict[str, Any]) -> None:
    said = re.sub("<.*?>", "", payout(Node(document)))
    assert "20 placebo answers" in said
    assert "1,310, against 300,380 for the real ones: 0.4 % of it per answer." in said
    assert "A harder control" not in said
    document["own_words"] = {"queries": 4, "paid": 70, "real_paid": 100, "ratio": 0.7, "moved": 6.25}
    said = re.sub("<.*?>", "", payout(Node(document)))
    assert "4 answers of random words" in said
    assert "(by 6.25 nats on average)" in said
    assert "70, against 100 for the real ones: 70 % of it per answer." in said
