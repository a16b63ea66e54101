"""Rules of money: policies, deposits, receipts, and how an epoch closes and settles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from poa.errors import PoaError
from poa.ledger import merkle, money
from poa.ledger.encoding import amount, canonical, read_amount, read_fraction
from poa.ledger.events import Event
from poa.ledger.money import Transfer
from poa.ledger.refusal import Refusal, demand
from poa.ledger.state import Adapter, Charged, Epoch, Payouts, State
from poa.rewards.credit import UNIT
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt, Settlement, settle, split_fee


class Outcome(NamedTuple):
    """A settled epoch: the body that epoch.settle must have, the payout table and the transfers."""

    body: Mapping[str, Any]
    payouts: Payouts
    transfers: tuple[Transfer, ...]


def publish_policy(state: State, event: Event) -> None:
    try:
        policy = Policy.from_json(event.body["policy"])
    except PoaError as error:
        raise Refusal("policy.form", str(error)) from error
    demand(policy.digest == event.body["digest"], "policy.digest", "digest is not the digest of the policy")
    name = (policy.id, policy.version)
    demand(name not in state.policies, "policy.once", f"policy {policy.id} version {policy.version} exists already")
    state.policies[name] = policy


def deposit(state: State, event: Event) -> tuple[Transfer, ...]:
    account = event.body["account"]
    demand(_has_role(state, account, "payer"), "deposit.account", f"account {account} is no registered payer")
    return money.deposit(account, read_amount(event.body["amount"]))


def receipt(state: State, event: Event) -> tuple[Transfer, ...]:
    body = event.body
    demand(body["served"] not in state.served, "receipt.once", "this served statement already has a receipt")
    demand(_has_role(state, body["payer"], "payer"), "receipt.payer", f"{body['payer']} is no registered payer")
    adapter = state.adapters.get(body["adapter"])
    if adapter is None:
        raise Refusal("receipt.adapter", f"adapter {body['adapter']} is not published")
    demand(adapter.base == body["base"], "receipt.base", "base is not the one the adapter was trained from")
    scored = _scored(event)
    _check_evidence(state, event, scored, adapter)
    policy = _policy_of(state, body["policy"])
    demand(policy.payable, "policy.payable", f"policy {policy.id} is for comparison and must not pay")
    parts = [{"id": name, "amount": amount(part)} for name, part in split_fee(scored.fee, policy)]
    demand(body["parts"] == parts, "receipt.parts", f"parts must be {parts}, the policy's split of {scored.fee}")
    name = (policy.id, policy.version)
    epoch = state.epoch
    if epoch.policy is None:
        epoch.policy = name
    demand(epoch.policy == name, "receipt.policy", f"epoch {epoch.number} opened under policy {epoch.policy}")
    epoch.receipts.append(Charged(body["adapter"], "card" in body, scored))
    state.served.add(body["served"])
    return money.fee(body["payer"], epoch.number, scored.fee)


def close(state: State, event: Event) -> None:
    body, epoch = event.body, state.epoch
    expected = {"epoch": epoch.number, "first": epoch.first, "last": state.size - 1}
    demand(dict(body) == expected, "epoch.range", f"must close {expected}, says {dict(body)}")
    epoch.last = state.size - 1
    state.closed[epoch.number] = epoch
    state.epoch = Epoch(epoch.number + 1, state.size)


def settle_epoch(state: State, event: Event) -> tuple[Transfer, ...]:
    body = event.body
    outcome = settlement_of(state, body["epoch"], (body["policy"]["id"], body["policy"]["version"]))
    for name, expected in outcome.body.items():
        demand(body[name] == expected, "settlement", f"{name} must be {expected}, is {body[name]}")
    state.payouts[body["epoch"]] = outcome.payouts
    del state.closed[body["epoch"]]
    return outcome.transfers


def settlement_of(state: State, number: int, policy: tuple[str, int] | None = None) -> Outcome:
    """Derive the settlement of closed epoch `number` from its logged receipts alone.

    Receipts are settled per adapter, those without a method card apart: they must not count among the n scored
    receipts of the significance test. `policy` is only read where an epoch had no receipt that fixed one.
    Raises `Refusal` unless the epoch is closed and every earlier one is settled.
    """
    demand(number in state.closed, "epoch.closed", f"epoch {number} is not closed or already settled")
    demand(number == min(state.closed), "epoch.order", f"epoch {min(state.closed)} must be settled first")
    epoch = state.closed[number]
    name = epoch.policy or policy or max(state.policies, default=("", 0))
    chosen = _policy_of(state, {"id": name[0], "version": name[1]})
    groups: defaultdict[tuple[str, bool], list[ScoredReceipt]] = defaultdict(list)
    for charged in epoch.receipts:
        groups[charged.adapter, charged.scored].append(charged.receipt)
    settled: list[tuple[str, int, Settlement]] = []
    for (adapter, scored), receipts in sorted(groups.items()):
        carry_in = state.balances[f"carry:{adapter}"] if scored else 0
        settled.append((adapter, carry_in, _settle(receipts, chosen, state.adapters[adapter], carry_in)))
    payouts = _payouts([settlement for _, _, settlement in settled])
    body = {
        "epoch": number,
        "last": epoch.last,
        "policy": {"id": chosen.id, "version": chosen.version},
        "totals": _total_rows([settlement for _, _, settlement in settled]),
        "payout_root": merkle.root([merkle.leaf_hash(row) for row in payout_rows(payouts)]).hex(),
        "payout_rows": len(payouts),
    }
    return Outcome(body, payouts, money.payout(number, settled))


def payout_rows(payouts: Payouts) -> list[bytes]:
    """The payout table as leaves: one canonical {"amount", "id"} per payee, payees ascending."""
    return [canonical({"amount": amount(earned), "id": payee}) for payee, earned in payouts]


def _settle(receipts: list[ScoredReceipt], policy: Policy, adapter: Adapter, carry_in: int) -> Settlement:
    try:
        return settle(receipts, policy, adapter.weights, carry_in)
    except PoaError as error:
        raise Refusal("settlement", str(error)) from error


def _payouts(settlements: list[Settlement]) -> Payouts:
    sums: defaultdict[str, int] = defaultdict(int)
    for settlement in settlements:
        for payee, earned in settlement.earned:
            sums[payee] += earned
    return tuple(sorted(sums.items()))


def _total_rows(settlements: list[Settlement]) -> list[dict[str, str]]:
    sums = money.totals(settlements) or {"payouts": 0}
    return [{"id": name, "amount": amount(total)} for name, total in sums.items()]


def _scored(event: Event) -> ScoredReceipt:
    body = event.body
    payees = tuple((row["id"], read_fraction(row["fraction"])) for row in body["payees"])
    residuals = {name: read_fraction(value) for name, value in body["residuals"].items()}
    try:
        return ScoredReceipt(event.id, read_amount(body["fee"]), payees, **residuals)
    except PoaError as error:
        raise Refusal("receipt.fractions", str(error)) from error


def _check_evidence(state: State, event: Event, scored: ScoredReceipt, adapter: Adapter) -> None:
    body = event.body
    if "card" not in body:
        demand(
            not scored.payees and scored.unattributed == UNIT,
            "receipt.card",
            "without a method card everything must be unattributed",
        )
        return
    card = state.cards.get(body["card"])
    if card is None:
        raise Refusal("receipt.card", f"no method card {body['card']!r} was logged before")
    demand(card.adapter == body["adapter"], "receipt.card", "the method card is for another adapter")
    demand(card.spec == body["method"], "receipt.card", "the method card is for another method")
    for payee, _ in scored.payees:
        demand(payee in adapter.weights, "receipt.payee", f"payee {payee} is in no snapshot of the adapter's run")


def _policy_of(state: State, named: Mapping[str, Any]) -> Policy:
    policy = state.policies.get((named["id"], named["version"]))
    if policy is None:
        raise Refusal("policy", f"policy {named['id']} version {named['version']} was not published before")
    return policy


def _has_role(state: State, actor: str, role: str) -> bool:
    return actor in state.actors and role in state.actors[actor].roles
