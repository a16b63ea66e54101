"""Rules of everything before an answer: actors, datanets, commits, snapshots, runs, adapters, method cards."""

from __future__ import annotations

import hashlib
from collections import Counter

from poa.errors import PoaError
from poa.ledger.commitments import data_commitment
from poa.ledger.encoding import read_fraction
from poa.ledger.events import Event
from poa.ledger.note import check_public_key
from poa.ledger.refusal import Refusal, demand
from poa.ledger.state import Actor, Adapter, Card, Commit, Datanet, Run, Snapshot, State


def register(state: State, event: Event) -> None:
    body = event.body
    key = bytes.fromhex(body["key"])
    try:
        check_public_key(key)
    except PoaError as error:
        raise Refusal("actor.key", str(error)) from error
    demand(hashlib.sha256(key).hexdigest() == event.actor, "actor.key", "actor must be SHA-256 of the registered key")
    demand(event.key == key, "actor.key", "a registration must be signed by the key that it registers")
    demand(body["next"] != event.actor, "actor.key", "the promised next key must differ from the first one")
    demand(event.actor not in state.actors, "actor.once", f"actor {event.actor} is already registered")
    if state.size == 0:
        demand("operator" in body["roles"], "operator", "entry 0 must register the log's operator")
        state.operator = event.actor
    state.actors[event.actor] = Actor(key, frozenset(body["roles"]), body.get("label", ""))


def create_datanet(state: State, event: Event) -> None:
    demand(event.body["owner"] == event.actor, "datanet.owner", "a datanet is created by its owner")
    state.datanets[event.id] = Datanet(event.actor)


def commit_data(state: State, event: Event) -> None:
    _datanet(state, event.body["datanet"])
    state.commits[event.id] = Commit(event.actor, event.body["datanet"], event.body["c"])


def reveal(state: State, event: Event) -> None:
    body = event.body
    commit = state.commits.get(body["commit"])
    if commit is None:
        raise Refusal("reveal.commit", f"no commit {body['commit']!r} was logged before")
    demand(commit.actor == event.actor, "reveal.actor", "only the actor who committed may reveal")
    demand(not commit.revealed, "reveal.once", f"commit {body['commit']!r} is already revealed")
    salt = bytes.fromhex(body["salt"])
    opened = data_commitment(event.log, event.actor, commit.datanet, salt, body["row_root"])
    demand(opened == commit.c, "reveal.opens", f"salt and row root do not open commit {body['commit']!r}")
    commit.revealed = True
    state.datanets[commit.datanet].rows[event.actor] += body["rows"]


def snapshot(state: State, event: Event) -> None:
    body = event.body
    datanet = _datanet(state, body["datanet"])
    demand(datanet.owner == event.actor, "snapshot.owner", "only the datanet's owner publishes its snapshots")
    expected = datanet.version + 1
    demand(body["version"] == expected, "snapshot.version", f"version must be {expected}, it is {body['version']}")
    weights = {row["id"]: row["weight"] for row in body["clusters"]}
    strangers = [payee for payee in weights if payee not in datanet.rows]
    demand(not strangers, "snapshot.payees", f"{strangers[:1]} revealed no rows in this datanet")
    revealed = sum(datanet.rows[payee] for payee in weights)
    demand(body["rows"] <= revealed, "snapshot.rows", f"{body['rows']} rows, its contributors revealed {revealed}")
    datanet.version = expected
    state.snapshots[event.id] = Snapshot(body["datanet"], weights)


def train_run(state: State, event: Event) -> None:
    body = event.body
    weights: Counter[str] = Counter()
    for name in body["snapshots"]:
        if name not in state.snapshots:
            raise Refusal("run.snapshot", f"no snapshot {name!r} was logged before")
        weights.update(state.snapshots[name].weights)
    demand(
        ("tolerance" in body) == (body["determinism"] == "tolerance"),
        "run.determinism",
        "the class tolerance needs a tolerance, the class bit-exact has none",
    )
    state.runs[event.id] = Run(body["adapter"], body["base"], dict(weights))


def publish_adapter(state: State, event: Event) -> None:
    body = event.body
    run = state.runs.get(body["run"])
    if run is None:
        raise Refusal("adapter.run", f"no training run {body['run']!r} was logged before")
    demand(run.adapter == body["adapter"], "adapter.run", f"run {body['run']!r} produced another adapter")
    demand(run.base == body["base"], "adapter.base", f"run {body['run']!r} started from another base")
    demand(body["adapter"] not in state.adapters, "adapter.once", f"adapter {body['adapter']} is already published")
    for parent in body["parents"]:
        demand(parent in state.published, "adapter.parent", f"parent {parent!r} is no published adapter")
    state.adapters[body["adapter"]] = Adapter(run.base, run.weights)
    state.published.add(event.id)


def method_card(state: State, event: Event) -> None:
    body = event.body
    demand(body["adapter"] in state.adapters, "card.adapter", f"adapter {body['adapter']} is not published")
    low, mean, high = (read_fraction(body["agreement"][name]) for name in ("low", "mean", "high"))
    demand(low <= mean <= high, "card.agreement", "agreement must satisfy low <= mean <= high")
    state.cards[event.id] = Card(body["adapter"], body["spec"])


def _datanet(state: State, name: str) -> Datanet:
    datanet = state.datanets.get(name)
    if datanet is None:
        raise Refusal("datanet", f"no datanet {name!r} was logged before")
    return datanet
