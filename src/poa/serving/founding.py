"""Founding a serving ledger: its keys, its operator, and the publication of the adapter that answers."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from poa.datanets.snapshot import merkle_root, row_bytes
from poa.digests import plain_digest
from poa.errors import PoaError
from poa.files import atomic_folder
from poa.ledger import ActorKey, Author, Event, Ledger, Signer, journal, rows_root, seal
from poa.rewards.policy import Policy
from poa.serving.receipts import LEDGER, LOG_KEY, OPERATOR_KEY, ReceiptBook, ledger_folder

if TYPE_CHECKING:
    from poa.factory.run import LoRARun

_ROLES = ("contributor", "operator", "owner", "payer")


def found(path: Path, origin: str, run: LoRARun, policy: Policy | None = None) -> None:
    """A new ledger in `path` (a folder that is absent or empty) with fresh keys, ready for receipts of `run`.

    Contributors register and commit with keys of their own, which a server does not have: here the operator publishes
    the manifest as its custodian, so this ledger says which data trained the adapter, and pays nobody. Raises
    `PoaError` where something is there already; nothing half-made stays behind.
    """
    folder = ledger_folder(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PoaError(f"{folder} is not empty; open it without --init, or choose another folder for a new ledger")
    signer, operator = Signer.generate(origin), ActorKey.generate()
    author = Author(operator, origin, int(time.time()))
    with atomic_folder(folder) as work:
        signer.save(work / LOG_KEY)
        Signer("poa-operator", operator.seed).save(work / OPERATOR_KEY)
        with Ledger.init(work / LEDGER, origin, signer) as ledger:
            first = journal.register(author, _ROLES, "operator")
            ledger.append([first, journal.publish_policy(author, policy or Policy.preset("net-epoch"))])
            ledger.append(_publication(author, run))


def require_adapter(book: ReceiptBook, run: LoRARun) -> None:
    """Publish the run's adapter in an existing ledger where that has not been done; receipts need it."""
    adapter = book.ledger.state().adapters.get(run.adapter_digest)
    if adapter is None:
        book.ledger.append(_publication(book.author, run))


def _publication(author: Author, run: LoRARun) -> list[Event]:
    """Datanet, commit, reveal, snapshot, run and adapter of one run, all by the operator."""
    from poa.factory import finetune
    from poa.factory.versions import library_versions

    licences = "; ".join(sorted({record.licence for record in run.corpus if record.licence})) or "not stated"
    licence, rows = " ".join(licences.split())[:500], [row_bytes(record) for record in run.corpus]
    net = journal.create_datanet(
        author,
        f"manifest {run.snapshot[:16]} of run {run.digest[:16]}",
        licence=licence,
        licence_digest=hashlib.sha256(licences.encode()).hexdigest(),
        intake=plain_digest(["manifest", run.snapshot]),
    )
    salt = os.urandom(32)
    root = rows_root([seal(salt, row) for row in rows])
    commit = journal.commit(author, net.id, salt, root)
    reveal = journal.reveal(
        author, commit.id, salt, root, rows=len(rows), size=sum(map(len, rows)), licence=licence, store="run manifest"
    )
    snapshot = journal.snapshot(author, net.id, 1, merkle_root(run.corpus), len(rows), {author.id: len(rows)})
    trained = journal.train_run(
        author,
        manifest=run.snapshot,
        snapshots=[snapshot.id],
        base=run.parent.digest,
        recipe=plain_digest(run.recipe.plain()),
        code=hashlib.sha256(Path(finetune.__file__).read_bytes()).hexdigest(),
        environment=plain_digest(library_versions()),
        seed=run.recipe.seed,
        adapter=run.adapter_digest,
    )
    published = journal.publish_adapter(author, adapter=run.adapter_digest, run=trained.id, base=run.parent.digest)
    return [net, commit, reveal, snapshot, trained, published]
