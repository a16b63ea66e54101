"""Canonical JSON against an independent RFC 8785 library, its public vectors, and damaged bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from poa.ledger.encoding import (
    MAX_AMOUNT,
    MAX_BYTES,
    MAX_INTEGER,
    amount,
    canonical,
    fraction,
    parse,
    read_amount,
    read_fraction,
)
from poa.ledger.refusal import Refusal

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.booleans() | st.integers(0, MAX_INTEGER) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(VALUES)
def test_equals_rfc8785_inside_the_domain(value: Any) -> None:
    data = canonical(value)
    assert data == rfc8785.dumps(value)
    assert parse(data) == value


@given(VALUES, st.data())
def test_one_changed_byte_is_refused_or_another_value(value: Any, data: st.DataObject) -> None:
    raw = canonical(value)
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    try:
        read = parse(changed)
    except Refusal:
        return
    assert canonical(read) == changed
    assert changed != raw


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "NoneType"),
        (1.0, "float"),
        (-1, "integers"),
        (2**53, "integers"),
        ({"A": 1}, "keys"),
        ({"": 1}, "keys"),
        ({"1a": 1}, "keys"),
        ({"a-b": 1}, "keys"),
        ({1: 1}, "keys"),
        ({"__proto__": 1}, "keys"),
        ("a\nb", "U\\+000A"),
        ("\x7f", "U\\+007F"),
        ("\x80", "U\\+0080"),
        ("\ud800", "U\\+D800"),
        ((1, 2), "tuple"),
        (b"x", "bytes"),
        ("x" * MAX_BYTES, "bytes, at most"),
    ],
)
def test_outside_the_domain_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        canonical({"a": [value]})


def test_the_message_names_the_place() -> None:
    with pytest.raises(Refusal, match=r"\$\.a\[1\]\.b is -3"):
        canonical({"a": [1, {"b": -3}]})


def test_depth_limit_is_exact() -> None:
    value: Any = []
    for _ in range(11):
        value = [value]
    assert parse(canonical(value)) == value
    with pytest.raises(Refusal, match="deeper than 12"):
        canonical([value])


def test_size_limit_is_exact() -> None:
    assert len(canonical("x" * (MAX_BYTES - 2))) == MAX_BYTES
    with pytest.raises(Refusal, match="60001 bytes"):
        canonical("x" * (MAX_BYTES - 1))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":null}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b"",
        b"[" * 50_000,
        b"9" * 50_000,
        b"[" * 70_000,
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(data)
    assert refusal.value.rule == "encoding"


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in _leaves(member)]
    if isinstance(value, list):
        return [leaf for member in value for leaf in _leaves(member)]
    return [value]


def test_published_vectors(vectors: Path) -> None:
    """Every published document lies outside the restricted domain as a whole; its admissible parts must agree."""
    compared = 0
    for source in sorted((vectors / "jcs" / "input").glob("*.json")):
        document = json.loads(source.read_text("utf-8"))
        output = (vectors / "jcs" / "output" / source.name).read_bytes()
        assert rfc8785.dumps(document) == output
        with pytest.raises(Refusal):
            parse(output)
        for leaf in _leaves(document):
            try:
                data = canonical({"a": leaf})
            except Refusal:
                continue
            compared += 1
            assert data == rfc8785.dumps({"a": leaf})
            assert data[5:-1] in output
    assert compared >= 15


@given(st.integers(0, MAX_AMOUNT))
def test_amounts_come_back(value: int) -> None:
    assert read_amount(amount(value)) == value


@pytest.mark.parametrize("value", ["-1", "01", "", "1.0", "+1", "1 ", str(2**63), "1e3", "١", 1, None, "9" * 20])
def test_bad_amounts(value: Any) -> None:
    with pytest.raises(Refusal):
        read_amount(value)


@pytest.mark.parametrize("value", [-1, 2**63, True, 1.0])
def test_amounts_out_of_range(value: Any) -> None:
    with pytest.raises(Refusal):
        amount(value)


@given(st.integers(-(10**19) + 1, 10**19 - 1))
def test_fractions_come_back(value: int) -> None:
    assert read_fraction(fraction(value)) == value


@pytest.mark.parametrize("value", ["-0", "00", "-01", "+1", "1.5", "", "1" * 20, 3])
def test_bad_fractions(value: Any) -> None:
    with pytest.raises(Refusal):
        read_fraction(value)
