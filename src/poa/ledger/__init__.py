"""The append-only, signed log of the whole route: events, tree, money, verification. PyNaCl and SQLite, no torch."""

from poa.ledger import journal
from poa.ledger.actors import ActorKey, Author
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.commitments import nats, rows_root, seal, vector_root
from poa.ledger.encoding import canonical, parse
from poa.ledger.events import Event
from poa.ledger.export import export, verify_export
from poa.ledger.note import Signer, Verifier
from poa.ledger.proof import check_proof, prove
from poa.ledger.refusal import Refusal, Undecided
from poa.ledger.store import Ledger
from poa.ledger.verdict import Verdict
from poa.ledger.verify import verify

__all__ = [
    "ActorKey",
    "Author",
    "Checkpoint",
    "Event",
    "Ledger",
    "Refusal",
    "Signer",
    "Undecided",
    "Verdict",
    "Verifier",
    "canonical",
    "check_proof",
    "export",
    "journal",
    "nats",
    "parse",
    "prove",
    "rows_root",
    "seal",
    "vector_root",
    "verify",
    "verify_export",
]
