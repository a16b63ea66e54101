"""Receipts: every served answer as a signed entry of a ledger, with its trace beside it."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.files import write_atomic
from poa.ledger import ActorKey, Author, Event, Ledger, Signer, journal, seal, vector_root
from poa.rewards.credit import UNIT
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt
from poa.serving.document import Salts, Trace

LEDGER, LOG_KEY, OPERATOR_KEY, TRACES = "ledger.sqlite", "log.key", "operator.key", "traces"
_ID = re.compile(r"rcpt_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def receipt_id() -> str:
    """`rcpt_` and a UUID version 7 (RFC 9562, section 5.7): milliseconds, then 74 random bits; sorts by time."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 10**6 & (2**48 - 1)) << 80 | 7 << 76 | (random >> 62 & 0xFFF) << 64 | 2 << 62
    text = f"{value | random & (2**62 - 1):032x}"
    return f"rcpt_{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def fresh_salts() -> Salts:
    """Two secrets of 32 bytes; whoever erases them makes the receipt's commitments unreadable."""
    return Salts(os.urandom(32).hex(), os.urandom(32).hex())


@dataclass(frozen=True, eq=False)
class ReceiptBook(AbstractContextManager["ReceiptBook"]):
    """An open ledger and its keys in one folder: ledger.sqlite, log.key, operator.key (0600) and traces/.

    Use it from the thread that opened it. `written` holds the receipts by id.
    """

    folder: Path
    ledger: Ledger
    operator: ActorKey
    policy: Policy
    written: dict[str, tuple[int, Event]] = field(default_factory=dict[str, tuple[int, Event]])

    @staticmethod
    def open(folder: Path, policy: tuple[str, int] | None = None) -> ReceiptBook:
        """An existing book. Raises `PoaError` where the ledger or a key is missing or they do not belong together.

        policy: (id, version) to write receipts under; by default the one that the open epoch is under, else the newest
        payable one.
        """
        folder = ledger_folder(folder)
        if not (folder / LEDGER).is_file():
            raise PoaError(f"no ledger at {folder / LEDGER}; `--init` makes a new one")
        signer = Signer.load(folder / LOG_KEY)
        operator = ActorKey(Signer.load(folder / OPERATOR_KEY).seed)
        ledger = Ledger.open(folder / LEDGER, signer)
        try:
            state = ledger.state()
            if state.operator != operator.id:
                raise PoaError(f"{folder / OPERATOR_KEY} is not the key of the ledger's operator {state.operator[:16]}")
            named = (
                policy
                or state.epoch.policy
                or max((name for name, one in state.policies.items() if one.payable), default=("", 0))
            )
            if named not in state.policies:
                raise PoaError(f"ledger {folder / LEDGER} has no payable policy to write receipts under")
            written = {event.id: (seq, event) for seq, event in ledger.events("inference.receipt")}
            return ReceiptBook(folder, ledger, operator, state.policies[named], written)
        except BaseException:
            ledger.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    @property
    def author(self) -> Author:
        return Author(self.operator, self.ledger.origin, int(time.time()))

    def record(self, trace: Trace) -> Event:
        """Append the receipt of `trace`, which must carry a receipt id and salts; its trace is on disk before it.

        No score is paid: what the methods here say is not calibrated against retraining, so the whole response is
        `unattributed`, and the trace, bound by its digest, holds what they said. Raises `PoaError`, and then neither
        receipt nor trace stays.
        """
        statement = served(trace)
        path = self._trace_path(trace.receipt_id)
        write_atomic(path, trace.json.encode())
        try:
            event = journal.receipt(
                self.author,
                ScoredReceipt(trace.receipt_id, 0, (), 0, UNIT, 0),
                self.policy,
                payer=self.operator.id,
                served=plain_digest(statement),
                base=trace.digests.base,
                adapter=trace.digests.adapter,
                index=trace.digests.index,
                config=trace.digests.config,
                method=plain_digest([one.method for one in trace.methods]),
                card=None,
                query=statement["query"],
                output=statement["output"],
                tokens=(trace.input.n_tokens, len(trace.output.tokens)),
                scores=[],
                vector_root=vector_root([]),
                nonce=os.urandom(32).hex(),
            )
            seq = self.ledger.append([event])[0]
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.written[event.id] = (seq, event)
        return event

    def receipt(self, name: str) -> dict[str, Any] | None:
        """A receipt as plain data, or None where there is no such id."""
        if name not in self.written:
            return None
        seq, event = self.written[name]
        return {
            "receipt_id": name,
            "status": "ready",
            "seq": seq,
            "event": json.loads(event.raw),
            "log": self.ledger.verifier.vkey,
            "checkpoint": self.ledger.head().note,
        }

    def trace(self, name: str) -> bytes | None:
        """The JSON of a receipt's trace, or None where there is no such id or its texts have been erased."""
        path = self._trace_path(name) if name in self.written else None
        return path.read_bytes() if path is not None and path.is_file() else None

    def _trace_path(self, name: str) -> Path:
        if not _ID.fullmatch(name):
            raise PoaError(f"receipt id {name!r} must be rcpt_ and a UUID")
        return self.folder / TRACES / f"{name}.json"


def served(trace: Trace) -> dict[str, Any]:
    """The statement whose digest a receipt holds: anybody with the trace can write it again and compare."""
    return {
        "v": "poa.served/1",
        "receipt_id": trace.receipt_id,
        "query": seal(bytes.fromhex(trace.salts.input), trace.input.text.encode()),
        "output": seal(bytes.fromhex(trace.salts.output), trace.output.text.encode()),
        "finish_reason": trace.output.finish_reason,
        "adapter": trace.digests.adapter,
        "base": trace.digests.base,
        "tokenizer": trace.digests.tokenizer,
        "run": trace.digests.run,
        "index": trace.digests.index,
        "trace": trace.digest,
    }


def ledger_folder(path: Path) -> Path:
    """`path` itself, or its folder where it names the ledger file."""
    return path.parent if path.name == LEDGER else path
