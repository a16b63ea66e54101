"""Forms: small checkers of which the required shape of an event body is put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias, cast

from poa.ledger.encoding import read_amount, read_fraction
from poa.ledger.refusal import Refusal, demand

# A form raises Refusal naming `where` if `value` does not have the shape.
Form: TypeAlias = Callable[[Any, str], None]

_HEX32 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_TOKEN = re.compile(r"[a-z0-9][a-z0-9_./+-]{0,99}")
_LABEL = re.compile(r"[a-zA-Z0-9._ /-]{1,100}")


def matching(pattern: re.Pattern[str], what: str) -> Form:
    """A string that `pattern` matches whole."""

    def check(value: Any, where: str) -> None:
        demand(isinstance(value, str) and bool(pattern.fullmatch(value)), "body", f"{where} must be {what}")

    return check


digest = matching(_HEX32, "64 lowercase hex digits")
event_id = matching(_ID, "an event id: 1-64 of A-Z a-z 0-9 _ . : -")
token = matching(_TOKEN, "1-100 of a-z 0-9 _ . / + -")
label = matching(_LABEL, "1-100 of a-z A-Z 0-9 . _ / - and space")
text = matching(re.compile(r".{1,500}"), "a string of 1-500 characters")
record_id = matching(re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}"), "a record id")


def count(least: int = 0) -> Form:
    """An integer of at least `least`."""

    def check(value: Any, where: str) -> None:
        demand(type(value) is int and value >= least, "body", f"{where} must be an integer of at least {least}")

    return check


def money(least: int = 0) -> Form:
    """An amount string in micro-credits of at least `least`."""

    def check(value: Any, where: str) -> None:
        demand(_reads(read_amount, value, where) >= least, "body", f"{where} must be at least {least} micro-credits")

    return check


def share(least: int | None = None, *, zero: bool = True) -> Form:
    """A fraction string in units of 1e-9, at least `least` where given, not 0 where `zero` is False."""

    def check(value: Any, where: str) -> None:
        number = _reads(read_fraction, value, where)
        demand(least is None or number >= least, "body", f"{where} must be at least {least}")
        demand(zero or number != 0, "body", f"{where} is 0; leave the row out")

    return check


def one_of(*words: str) -> Form:
    def check(value: Any, where: str) -> None:
        demand(isinstance(value, str) and value in words, "body", f"{where} must be one of {', '.join(words)}")

    return check


def anything(value: Any, where: str) -> None:
    """An object whose inside another rule judges."""
    demand(isinstance(value, dict), "body", f"{where} must be an object")


def record(fields: Mapping[str, Form]) -> Form:
    """An object with exactly `fields`; a name that ends in ? may be absent."""
    required = {name for name in fields if not name.endswith("?")}
    forms = {name.rstrip("?"): form for name, form in fields.items()}

    def check(value: Any, where: str) -> None:
        demand(isinstance(value, dict), "body", f"{where} must be an object")
        for name in sorted(required - set(value)):
            raise Refusal("body", f"{where} lacks {name}")
        for name, member in value.items():
            demand(name in forms, "body", f"{where} has the unknown field {name}")
            forms[name](member, f"{where}.{name}")

    return check


def rows(form: Form, key: str | None = None, *, least: int = 0, most: int = 10_000) -> Form:
    """An array of `form`, strictly ascending in the ASCII bytes of its members or of their field `key`."""

    def check(value: Any, where: str) -> None:
        demand(isinstance(value, list), "body", f"{where} must be an array")
        members = cast("list[Any]", value)
        demand(least <= len(members) <= most, "body", f"{where} must have {least} to {most} members")
        for index, member in enumerate(members):
            form(member, f"{where}[{index}]")
        names = members if key is None else [member[key] for member in members]
        for first, second in pairwise(names):
            demand(first < second, "body", f"{where} must be sorted, each once; {second!r} follows {first!r}")

    return check


def _reads(reader: Callable[[object], int], value: Any, where: str) -> int:
    try:
        return reader(value)
    except Refusal as refusal:
        raise Refusal("body", f"{where}: {refusal.reason}") from refusal
