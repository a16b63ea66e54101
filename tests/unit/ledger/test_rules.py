"""Every rule of the log has an event that breaks it and is refused under that rule's name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from poa.ledger import ActorKey, Author, Event, journal
from poa.ledger.bodies import BODIES
from poa.ledger.encoding import MAX_AMOUNT
from poa.ledger.events import event_bytes, signing_bytes
from poa.ledger.refusal import Refusal
from poa.ledger.replay import _RULES, apply  # pyright: ignore[reportPrivateUsage]
from poa.ledger.state import State
from poa.rewards.policy import Policy

ORIGIN = "poa.example/poa/test"
HEX = "ab" * 32


def replayed(route: Any, until: str = "") -> State:
    """The state after all of the route's events, or after those before `until`."""
    state = State(ORIGIN)
    for name, event in route.events.items():
        if name == until:
            break
        apply(state, event)
    return state


def changed(route: Any, name: str, by: str | None = None, **body: Any) -> Event:
    """Event `name` again, with another id and some fields replaced, signed by its author or by `by`."""
    event = route.events[name]
    authors = {route.id(n): route.author(n) for n in ("operator", "owner", "payer", "ada", "bob", "cyd")}
    author: Author = authors[event.actor] if by is None else route.author(by)
    return author.write(event.type, {**event.body, **body}, id=f"again-{name.replace(' ', '-')}")


def without(event: Event, name: str) -> dict[str, Any]:
    return {field: value for field, value in event.body.items() if field != name}


@pytest.fixture
def ready(route: Any) -> Any:
    """A route up to its deposit."""
    route.prepare()
    return route


def test_every_event_type_has_a_rule() -> None:
    assert set(_RULES) == set(BODIES)


def test_the_whole_route_is_accepted(written: Any) -> None:
    state = replayed(written)
    assert state.size == len(written.events)
    assert set(state.payouts) == {1}


BREAKS: list[tuple[str, str, Callable[[Any], Event]]] = [
    ("ada", "actor.once", lambda r: journal.register(r.author("operator"), ["payer"])),
    ("commit ada", "datanet", lambda r: changed(r, "commit ada", datanet="nowhere")),
    ("commit ada", "actor.role", lambda r: changed(r, "commit ada", by="payer")),
    ("commit ada", "actor", lambda r: changed(r, "commit ada", by="stranger")),
    ("datanet", "datanet.owner", lambda r: changed(r, "datanet", owner=r.id("ada"))),
    ("datanet", "actor.role", lambda r: changed(r, "datanet", by="ada", owner=r.id("ada"))),
    ("reveal ada", "reveal.commit", lambda r: changed(r, "reveal ada", commit="nowhere")),
    ("reveal ada", "reveal.actor", lambda r: changed(r, "reveal ada", by="bob")),
    ("reveal ada", "reveal.opens", lambda r: changed(r, "reveal ada", salt=HEX)),
    ("reveal ada", "reveal.opens", lambda r: changed(r, "reveal ada", row_root=HEX)),
    ("snapshot", "reveal.once", lambda r: changed(r, "reveal ada")),
    ("snapshot", "datanet", lambda r: changed(r, "snapshot", datanet="nowhere")),
    ("snapshot", "actor.role", lambda r: changed(r, "snapshot", by="ada")),
    ("snapshot", "snapshot.version", lambda r: changed(r, "snapshot", version=2)),
    ("snapshot", "snapshot.payees", lambda r: changed(r, "snapshot", clusters=[{"id": HEX, "weight": 1}])),
    ("snapshot", "snapshot.rows", lambda r: changed(r, "snapshot", rows=7)),
    ("run", "snapshot.version", lambda r: changed(r, "snapshot", version=1)),
    ("run", "run.snapshot", lambda r: changed(r, "run", snapshots=["nowhere"])),
    ("run", "run.determinism", lambda r: changed(r, "run", determinism="tolerance")),
    ("run", "run.determinism", lambda r: changed(r, "run", tolerance="5")),
    ("run", "actor.role", lambda r: changed(r, "run", by="owner")),
    ("adapter", "adapter.run", lambda r: changed(r, "adapter", run="nowhere")),
    ("adapter", "adapter.run", lambda r: changed(r, "adapter", adapter=HEX)),
    ("adapter", "adapter.base", lambda r: changed(r, "adapter", base=HEX)),
    ("adapter", "adapter.parent", lambda r: changed(r, "adapter", parents=["nowhere"])),
    ("card", "adapter.once", lambda r: changed(r, "adapter")),
    ("card", "card.adapter", lambda r: changed(r, "card", adapter=HEX)),
    ("card", "card.agreement", lambda r: changed(r, "card", agreement={"mean": "1", "low": "2", "high": "3"})),
    ("policy", "policy.digest", lambda r: changed(r, "policy", digest=HEX)),
    ("policy", "policy.form", lambda r: changed(r, "policy", policy={"id": "net-epoch"})),
    ("deposit", "policy.once", lambda r: changed(r, "policy")),
    ("deposit", "deposit.account", lambda r: changed(r, "deposit", account=r.id("ada"))),
    ("deposit", "actor.role", lambda r: changed(r, "deposit", by="payer")),
    (
        "deposit",
        "epoch.range",
        lambda r: r.author("operator").write("epoch.close", {"epoch": 2, "first": 0, "last": 5}),
    ),
    ("deposit", "epoch.closed", lambda r: changed_settle(r, epoch=1)),
]


