"""Policy: how a fee is divided, as versioned plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.rewards.apportion import integer

Rule = Literal["net-epoch/1", "openledger-printed/1"]
RULES: tuple[str, ...] = get_args(Rule)
DENOMINATOR = 1_000_000
CONTRIBUTORS = "contributors"

# The largest integer that every JSON reader keeps exactly; a policy is published inside a ledger event.
_SAFE = 2**53 - 1
_ID = re.compile(r"[a-z][a-z0-9-]{0,99}")
_PART = re.compile(r"[a-z][a-z0-9_]{0,99}")
_PRESETS: dict[str, dict[str, Any]] = {
    "net-epoch": {"rule": "net-epoch/1", "z2": (4, 1), "payable": True},
    "openledger-printed": {"rule": "openledger-printed/1", "z2": (0, 1), "payable": False},
}


@dataclass(frozen=True)
class Policy:
    """How fees are divided. A policy never changes: a change is a new `version`.

    parts: (name, share of 1,000,000), ids ascending, shares adding up to 1,000,000, "contributors" among them.
    licence_share: millionths of the contributors' part paid flat over the manifest's clusters, whatever the scores.
    z2: squared z-value as (numerator, denominator) that a payee's net must exceed; (0, 1) turns the gate off.
    minimum_payout: micro-credits below which earned money stays on the payee's account; it is applied where accounts
    are released, never by `settle`, so that nothing earned is lost. payable: whether real money may follow this
    policy; a policy for comparison only says False, and the printed rule can say nothing else.
    Raises `PoaError` naming the field that is wrong.
    """

    id: str
    version: int
    rule: Rule
    parts: tuple[tuple[str, int], ...]
    licence_share: int = 0
    z2: tuple[int, int] = (4, 1)
    minimum_payout: int = 0
    payable: bool = False

    def __post_init__(self) -> None:
        if not _ID.fullmatch(str(self.id)):
            raise PoaError(f"policy id {self.id!r} must be a-z, 0-9 and - starting with a letter")
        if self.rule not in RULES:
            raise PoaError(f"policy {self.id!r}: unknown rule {self.rule!r}{_nearest(str(self.rule), RULES)}")
        # Hydra builds lists where the type says tuple; repr, hash and equality need tuples.
        object.__setattr__(self, "parts", _parts(self.id, self.parts))
        object.__setattr__(self, "z2", _ratio(self.id, self.z2))
        integer(self.version, f"version of policy {self.id!r}", 1, _SAFE)
        integer(self.licence_share, f"licence_share of policy {self.id!r}", 0, DENOMINATOR)
        integer(self.minimum_payout, f"minimum_payout of policy {self.id!r}", 0, _SAFE)
        if type(cast(object, self.payable)) is not bool:
            raise PoaError(f"payable of policy {self.id!r} is {self.payable!r}, must be true or false")
        if self.payable and self.rule == "openledger-printed/1":
            raise PoaError(f"policy {self.id!r}: rule openledger-printed/1 is for comparison, payable must be false")

    @staticmethod
    def preset(name: str) -> Policy:
        """ "net-epoch" (10/20/20/50, payable) or "openledger-printed" (the same parts, for comparison only)."""
        if name not in _PRESETS:
            raise PoaError(f"unknown policy {name!r}{_nearest(name, tuple(_PRESETS))}")
        parts = ((CONTRIBUTORS, 500_000), ("model", 200_000), ("platform", 100_000), ("stakers", 200_000))
        return Policy(id=name, version=1, parts=parts, **_PRESETS[name])

    def to_json(self) -> dict[str, Any]:
        """Plain data for a ledger event: strings, integers, booleans, arrays, objects; no float, no null."""
        return {
            "id": self.id,
            "version": self.version,
            "rule": self.rule,
            "parts": [{"id": name, "ppm": share} for name, share in self.parts],
            "licence_share": self.licence_share,
            "z2": list(self.z2),
            "minimum_payout": self.minimum_payout,
            "payable": self.payable,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Policy:
        """What `to_json` wrote; raises `PoaError` naming the first missing, unknown or wrong field."""
        names = tuple(field.name for field in fields(Policy))
        for name in data:
            if name not in names:
                raise PoaError(f"policy has no field {name!r}{_nearest(name, names)}")
        for name in names:
            if name not in data:
                raise PoaError(f"policy lacks the field {name!r}")
        rows = data["parts"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) == {"id", "ppm"} for row in rows):
            raise PoaError('parts of a policy must be a list of {"id": name, "ppm": millionths}')
        values: dict[str, Any] = dict(data)
        values["parts"] = tuple((row["id"], row["ppm"]) for row in rows)
        return Policy(**values)

    @property
    def digest(self) -> str:
        """SHA-256 of the plain data: equal digests are equal policies."""
        return plain_digest(self.to_json())


def _parts(policy: str, value: object) -> tuple[tuple[str, int], ...]:
    parts: list[tuple[str, int]] = []
    for row in _sequence(value):
        pair = _sequence(row)
        if len(pair) != 2 or not isinstance(pair[0], str) or not _PART.fullmatch(pair[0]):
            raise PoaError(f"policy {policy!r}: part {row!r} must be (name of a-z, 0-9 and _, millionths)")
        parts.append((pair[0], integer(pair[1], f"part {pair[0]!r} of policy {policy!r}", 0, DENOMINATOR)))
    names = [name for name, _ in parts]
    if names != sorted(set(names)):
        raise PoaError(f"policy {policy!r}: parts must be sorted by name, each name once; they are {names}")
    if CONTRIBUTORS not in names:
        raise PoaError(f"policy {policy!r}: parts must include {CONTRIBUTORS!r}; they are {names}")
    if (total := sum(share for _, share in parts)) != DENOMINATOR:
        raise PoaError(f"policy {policy!r}: parts add up to {total}, must be {DENOMINATOR}")
    return tuple(parts)


def _ratio(policy: str, value: object) -> tuple[int, int]:
    pair = _sequence(value)
    if len(pair) != 2:
        raise PoaError(f"z2 of policy {policy!r} is {value!r}, must be two integers (numerator, denominator)")
    above = integer(pair[0], f"numerator of z2 of policy {policy!r}", 0, _SAFE)
    return above, integer(pair[1], f"denominator of z2 of policy {policy!r}", 1, _SAFE)


def _sequence(value: object) -> Sequence[object]:
    return cast(Sequence[object], value) if isinstance(value, list | tuple) else ()


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1, 0.0)
    return f"; did you mean {close[0]!r}?" if close else ""
