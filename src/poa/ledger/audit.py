"""The audit that every verification shares: entries in order, against the tree, the rules and signed heads."""

from __future__ import annotations

from poa.errors import PoaError
from poa.ledger import replay
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.events import Event
from poa.ledger.merkle import Frontier, leaf_hash
from poa.ledger.money import Transfer
from poa.ledger.note import Verifier
from poa.ledger.refusal import Refusal, Undecided, demand
from poa.ledger.state import State
from poa.ledger.verdict import VERIFIED, Finding, Verdict
from poa.rewards.policy import Policy


def remembered_head(note: str | None, verifier: Verifier | None) -> Checkpoint | None:
    """A checkpoint seen earlier, from its note; raises `PoaError` without the key or on a bad signature."""
    if note is None:
        return None
    if verifier is None:
        raise PoaError("a remembered checkpoint needs the log's verifier key (vkey) beside it")
    return Checkpoint.open(note, verifier)


class Audit:
    """Feed entries with `take` and signed heads with `head`; both raise `Finding` at the first that is wrong.

    An entry that this program cannot judge is kept in `undecided`: from there on only the tree is followed, because
    a broken tree would be a proof of wrong.
    """

    def __init__(self, verifier: Verifier, policy: Policy | None = None, remembered: Checkpoint | None = None) -> None:
        self.verifier = verifier
        self.policy = policy
        self.remembered = remembered
        self.state = State(verifier.name)
        self.frontier = Frontier()
        self.undecided: Finding | None = None
        self.settled: dict[int, int] = {}
        self._signed = 0
        self._check_remembered()

    @property
    def size(self) -> int:
        return self.frontier.size

    def take(self, raw: bytes, leaf: bytes) -> tuple[Event, tuple[Transfer, ...]] | None:
        """Judge the next entry, whose stored leaf hash is `leaf`; None from the first undecidable entry on."""
        seq = self.size
        where = f"entry {seq}"
        judged = None
        try:
            demand(leaf_hash(raw) == leaf, "leaf", "the stored leaf hash is not the hash of the stored bytes")
            if self.undecided is None:
                event = Event.parse(raw)
                where = f"entry {seq} ({event.type} {event.id})"
                judged = event, self._apply(event)
        except Undecided as refusal:
            self.undecided = Finding(seq, refusal, where)
        except Refusal as refusal:
            raise Finding(seq, refusal, where) from refusal
        self.frontier = self.frontier.append([leaf])
        self._check_remembered()
        return judged

    def head(self, note: str, size: int, peaks: bytes | None = None) -> Checkpoint:
        """Hold a checkpoint, stored as one of `size`, and its stored frontier against the tree so far."""
        where = f"checkpoint of size {size}"
        blamed = size - 1 if size else None
        try:
            checkpoint = Checkpoint.open(note, self.verifier)
            demand(checkpoint.size == size, "checkpoint", f"the signed size is {checkpoint.size}")
        except Refusal as refusal:
            raise Finding(blamed, refusal, where) from refusal
        if checkpoint.root != self.frontier.root:
            reason = f"the signed root is not the root of the entries; one of {self._signed} to {size - 1} was changed"
            raise Finding(self._suspect() if size else None, Refusal("root", reason), where)
        if peaks is not None and peaks != self.frontier.to_bytes():
            raise Finding(blamed, Refusal("frontier", "the stored frontier is not the one of the entries"), where)
        self._signed = size
        return checkpoint

    def verdict(self, known_key: bool = True) -> Verdict:
        """The verdict once everything was taken: verified, or what could not be decided or was forgotten.

        known_key: whether the log's key came from the asker; otherwise the message says that it did not.
        """
        root = self.frontier.root.hex()
        if self.remembered is not None and self.size < self.remembered.size:
            reason = f"the log has {self.size} entries, a checkpoint of {self.remembered.size} is remembered"
            return Finding(self.size, Refusal("rollback", reason), "log").verdict(self.size, root)
        if self.undecided is not None:
            return self.undecided.verdict(self.size, root)
        settled = len(self.settled)
        message = f"{self.size} entries verified, {settled} {'epoch' if settled == 1 else 'epochs'} settled"
        message += "" if known_key else "; whose log it is was not checked (no verifier key was given)"
        return Verdict(True, VERIFIED, None, "", message, self.size, root, self.state.balances.by_kind())

    def _apply(self, event: Event) -> tuple[Transfer, ...]:
        seq = self.size
        if event.type == "inference.receipt" and self.policy is not None:
            named = event.body["policy"]
            logged = self.state.policies.get((named["id"], named["version"]))
            demand(logged == self.policy, "policy.expected", "the receipt is not under the policy that was given")
        transfers = replay.apply(self.state, event)
        if event.type == "epoch.settle":
            self.settled[event.body["epoch"]] = seq
        return transfers

    def _suspect(self) -> int:
        """Whom to name where an entry since the last good head is wrong: one that makes no sense, or the first."""
        strange = self.undecided.seq if self.undecided is not None else None
        return strange if strange is not None and strange >= self._signed else self._signed

    def _check_remembered(self) -> None:
        known = self.remembered
        if known is not None and known.size == self.size and known.root != self.frontier.root:
            reason = f"the remembered checkpoint of size {known.size} has another root: an entry before it was changed"
            raise Finding(max(0, known.size - 1), Refusal("fork", reason), "log")
