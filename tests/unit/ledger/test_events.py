"""The envelope: what is signed, what is refused, and that every body field is demanded."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.ledger import ActorKey, Author, Event, journal
from poa.ledger.bodies import BODIES
from poa.ledger.encoding import canonical
from poa.ledger.events import event_bytes, signing_bytes
from poa.ledger.refusal import Refusal, Undecided

KEY = ActorKey.simulated("somebody")
AUTHOR = Author(KEY, "poa.example/poa/test", ts=5)


def signed(**changes: Any) -> bytes:
    """A registration with changed or (None) missing envelope fields, signed as it is then."""
    envelope: dict[str, Any] = {
        "v": 1,
        "type": "actor.register",
        "id": "event-1",
        "log": AUTHOR.log,
        "actor": KEY.id,
        "ts": 5,
        "body": {"key": KEY.public.hex(), "next": KEY.successor.id, "roles": ["payer"]},
    }
    envelope = {name: value for name, value in (envelope | changes).items() if value is not None}
    return event_bytes(envelope, KEY.public, KEY.sign(signing_bytes(envelope)))


def test_an_event_says_what_its_bytes_say() -> None:
    event = Event.parse(signed())
    assert (event.type, event.id, event.log, event.actor, event.ts) == (
        "actor.register",
        "event-1",
        AUTHOR.log,
        KEY.id,
        5,
    )
    assert event.actor == hashlib.sha256(event.key).hexdigest()
    assert event.raw == canonical(json.loads(event.raw))


def test_the_signature_covers_the_context_line() -> None:
    event = Event.parse(signed())
    unsigned = {name: value for name, value in json.loads(event.raw).items() if name != "auth"}
    assert signing_bytes(unsigned) == b"poa/event/v1\n" + canonical(unsigned)
    with pytest.raises(Refusal, match="does not verify"):
        Event.parse(event_bytes(unsigned, KEY.public, KEY.sign(canonical(unsigned))))


def test_ids_follow_from_the_content() -> None:
    first, again = journal.register(AUTHOR, ["payer"]), journal.register(AUTHOR, ["payer"])
    assert first == again
    assert journal.register(AUTHOR, ["payer"], "label").id != first.id
    assert journal.register(Author(KEY, AUTHOR.log, ts=6), ["payer"]).id != first.id


@pytest.mark.parametrize("version", [2, 0, 99])
def test_another_version_cannot_be_decided(version: int) -> None:
    with pytest.raises(Undecided) as refusal:
        Event.parse(signed(v=version))
    assert refusal.value.rule == "version"


@pytest.mark.parametrize("kind", ["actor.key", "gov.vote", "x"])
def test_an_unknown_type_cannot_be_decided(kind: str) -> None:
    with pytest.raises(Undecided) as refusal:
        Event.parse(signed(type=kind))
    assert refusal.value.rule == "type"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"v": True}, "envelope"),
        ({"v": "1"}, "envelope"),
        ({"id": "no spaces"}, "envelope"),
        ({"id": "x" * 65}, "envelope"),
        ({"actor": "AB" * 32}, "envelope"),
        ({"actor": "ab"}, "envelope"),
        ({"ts": "5"}, "envelope"),
        ({"log": ""}, "envelope"),
        ({"body": []}, "envelope"),
        ({"extra": 1}, "envelope"),
        ({"ts": None}, "envelope"),
        ({"body": None}, "envelope"),
        ({"body": {"key": "00"}}, "body"),
    ],
)
def test_malformed_envelopes(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(Refusal) as refusal:
        Event.parse(signed(**changes))
    assert refusal.value.rule == rule


@pytest.mark.parametrize("data", [b"[]", b'"text"', b"1", b"{}", b'{"v":1}'])
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        Event.parse(data)


@given(st.data())
@settings(max_examples=300)
def test_one_changed_byte_of_an_event_is_refused(data: st.DataObject) -> None:
    raw = signed()
    at = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(Refusal):
        Event.parse(raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :])


def test_a_foreign_signature_is_refused() -> None:
    event = Event.parse(signed())
    unsigned = {name: value for name, value in json.loads(event.raw).items() if name != "auth"}
    other = ActorKey.simulated("other")
    with pytest.raises(Refusal, match="does not verify"):
        Event.parse(event_bytes(unsigned, KEY.public, other.sign(signing_bytes(unsigned))))


def test_every_body_field_is_demanded_and_no_other_allowed(written: Any) -> None:
    """Each event of a real route, once without each of its fields and once with a field too many."""
    optional = {"label", "tolerance", "evaluation", "bytes", "bias", "coverage", "card"}
    kinds: set[str] = set()
    for event in written.events.values():
        kinds.add(event.type)
        body = dict(event.body)
        BODIES[event.type](body, event.type)
        with pytest.raises(Refusal, match="unknown field surprise"):
            BODIES[event.type](body | {"surprise": 1}, event.type)
        for name in set(body) - optional:
            with pytest.raises(Refusal, match=f"lacks {name}"):
                BODIES[event.type]({n: v for n, v in body.items() if n != name}, event.type)
    assert kinds == set(BODIES)


def test_no_body_field_takes_another_kind_of_value(written: Any) -> None:
    for event in written.events.values():
        for name in event.body:
            for wrong in (None, -1, 1.5, [[]], [None], {"x": None}, "\x00"):
                with pytest.raises(Refusal):
                    AUTHOR.write(event.type, {**event.body, name: wrong})


@pytest.mark.parametrize("name", ["clusters", "payees", "scores", "parts", "totals", "snapshots", "roles"])
def test_arrays_must_be_sorted_and_unique(written: Any, name: str) -> None:
    event = next(event for event in written.events.values() if event.body.get(name))
    rows = list(event.body[name])
    with pytest.raises(Refusal, match="must be sorted, each once"):
        BODIES[event.type]({**event.body, name: [*rows, rows[-1]]}, event.type)
    if len(rows) > 1:
        with pytest.raises(Refusal, match="must be sorted, each once"):
            BODIES[event.type]({**event.body, name: rows[::-1]}, event.type)


def test_a_receipt_holds_at_most_512_payees(written: Any) -> None:
    event = written.events["receipt 0"]
    payees = [{"id": hashlib.sha256(bytes([n % 256, n // 256])).hexdigest(), "fraction": "1"} for n in range(513)]
    payees.sort(key=lambda row: row["id"])
    BODIES[event.type]({**event.body, "payees": payees[:512]}, event.type)
    with pytest.raises(Refusal, match="0 to 512 members"):
        BODIES[event.type]({**event.body, "payees": payees}, event.type)
    with pytest.raises(Refusal, match="leave the row out"):
        BODIES[event.type]({**event.body, "payees": [payees[0] | {"fraction": "0"}]}, event.type)
