"""Canonical JSON: RFC 8785 over a restricted domain, so that a value has exactly one byte string."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from poa.ledger.refusal import Refusal

MAX_INTEGER = 2**53 - 1
MAX_AMOUNT = 2**63 - 1
MAX_DEPTH = 12
# Entry bundles give an entry a 16-bit length; the rest is room for an envelope around it.
MAX_BYTES = 60_000

_KEY = re.compile(r"[a-z][a-z0-9_]*")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,18}")
_FRACTION = re.compile(r"0|-?[1-9][0-9]{0,18}")
# C0, DEL and C1 controls; lone surrogates, which have no UTF-8 form.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def canonical(value: object) -> bytes:
    """The one byte string of `value`, at most 60,000 bytes.

    Domain: objects with keys [a-z][a-z0-9_]*, arrays, strings without control characters or lone surrogates, integers
    0 to 2^53-1, booleans; depth at most 12, an outermost object being 1. Raises `Refusal` naming the place of
    anything else (null, floats and negative numbers among it). Source: RFC 8785, section 3.2; inside this domain
    `json.dumps` with sorted keys equals it, because ASCII keys sort alike as code points and as UTF-16.
    """
    _check(value, "$", 1)
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if len(data) > MAX_BYTES:
        raise Refusal("encoding", f"an entry has {len(data)} bytes, at most {MAX_BYTES} are possible")
    return data


def parse(data: bytes) -> Any:
    """The value whose canonical form is exactly `data`; raises `Refusal` otherwise.

    Re-encoding and comparing catches duplicate keys, spaces, floats and unusual escapes in one step.
    """
    if len(data) > MAX_BYTES:
        raise Refusal("encoding", f"an entry has {len(data)} bytes, at most {MAX_BYTES} are possible")
    try:
        value = json.loads(data.decode(), parse_float=_refuse_number, parse_constant=_refuse_number)
    except (ValueError, RecursionError) as error:
        raise Refusal("encoding", f"not canonical JSON: {error}") from error
    if canonical(value) != data:
        raise Refusal("encoding", "not canonical JSON: spaces, key order, duplicate keys or escapes differ")
    return value


def amount(value: int) -> str:
    """Micro-credits as the string that a leaf holds; raises `Refusal` outside 0 to 2^63-1."""
    if type(value) is not int or not 0 <= value <= MAX_AMOUNT:
        raise Refusal("amount", f"an amount is {value!r}, must be an integer from 0 to 2^63-1")
    return str(value)


def read_amount(text: object) -> int:
    """The integer of an amount string `0|[1-9][0-9]{0,18}` up to 2^63-1; raises `Refusal` otherwise."""
    if not isinstance(text, str) or not _AMOUNT.fullmatch(text) or int(text) > MAX_AMOUNT:
        raise Refusal("amount", f"an amount is {text!r}, must be a decimal string from 0 to 2^63-1")
    return int(text)


def fraction(value: int) -> str:
    """A signed integer in units of 1e-9 as the string that a leaf holds; at most 19 digits."""
    text = str(value)
    if type(value) is not int or not _FRACTION.fullmatch(text):
        raise Refusal("fraction", f"a fraction is {value!r}, must be an integer of at most 19 digits")
    return text


def read_fraction(text: object) -> int:
    """The integer (units of 1e-9) of a fraction string `0|-?[1-9][0-9]{0,18}`; raises `Refusal` otherwise."""
    if not isinstance(text, str) or not _FRACTION.fullmatch(text):
        raise Refusal("fraction", f"a fraction is {text!r}, must be a decimal string in units of 1e-9")
    return int(text)


def _check(value: object, where: str, depth: int) -> None:
    if isinstance(value, str):
        if found := _FORBIDDEN.search(value):
            raise Refusal("encoding", f"{where} contains the forbidden character U+{ord(found.group()):04X}")
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not 0 <= value <= MAX_INTEGER:
            raise Refusal("encoding", f"{where} is {value}, integers must be from 0 to 2^53-1")
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise Refusal("encoding", f"{where} is nested deeper than {MAX_DEPTH} levels")
        _check_members(cast("dict[object, object] | list[object]", value), where, depth)
    else:
        kind = type(value).__name__
        raise Refusal("encoding", f"{where} is {kind}; leaves hold objects, arrays, strings, integers, booleans")


def _check_members(value: Mapping[object, object] | Sequence[object], where: str, depth: int) -> None:
    if isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise Refusal("encoding", f"{where} has the key {key!r}, keys must match [a-z][a-z0-9_]*")
            _check(member, f"{where}.{key}", depth + 1)
    else:
        for index, member in enumerate(value):
            _check(member, f"{where}[{index}]", depth + 1)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"the number {text} is not a plain integer")
