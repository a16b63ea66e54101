"""Whether the values of a configuration have the types of the fields that they are for, said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from poa.errors import PoaError

WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


def check_types(kind: Any, given: Mapping[str, Any], where: str) -> None:
    """Raise `PoaError` naming the first option `where`.NAME whose value its field of the dataclass `kind` cannot take.

    Fields of other types than plain ones (and lists of them) are left to the dataclass itself.
    """
    if not is_dataclass(kind):
        return
    try:
        hints = get_type_hints(kind)
    except NameError:  # a type that is imported for type checkers alone
        return
    for field in fields(kind):
        if field.name in given and not _fits(given[field.name], hints[field.name]):
            raise PoaError(f"{where}.{field.name} is {given[field.name]!r}, must be {_said(hints[field.name])}")


def _fits(value: Any, kind: Any) -> bool:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        each = inside[:1] * len(value) if len(inside) == 2 and inside[1] is Ellipsis else inside
        return len(each) == len(value) and all(_fits(one, kind) for one, kind in zip(value, each, strict=True))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in WORDS else True


def _said(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_said(one) for one in inside)
    if origin is tuple:
        named = _said(inside[0]).removeprefix("a ").removeprefix("an ")
        return f"a list of {len(inside)} of {named}" if Ellipsis not in inside else f"a list of {named}s"
    if origin is Literal:
        return " or ".join(map(str, inside))
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))
