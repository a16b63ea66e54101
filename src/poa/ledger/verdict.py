"""What a verification found: verified, proven wrong with the first bad entry, or undecidable."""

from __future__ import annotations

from dataclasses import dataclass

from poa.ledger.events import Event
from poa.ledger.refusal import Refusal, Undecided

VERIFIED, WRONG, USAGE, UNDECIDED = 0, 1, 2, 3


@dataclass(frozen=True)
class Verdict:
    """Result of a verification.

    code (exit code): 0 verified, 1 proven wrong, 2 wrong use, 3 cannot decide. seq: the first bad entry, None where
    no single entry is to blame. rule: short name of the broken rule. size, root (hex): the tree that was re-derived,
    so far as it went. totals: micro-credits per kind of account. event: what a receipt's proof proved; show nothing
    that is not read from it.
    """

    ok: bool
    code: int
    seq: int | None
    rule: str
    message: str
    size: int = 0
    root: str = ""
    totals: tuple[tuple[str, int], ...] = ()
    event: Event | None = None


class Finding(Exception):
    """A broken rule together with the entry that broke it."""

    def __init__(self, seq: int | None, refusal: Refusal, where: str = "") -> None:
        super().__init__(refusal.reason)
        self.seq = seq
        self.refusal = refusal
        self.where = where or (f"entry {seq}" if seq is not None else "")

    def verdict(self, size: int = 0, root: str = "") -> Verdict:
        """The verdict that follows: cannot decide for `Undecided`, proven wrong for everything else."""
        code = UNDECIDED if isinstance(self.refusal, Undecided) else WRONG
        message = f"{self.where}: {self.refusal.reason}" if self.where else self.refusal.reason
        return Verdict(False, code, self.seq, self.refusal.rule, message, size, root)


def wrong_use(message: str) -> Verdict:
    """The verdict on a question that was not put properly: no such file, a malformed key."""
    return Verdict(False, USAGE, None, "usage", message)