def changed_settle(route: Any, **body: Any) -> Event:
    fields: dict[str, Any] = {
        "epoch": 1,
        "last": 1,
        "policy": {"id": "net-epoch", "version": 1},
        "totals": [{"id": "payouts", "amount": "0"}],
        "payout_root": HEX,
        "payout_rows": 0,
    }
    return route.author("operator").write("epoch.settle", fields | body)


@pytest.mark.parametrize(
    ("at", "rule", "make"), BREAKS, ids=[f"{at}-{rule}-{n}" for n, (at, rule, _) in enumerate(BREAKS)]
)
def test_a_broken_rule_is_named(ready: Any, at: str, rule: str, make: Callable[[Any], Event]) -> None:
    state = replayed(ready, at)
    with pytest.raises(Refusal) as refusal:
        apply(state, make(ready))
    assert refusal.value.rule == rule


def _receipt_break(**body: Any) -> Callable[[Any], Event]:
    return lambda route: changed(route, "receipt 1", **body)


RECEIPTS: list[tuple[str, Callable[[Any], Event]]] = [
    ("receipt.once", lambda r: changed(r, "receipt 0")),
    ("receipt.adapter", _receipt_break(adapter=HEX)),
    ("receipt.base", _receipt_break(base=HEX)),
    ("receipt.payer", lambda r: changed(r, "receipt 1", payer=r.id("ada"))),
    ("receipt.card", _receipt_break(card="nowhere")),
    ("receipt.card", _receipt_break(method=HEX)),
    ("policy", _receipt_break(policy={"id": "net-epoch", "version": 9})),
    ("receipt.parts", _receipt_break(fee="1002")),
    ("receipt.parts", lambda r: changed(r, "receipt 1", parts=r.events["receipt 0"].body["parts"][:2])),
    ("receipt.fractions", _receipt_break(payees=[])),
    ("receipt.fractions", _receipt_break(residuals={"base": "0", "below_threshold": "0", "unattributed": "0"})),
    ("receipt.payee", lambda r: r.receipt("other", 10, {"operator": 5})),
    ("receipt.card", lambda r: r.receipt("other", 10, {"ada": 5}, card=None)),
    ("receipt.card", lambda r: r.receipt("other", 10, {}, base=7, card=None)),
    ("money", lambda r: r.receipt("other", 1_000_000, {"ada": 5})),
]


@pytest.mark.parametrize(("rule", "make"), RECEIPTS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(RECEIPTS)])
def test_a_bad_receipt_is_refused(ready: Any, rule: str, make: Callable[[Any], Event]) -> None:
    ready.serve()
    state = replayed(ready, "receipt 1")
    with pytest.raises(Refusal) as refusal:
        apply(state, make(ready))
    assert refusal.value.rule == rule


def test_a_card_for_another_adapter_does_not_pay(ready: Any) -> None:
    operator, state = ready.author("operator"), replayed(ready)
    run = changed(ready, "run", adapter=HEX)
    adapter = journal.publish_adapter(operator, adapter=HEX, run=run.id, base=ready.events["run"].body["base"])
    for event in (run, adapter):
        apply(state, event)
    with pytest.raises(Refusal, match="for another adapter"):
        apply(state, ready.receipt("other", 10, {"ada": 5}, adapter=HEX))


