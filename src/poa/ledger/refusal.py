"""Why the ledger refuses something: the name of the broken rule and one sentence."""

from __future__ import annotations

from poa.errors import PoaError


class Refusal(PoaError):
    """A rule of the ledger is broken; `rule` is its short stable name, `reason` says what would be right."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"{reason} [rule {rule}]")
        self.rule = rule
        self.reason = reason


class Undecided(Refusal):
    """This program cannot judge the entry (unknown version or event type, missing tile): neither right nor wrong."""


def demand(condition: bool, rule: str, reason: str) -> None:
    """Raises `Refusal(rule, reason)` unless `condition` holds."""
    if not condition:
        raise Refusal(rule, reason)
