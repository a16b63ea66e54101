"""Replaying a log: every entry judged against all entries before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from poa.ledger import epochs, lineage
from poa.ledger.events import Event
from poa.ledger.money import Transfer
from poa.ledger.refusal import demand
from poa.ledger.state import State

_Rule = Callable[[State, Event], tuple[Transfer, ...] | None]

_RULES: Mapping[str, tuple[_Rule, str]] = {
    "actor.register": (lineage.register, ""),
    "datanet.create": (lineage.create_datanet, "owner"),
    "data.commit": (lineage.commit_data, "contributor"),
    "data.reveal": (lineage.reveal, "contributor"),
    "data.snapshot": (lineage.snapshot, "owner"),
    "train.run": (lineage.train_run, "operator"),
    "adapter.publish": (lineage.publish_adapter, "operator"),
    "method.card": (lineage.method_card, "operator"),
    "policy.publish": (epochs.publish_policy, "operator"),
    "fund.deposit": (epochs.deposit, "operator"),
    "inference.receipt": (epochs.receipt, "operator"),
    "epoch.close": (epochs.close, "operator"),
    "epoch.settle": (epochs.settle_epoch, "operator"),
}
# Anybody may register as an operator and train; only the actor of entry 0 can move money or set its rules.
_RESERVED = frozenset({"policy.publish", "fund.deposit", "inference.receipt", "epoch.close", "epoch.settle"})


def apply(state: State, event: Event) -> tuple[Transfer, ...]:
    """Judge `event` as entry number `state.size`, take it into `state` and return its transfers.

    Raises `Refusal` naming the broken rule; `state` is then half-changed and must be thrown away.
    """
    demand(event.log == state.origin, "log", f"the event is for log {event.log!r}, this is {state.origin!r}")
    earlier = state.ids.get(event.id)
    demand(earlier is None, "id", f"event id {event.id} was already used by entry {earlier}")
    rule, role = _RULES[event.type]
    _check_author(state, event, role)
    transfers = rule(state, event) or ()
    state.balances.post(transfers)
    if event.type == "epoch.settle":
        left = state.balances[f"escrow:{event.body['epoch']}"]
        demand(left == 0, "settlement", f"{left} micro-credits are left in the epoch's escrow")
    state.ids[event.id] = state.size
    state.size += 1
    return transfers


def _check_author(state: State, event: Event, role: str) -> None:
    if event.type == "actor.register":
        return
    demand(state.size > 0, "operator", "entry 0 must register the log's operator")
    actor = state.actors.get(event.actor)
    if actor is None or actor.key != event.key:
        demand(actor is not None, "actor", f"actor {event.actor} is not registered")
        demand(False, "actor.key", "signed with a key that is not the actor's")
        return
    demand(role in actor.roles, "actor.role", f"{event.type} needs the role {role}")
    if event.type in _RESERVED:
        demand(event.actor == state.operator, "operator", f"{event.type} is for the log's operator (entry 0) alone")