def test_net_negative_evidence_is_a_valid_receipt(ready: Any) -> None:
    state = replayed(ready)
    event = ready.receipt("negative", 10, {"ada": -(10**8)}, base=10**9)
    residuals = sum(int(value) for value in event.body["residuals"].values())
    assert residuals == 10**9 + 10**8
    apply(state, event)


def test_the_first_receipt_fixes_the_epochs_policy(ready: Any) -> None:
    newer = replace(ready.policy, version=2, licence_share=0)
    state = replayed(ready)
    apply(state, ready.receipt("first", 10, {"ada": 5}))
    apply(state, journal.publish_policy(ready.author("operator"), newer))
    with pytest.raises(Refusal, match="opened under policy") as refusal:
        apply(state, ready.receipt("second", 10, {"ada": 5}, policy=newer))
    assert refusal.value.rule == "receipt.policy"
    state = replayed(ready)
    for event in (
        ready.receipt("first", 10, {"ada": 5}),
        journal.publish_policy(ready.author("operator"), newer),
    ):
        apply(state, event)
    apply(state, journal.close_epoch(ready.author("operator"), state))
    apply(state, ready.receipt("second", 10, {"ada": 5}, policy=newer))
    assert state.epoch.policy == ("net-epoch", 2)


def test_a_policy_for_comparison_does_not_pay(ready: Any) -> None:
    printed = Policy.preset("openledger-printed")
    state = replayed(ready)
    apply(state, journal.publish_policy(ready.author("operator"), printed))
    with pytest.raises(Refusal) as refusal:
        apply(state, ready.receipt("first", 10, {"ada": 5}, policy=printed))
    assert refusal.value.rule == "policy.payable"


def test_a_settlement_off_by_one_micro_credit_is_refused(written: Any) -> None:
    event = written.events["settle"]
    for row in range(len(event.body["totals"])):
        totals = [dict(entry) for entry in event.body["totals"]]
        totals[row]["amount"] = str(int(totals[row]["amount"]) + 1)
        state = replayed(written, "settle")
        with pytest.raises(Refusal, match="totals must be") as refusal:
            apply(state, written.author("operator").write("epoch.settle", {**event.body, "totals": totals}))
        assert refusal.value.rule == "settlement"


@pytest.mark.parametrize("changes", [{"payout_root": HEX}, {"payout_rows": 9}, {"last": 3}])
def test_another_settlement_is_refused(written: Any, changes: dict[str, Any]) -> None:
    state = replayed(written, "settle")
    body = {**written.events["settle"].body, **changes}
    with pytest.raises(Refusal) as refusal:
        apply(state, written.author("operator").write("epoch.settle", body))
    assert refusal.value.rule == "settlement"


def test_an_epoch_settles_once_and_in_order(ready: Any) -> None:
    operator, state = ready.author("operator"), replayed(ready)
    apply(state, ready.receipt("first", 10, {"ada": 5}))
    apply(state, journal.close_epoch(operator, state))
    apply(state, ready.receipt("second", 10, {"ada": 5}))
    apply(state, journal.close_epoch(operator, state))
    with pytest.raises(Refusal) as refusal:
        apply(state, changed_settle(ready, epoch=2))
    assert refusal.value.rule == "epoch.order"
    state = replayed(ready)
    apply(state, ready.receipt("first", 10, {"ada": 5}))
    apply(state, journal.close_epoch(operator, state))
    settle = journal.settle_epoch(operator, state)
    apply(state, settle)
    with pytest.raises(Refusal) as refusal:
        apply(state, operator.write("epoch.settle", settle.body, id="again"))
    assert refusal.value.rule == "epoch.closed"


def test_an_epoch_without_receipts_settles_to_nothing(ready: Any) -> None:
    operator, state = ready.author("operator"), replayed(ready)
    apply(state, journal.close_epoch(operator, state))
    before = dict(state.balances.accounts)
    apply(state, journal.settle_epoch(operator, state))
    assert state.balances.accounts == before
    assert state.payouts == {1: ()}


