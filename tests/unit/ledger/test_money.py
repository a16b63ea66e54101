"""Money over whole epochs: whatever is deposited and served, every micro-credit is in some account."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poa.ledger import journal
from poa.ledger.encoding import MAX_AMOUNT
from poa.ledger.money import Balances, Transfer
from poa.ledger.refusal import Refusal
from poa.ledger.replay import apply
from poa.ledger.state import State
from poa.rewards.settlement import ScoredReceipt, settle

UNIT = 10**9
NAMES = ("ada", "bob", "cyd")
SHARES = st.lists(st.integers(-UNIT // 3, UNIT // 3), min_size=3, max_size=3)
RECEIPTS = st.lists(st.tuples(st.integers(0, 10**6) | st.integers(0, 2**62), SHARES, st.booleans()), max_size=6)


def after(route: Any) -> State:
    state = State("poa.example/poa/test")
    for event in route.events.values():
        apply(state, event)
    return state


@given(epochs=st.lists(RECEIPTS, min_size=1, max_size=3))
def test_every_micro_credit_is_accounted_for(money_route: Any, epochs: list[list[Any]]) -> None:
    state, operator, payer = after(money_route), money_route.author("operator"), money_route.id("payer")
    start = state.balances[f"avail:{payer}"]
    carried = 0
    for number, receipts in enumerate(epochs, 1):
        scored: list[ScoredReceipt] = []
        spent = 0
        for n, (fee, shares, has_card) in enumerate(receipts):
            if fee > state.balances[f"avail:{payer}"]:
                continue
            chosen = dict(zip(NAMES, shares, strict=True)) if has_card else {}
            changes = {} if has_card else {"card": None}
            event = money_route.receipt(f"r-{number}-{n}", fee, chosen, **changes)
            apply(state, event)
            spent += fee
            if has_card:
                scored.append(money_route.scored(f"r-{number}-{n}", fee, chosen))
        before = {name: state.balances[f"payable:{money_route.id(name)}"] for name in NAMES}
        assert state.balances[f"escrow:{number}"] == spent
        apply(state, journal.close_epoch(operator, state))
        apply(state, journal.settle_epoch(operator, state))
        assert state.balances[f"escrow:{number}"] == 0
        weights = {money_route.id(name): weight for name, weight in zip(NAMES, (3, 2, 1), strict=True)}
        oracle = settle(scored, money_route.policy, weights, carried) if scored else None
        if oracle is not None and all(has_card for _, _, has_card in receipts):
            gained = {name: state.balances[f"payable:{money_route.id(name)}"] - before[name] for name in NAMES}
            assert gained == {name: dict(oracle.earned).get(money_route.id(name), 0) for name in NAMES}
            assert oracle.carry == sum(v for name, v in state.balances.accounts.items() if name.startswith("carry:"))
        carried = sum(v for name, v in state.balances.accounts.items() if name.startswith("carry:"))
    accounts = state.balances.accounts
    assert all(balance >= 0 for name, balance in accounts.items() if not name.startswith("ext:"))
    assert sum(accounts.values()) == 0
    assert sum(balance for name, balance in accounts.items() if not name.startswith("ext:")) == start
    assert sum(dict(state.balances.by_kind()).values()) == 0


@pytest.fixture(scope="module")
def money_route(tmp_path_factory: pytest.TempPathFactory, written: Any) -> Any:
    made = type(written)(tmp_path_factory.mktemp("money") / "unused")
    # Without the gate somebody is paid in most examples, so that carries occur.
    made.policy = replace(made.policy, z2=(0, 1))
    made.prepare()
    operator, payer = made.author("operator"), made.id("payer")
    made.add("more", journal.deposit(operator, payer, MAX_AMOUNT - 1_000_000, "everything else"))
    return made


def test_unscored_receipts_pay_residuals_and_the_licence_share_only(money_route: Any) -> None:
    state, operator = after(money_route), money_route.author("operator")
    for n in range(3):
        apply(state, money_route.receipt(f"u{n}", 1_000, {}, card=None))
    apply(state, journal.close_epoch(operator, state))
    apply(state, journal.settle_epoch(operator, state))
    totals = dict(state.balances.by_kind())
    assert totals["residual:unattributed"] == 3 * 450
    # 10 % of 1,500 goes flat over weights 3, 2, 1.
    assert [state.balances[f"payable:{money_route.id(name)}"] for name in NAMES] == [75, 50, 25]
    assert totals["part:platform"] == 300


def test_the_carry_of_an_epoch_joins_the_next(money_route: Any) -> None:
    state, operator = after(money_route), money_route.author("operator")
    weights = {money_route.id(name): weight for name, weight in zip(NAMES, (3, 2, 1), strict=True)}
    shares = {"ada": UNIT // 3, "bob": UNIT // 3, "cyd": UNIT // 3}
    carry = 0
    # Long enough for the carries to add up to one more micro-credit for everybody.
    for epoch in range(1, 7):
        apply(state, money_route.receipt(f"c{epoch}", 1_001, shares))
        apply(state, journal.close_epoch(operator, state))
        apply(state, journal.settle_epoch(operator, state))
        expected = settle([money_route.scored(f"c{epoch}", 1_001, shares)], money_route.policy, weights, carry)
        assert dict(state.payouts[epoch]) == dict(expected.earned)
        carry = expected.carry
        assert dict(state.balances.by_kind()).get("carry", 0) == carry
        assert carry > 0


def test_unscored_receipts_do_not_count_as_evidence(written: Any, tmp_path: Path) -> None:
    """Three equal receipts pass the significance test; among twenty empty ones they would not."""
    made = type(written)(tmp_path / "unused")
    made.prepare()
    state, operator = after(made), made.author("operator")
    scored = [made.scored(f"s{n}", 1_000, {"ada": 10**8}) for n in range(3)]
    empty = [made.scored(f"u{n}", 1_000, {}) for n in range(20)]
    weights = {made.id(name): weight for name, weight in zip(NAMES, (3, 2, 1), strict=True)}
    assert settle(scored, made.policy, weights).payouts
    assert not settle(scored + empty, made.policy, weights).payouts
    for n in range(3):
        apply(state, made.receipt(f"s{n}", 1_000, {"ada": 10**8}))
    for n in range(20):
        apply(state, made.receipt(f"u{n}", 1_000, {}, card=None))
    apply(state, journal.close_epoch(operator, state))
    settlement = journal.settle_epoch(operator, state)
    totals = {row["id"]: int(row["amount"]) for row in settlement.body["totals"]}
    assert totals["payouts"] == settle(scored, made.policy, weights).payouts[0][1]


def test_a_free_epoch_moves_nothing(money_route: Any) -> None:
    state, operator = after(money_route), money_route.author("operator")
    before = dict(state.balances.accounts)
    apply(state, money_route.receipt("free", 0, {"ada": 10**8}))
    apply(state, journal.close_epoch(operator, state))
    apply(state, journal.settle_epoch(operator, state))
    assert state.balances.accounts == before


def test_balances_refuse_overdraft_and_overflow() -> None:
    balances = Balances()
    balances.post([Transfer("ext:deposits", "avail:a", 5)])
    with pytest.raises(Refusal, match="below zero"):
        balances.post([Transfer("avail:a", "avail:b", 6)])
    with pytest.raises(Refusal, match="2\\^63-1"):
        Balances().post([Transfer("ext:deposits", "avail:a", MAX_AMOUNT), Transfer("ext:deposits", "avail:a", 1)])
    for amount in (0, -1, MAX_AMOUNT + 1):
        with pytest.raises(Refusal, match="a transfer of"):
            Balances().post([Transfer("ext:deposits", "avail:a", amount)])


def test_money_may_pass_through_an_account_within_one_event() -> None:
    balances = Balances()
    balances.post([Transfer("escrow:1", "payable:a", 5), Transfer("ext:deposits", "escrow:1", 5)])
    assert balances.accounts == {"escrow:1": 0, "payable:a": 5, "ext:deposits": -5}
