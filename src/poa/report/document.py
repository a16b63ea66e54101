"""Node: a place in the report's JSON document; wrong values are refused with their path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poa.errors import PoaError


@dataclass(frozen=True)
class Node:
    """A JSON object inside the document and the path that leads to it.

    Reading a key that is absent or null gives None (or an empty collection); reading one of the wrong type raises
    `PoaError` that names the path and the type that would be right.
    """

    value: Mapping[str, Any]
    path: str = ""

    def part(self, key: str) -> Node | None:
        """The object under `key`."""
        found = self.value.get(key)
        return None if found is None else Node(_mapping(found, self._at(key)), self._at(key))

    def parts(self, key: str) -> dict[str, Node]:
        """The objects under `key`, by name."""
        whole = self.part(key)
        return {} if whole is None else {name: Node(_mapping(whole.value[name], at), at) for name, at in whole.places()}

    def rows(self, key: str) -> list[Node]:
        """The list of objects under `key`."""
        items = self.items(key)
        return [Node(_mapping(item, f"{self._at(key)}[{i}]"), f"{self._at(key)}[{i}]") for i, item in enumerate(items)]

    def listed(self, key: str) -> dict[str, list[Node]]:
        """Lists of objects by name: `{name: [{...}, ...]}`."""
        whole = self.part(key)
        return {} if whole is None else {name: whole.rows(name) for name, _ in whole.places()}

    def items(self, key: str) -> Sequence[Any]:
        """The list under `key`, whatever its members are."""
        found = self.value.get(key)
        if found is None:
            return ()
        if isinstance(found, str) or not isinstance(found, Sequence):
            raise _wrong(self._at(key), "a list", found)
        return found

    def text(self, key: str, otherwise: str = "") -> str:
        """A string; integers are accepted as names."""
        found = self.value.get(key)
        return otherwise if found is None else _text(found, self._at(key))

    def texts(self, key: str) -> list[str]:
        return [_text(item, f"{self._at(key)}[{i}]") for i, item in enumerate(self.items(key))]

    def number(self, key: str) -> float | None:
        """A finite number."""
        found = self.value.get(key)
        return None if found is None else _number(found, self._at(key))

    def numbers(self, key: str) -> dict[str, float]:
        """Finite numbers by name; names with null are left out."""
        whole = self.part(key)
        if whole is None:
            return {}
        return {name: _number(whole.value[name], at) for name, at in whole.places() if whole.value[name] is not None}

    def vector(self, key: str) -> list[float]:
        """A list of finite numbers."""
        return [_number(item, f"{self._at(key)}[{i}]") for i, item in enumerate(self.items(key))]

    def pairs(self, key: str) -> list[tuple[float, float]]:
        """A list of pairs of finite numbers."""
        out: list[tuple[float, float]] = []
        for i, item in enumerate(self.items(key)):
            at = f"{self._at(key)}[{i}]"
            if isinstance(item, str) or not isinstance(item, Sequence) or len(item) != 2:
                raise _wrong(at, "a pair of numbers", item)
            out.append((_number(item[0], at), _number(item[1], at)))
        return out

    def integer(self, key: str) -> int | None:
        """A whole number."""
        found = self.value.get(key)
        return None if found is None else _integer(found, self._at(key))

    def size(self, key: str) -> int | None:
        """A whole number, or the length of the list that stands in its place."""
        found = self.value.get(key)
        if isinstance(found, Sequence) and not isinstance(found, str):
            return len(found)
        return self.integer(key)

    def amounts(self, key: str) -> dict[str, int]:
        """Integer money by name, none negative."""
        whole = self.part(key)
        return {} if whole is None else {name: _amount(whole.value[name], at) for name, at in whole.places()}

    def amount(self, key: str) -> int | None:
        """Integer money, not negative."""
        found = self.value.get(key)
        return None if found is None else _amount(found, self._at(key))

    def flag(self, key: str) -> bool | None:
        found = self.value.get(key)
        if found is not None and not isinstance(found, bool):
            raise _wrong(self._at(key), "true or false", found)
        return found

    def places(self) -> list[tuple[str, str]]:
        """(key, path) of every member, in document order."""
        return [(name, self._at(name)) for name in self.value]

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _wrong(path: str, wanted: str, found: object) -> PoaError:
    shown = repr(found)
    return PoaError(f"report document: {path} must be {wanted}, not {shown[:60]}{'…' if len(shown) > 60 else ''}")


def _mapping(found: object, path: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise _wrong(path, "an object with string keys", found)
    return found


def _text(found: object, path: str) -> str:
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise _wrong(path, "a string", found)
    return str(found)


def _number(found: object, path: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise _wrong(path, "a finite number", found)
    return float(found)


def _integer(found: object, path: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise _wrong(path, "a whole number", found)
    return found


def _amount(found: object, path: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise _wrong(path, "a whole number of 0 or more (money is integers)", found)
    return found