def test_close_is_valid_only_as_the_very_next_entry(ready: Any) -> None:
    state = replayed(ready)
    close = journal.close_epoch(ready.author("operator"), state)
    apply(state, ready.receipt("first", 10, {"ada": 5}))
    with pytest.raises(Refusal) as refusal:
        apply(state, close)
    assert refusal.value.rule == "epoch.range"


def test_entry_0_must_register_an_operator(ready: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        apply(State(ORIGIN), ready.events["ada"])
    assert refusal.value.rule == "operator"
    with pytest.raises(Refusal) as refusal:
        apply(State(ORIGIN), ready.events["datanet"])
    assert refusal.value.rule == "operator"


def test_a_second_operator_moves_no_money(ready: Any) -> None:
    state = replayed(ready)
    apply(state, journal.register(ready.author("rival"), ["operator"]))
    for name in ("deposit", "policy"):
        with pytest.raises(Refusal) as refusal:
            apply(state, changed(ready, name, by="rival"))
        assert refusal.value.rule == "operator"
    apply(state, changed(ready, "run", by="rival", adapter=HEX))


def test_another_log_and_a_used_id_are_refused(ready: Any) -> None:
    state = replayed(ready)
    with pytest.raises(Refusal) as refusal:
        apply(state, ready.events["ada"])
    assert refusal.value.rule == "id"
    elsewhere = Author(ActorKey.simulated("dan"), "poa.example/poa/elsewhere")
    with pytest.raises(Refusal) as refusal:
        apply(state, journal.register(elsewhere, ["payer"]))
    assert refusal.value.rule == "log"


def _signed_by(key: ActorKey, actor: str, kind: str, body: dict[str, Any]) -> Event:
    envelope = {"v": 1, "type": kind, "id": "forged", "log": ORIGIN, "actor": actor, "ts": 0, "body": body}
    return Event.parse(event_bytes(envelope, key.public, key.sign(signing_bytes(envelope))))


def test_keys_of_others_do_not_sign(ready: Any) -> None:
    thief, state = ActorKey.simulated("thief"), replayed(ready)
    deposit = dict(ready.events["deposit"].body)
    with pytest.raises(Refusal, match="not the actor's") as refusal:
        apply(state, _signed_by(thief, ready.id("operator"), "fund.deposit", deposit))
    assert refusal.value.rule == "actor.key"


@pytest.mark.parametrize("case", ["other actor", "other key", "small order", "same next"])
def test_registrations_bind_actor_and_key(ready: Any, case: str) -> None:
    key, state = ActorKey.simulated("dan"), replayed(ready)
    body: dict[str, Any] = {"key": key.public.hex(), "next": HEX, "roles": ["payer"]}
    actor = key.id
    if case == "other actor":
        actor = HEX
    elif case == "other key":
        victim = ActorKey.simulated("victim")
        body["key"], actor = victim.public.hex(), victim.id
    elif case == "small order":
        body["key"] = "01" + "00" * 31
        actor = hashlib.sha256(bytes.fromhex(body["key"])).hexdigest()
    else:
        body["next"] = key.id
    with pytest.raises(Refusal) as refusal:
        apply(state, _signed_by(key, actor, "actor.register", body))
    assert refusal.value.rule == "actor.key"


def test_a_copied_commit_cannot_be_opened_by_the_copier(ready: Any) -> None:
    state = replayed(ready, "reveal ada")
    stolen = changed(ready, "commit ada", by="bob")
    apply(state, stolen)
    body = {**ready.events["reveal ada"].body, "commit": stolen.id}
    with pytest.raises(Refusal) as refusal:
        apply(state, ready.author("bob").write("data.reveal", body))
    assert refusal.value.rule == "reveal.opens"


def test_deposits_stay_within_63_bits(ready: Any) -> None:
    state = replayed(ready)
    with pytest.raises(Refusal, match="2\\^63-1"):
        apply(state, journal.deposit(ready.author("operator"), ready.id("payer"), MAX_AMOUNT, "all there is"))
    state = replayed(ready)
    apply(state, journal.deposit(ready.author("operator"), ready.id("payer"), MAX_AMOUNT - 1_000_000, "the rest"))
    apply(state, ready.receipt("huge", MAX_AMOUNT, {"ada": 5}))
    assert state.balances[f"avail:{ready.id('payer')}"] == 0
