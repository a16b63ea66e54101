"""The ledger of one route: everything from registration to settlement, signed by simulated actors."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from poa.datanets.snapshot import Snapshot, merkle_root, row_bytes
from poa.digests import file_digest, plain_digest
from poa.factory.run import LoRARun
from poa.factory.versions import library_versions
from poa.ledger import ActorKey, Author, Event, Ledger, Signer, journal, rows_root, seal, vector_root
from poa.pipeline.payday import Payday
from poa.records import Corpus
from poa.scores import Scores

ORIGIN = "poa.example/poa/quickstart"
# Advisory only: order is the position in the log. A fixed value keeps a second run byte-identical.
TS = 1_700_000_000


def actor(name: str) -> str:
    """The pseudonym of a simulated contributor: SHA-256 of the public key derived from the name."""
    return ActorKey.simulated(name).id


@dataclass(frozen=True, eq=False)
class Card:
    """A method's measured agreement with retraining."""

    method: str
    identity: str
    low: float
    mean: float
    high: float
    queries: int
    seeds: int


def write_ledger(
    path: Path,
    snapshot: Snapshot,
    run: LoRARun,
    responses: Corpus,
    nats: Scores,
    payday: Payday,
    card: Card,
    tokens: dict[str, tuple[int, int]],
    secret: bytes,
) -> None:
    """Write the whole route to a new ledger at `path`, with its signing key and vkey beside it.

    `secret` seeds the salts and the log key of this demonstration; a real service draws both from the operating
    system and keeps salts in an erasable store.
    """
    signer = Signer(ORIGIN, hashlib.sha256(secret + b"log key").digest())
    operator = Author(ActorKey.simulated("operator"), ORIGIN, TS)
    with Ledger.init(path, ORIGIN, signer) as ledger:
        ledger.append([journal.register(operator, ["operator", "owner", "payer"], "operator")])
        ledger.append(_contributors(snapshot))
        snapshots = _datanets(ledger, operator, snapshot, secret)
        trained = _training(operator, run, snapshot, snapshots)
        ledger.append(trained)
        measured = _card(operator, run, card)
        ledger.append([measured, journal.publish_policy(operator, payday.policy)])
        fees = sum(receipt.fee for receipt in payday.receipts)
        ledger.append([journal.deposit(operator, operator.id, fees, "demonstration")])
        ledger.append(_receipts(operator, run, responses, nats, payday, card, measured.id, tokens, secret))
        ledger.append([journal.close_epoch(operator, ledger.state())])
        ledger.append([journal.settle_epoch(operator, ledger.state())])
    (path.parent / "vkey").write_text(signer.verifier.vkey + "\n")


def _authors(snapshot: Snapshot) -> dict[str, Author]:
    names = sorted(set(snapshot.groups["payee"]) | set(snapshot.groups["contributor"]))
    return {name: Author(ActorKey.simulated(name), ORIGIN, TS) for name in names}


def _contributors(snapshot: Snapshot) -> list[Event]:
    return [journal.register(author, ["contributor"], name) for name, author in _authors(snapshot).items()]


def _datanets(ledger: Ledger, operator: Author, snapshot: Snapshot, secret: bytes) -> list[str]:
    """Create each datanet, let every contributor commit and reveal, publish one snapshot each; snapshot ids."""
    authors = _authors(snapshot)
    rows: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    for record, payee in zip(snapshot.corpus, snapshot.groups["payee"], strict=True):
        rows[record.datanet, payee].append(row_bytes(record))
    out: list[str] = []
    for name in sorted(set(snapshot.corpus.datanets)):
        part = snapshot.corpus.where(lambda record, name=name: record.datanet == name)
        licence = part[0].licence
        created = journal.create_datanet(
            operator,
            name,
            licence=licence,
            licence_digest=hashlib.sha256(licence.encode()).hexdigest(),
            intake=plain_digest(snapshot.report.to_json()),
        )
        ledger.append([created])
        here = {payee: found for (datanet, payee), found in rows.items() if datanet == name}
        salts = {payee: hashlib.sha256(secret + f"{name}\n{payee}".encode()).digest() for payee in here}
        roots = {payee: rows_root([seal(salts[payee], row) for row in found]) for payee, found in here.items()}
        commits = {p: journal.commit(authors[p], created.id, salts[p], roots[p]) for p in here}
        ledger.append(list(commits.values()))
        reveals = [
            journal.reveal(
                authors[payee],
                commits[payee].id,
                salts[payee],
                roots[payee],
                rows=len(found),
                size=sum(map(len, found)),
                licence=licence,
                store="run manifest",
            )
            for payee, found in here.items()
        ]
        ledger.append(reveals)
        weights = {authors[payee].id: len(found) for payee, found in here.items()}
        published = journal.snapshot(operator, created.id, 1, merkle_root(part), len(part), weights)
        ledger.append([published])
        out.append(published.id)
    return out


def _training(operator: Author, run: LoRARun, snapshot: Snapshot, snapshots: list[str]) -> list[Event]:
    trained = journal.train_run(
        operator,
        manifest=snapshot.root,
        snapshots=snapshots,
        base=run.parent.digest,
        recipe=plain_digest(run.recipe.plain()),
        code=file_digest(Path(__file__).parents[1] / "factory" / "finetune.py"),
        environment=plain_digest(library_versions()),
        seed=run.recipe.seed,
        adapter=run.adapter_digest,
    )
    return [
        trained,
        journal.publish_adapter(operator, adapter=run.adapter_digest, run=trained.id, base=run.parent.digest),
    ]


def _card(operator: Author, run: LoRARun, card: Card) -> Event:
    return journal.method_card(
        operator,
        method=card.method,
        version="1",
        spec=plain_digest(card.identity),
        adapter=run.adapter_digest,
        truth="leave-one-contributor-out",
        queries=card.queries,
        seeds=card.seeds,
        agreement=(card.low, card.mean, card.high),
    )


def _receipts(
    operator: Author,
    run: LoRARun,
    responses: Corpus,
    nats: Scores,
    payday: Payday,
    card: Card,
    measured: str,
    tokens: dict[str, tuple[int, int]],
    secret: bytes,
) -> list[Event]:
    out: list[Event] = []
    tops = nats.top(10)
    for i, (response, scored) in enumerate(zip(responses, payday.receipts, strict=True)):
        salt = hashlib.sha256(secret + response.id.encode()).digest()
        served = {
            "query": seal(salt, response.prompt.encode()),
            "output": seal(salt, response.text.encode()),
            "adapter": run.adapter_digest,
        }
        out.append(
            journal.receipt(
                operator,
                scored,
                payday.policy,
                payer=operator.id,
                served=plain_digest(served),
                base=run.parent.digest,
                adapter=run.adapter_digest,
                index=run.digest,
                config=plain_digest(run.recipe.plain()),
                method=plain_digest(card.identity),
                card=measured,
                query=served["query"],
                output=served["output"],
                tokens=tokens[response.id],
                scores=[(hit.train_id, hit.score) for hit in tops[i]],
                vector_root=vector_root(zip(nats.train_ids, map(float, nats.values[i]), strict=True)),
                nonce=hashlib.sha256(salt + b"nonce").hexdigest(),
            )
        )
    return out
