"""Snapshot: the frozen, ordered list of records that a training run consumes, with its Merkle root and its owners."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from poa.datanets.clusters import Clusters, Membership, Tau, clusters, priority
from poa.datanets.intake import Intake, intake
from poa.digests import file_digest, plain_digest
from poa.errors import CorpusError, Corrupt, Mismatch
from poa.files import atomic_folder
from poa.ledger.merkle import leaf_hash, root
from poa.records import Corpus, Record, plain_row

SCHEMA = "poa.snapshot/1"
Duplicates = Literal["drop", "drop-exact", "keep"]


@dataclass(frozen=True)
class Dropped:
    """A record that was left out because it repeats an earlier one."""

    id: str
    digest: str
    contributor: str
    cluster: str
    reason: Membership


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What will be trained on.

    corpus: the kept records, earliest registered first (ties by content digest, then id), so that neither order nor
    batching of uploads changes the root. groups: per kept record "contributor", "datanet", "cluster" (id of the
    cluster's first record) and "payee" (contributor of that first record). root: hex RFC 6962 root over `row_bytes`
    of the kept records. reasons: per kept record why it is in its cluster.
    """

    corpus: Corpus
    groups: Mapping[str, tuple[str, ...]]
    root: str
    reasons: tuple[Membership, ...]
    dropped: tuple[Dropped, ...]
    duplicates: Duplicates
    tau: Tau
    report: Intake

    @staticmethod
    def of(corpus: Corpus, duplicates: Duplicates = "drop", tau: Tau | None = None) -> Snapshot:
        """Freeze `corpus`.

        duplicates: "drop" leaves out every record but the first of each cluster, "drop-exact" only exact copies,
        "keep" none (for experiments; copies are still clustered, and their payee is the first owner). Raises
        `CorpusError` for an empty corpus or another word.
        """
        if duplicates not in get_args(Duplicates):
            raise CorpusError(f"duplicates is {duplicates!r}, must be one of {', '.join(get_args(Duplicates))}")
        if not len(corpus):
            raise CorpusError("a snapshot needs at least one record")
        ordered = Corpus(sorted(corpus, key=priority))
        grouped = clusters(ordered, tau)
        leave = {"drop": ("exact", "jaccard", "containment", "pixels"), "drop-exact": ("exact",), "keep": ()}
        kept = [i for i, reason in enumerate(grouped.memberships) if reason.kind not in leave[duplicates]]
        staying = ordered.take(kept)
        return Snapshot(
            corpus=staying,
            groups=_groups(ordered, grouped, kept),
            root=merkle_root(staying),
            reasons=tuple(grouped.memberships[i] for i in kept),
            dropped=_dropped(ordered, grouped, set(kept)),
            duplicates=duplicates,
            tau=grouped.tau,
            report=intake(ordered, grouped, len(kept)),
        )

    def __repr__(self) -> str:
        return f"Snapshot({len(self.corpus)} records, {len(self.dropped)} dropped, root {self.root[:16]})"

    @property
    def digest(self) -> str:
        """SHA-256 of everything the snapshot says: records, groups, reasons, what was dropped, tau."""
        return plain_digest([self.corpus.digest, self._body()])

    def _body(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "root": self.root,
            "groups": {name: list(labels) for name, labels in self.groups.items()},
            "reasons": [asdict(reason) for reason in self.reasons],
            "dropped": [asdict(row) for row in self.dropped],
            "duplicates": self.duplicates,
            "tau": asdict(self.tau),
            "report": self.report.to_json(),
        }

    @property
    def cluster_weights(self) -> dict[str, int]:
        """How many kept clusters each payee owns: what a flat licence share goes by."""
        return dict(Counter(dict(zip(self.groups["cluster"], self.groups["payee"], strict=True)).values()))

    def save(self, folder: str | Path) -> None:
        """`records.parquet` and `snapshot.json`, whole or not at all."""
        with atomic_folder(Path(folder)) as work:
            self.corpus.to_parquet(work / "records.parquet")
            note = {"body": self._body(), "records": file_digest(work / "records.parquet"), "digest": self.digest}
            (work / "snapshot.json").write_text(json.dumps(note, indent=1, sort_keys=True), encoding="utf-8")

    @staticmethod
    def load(folder: str | Path) -> Snapshot:
        """Read what `save` wrote. Raises `Mismatch` for another schema, `Corrupt` where bytes, rows or root differ
        from what the snapshot promises."""
        folder = Path(folder)
        note = _note(folder)
        if file_digest(folder / "records.parquet") != note["records"]:
            raise Corrupt(f"{folder / 'records.parquet'} does not have the digest that snapshot.json promises")
        corpus, body = Corpus.from_parquet(folder / "records.parquet"), note["body"]
        snapshot = Snapshot(
            corpus=corpus,
            groups={name: tuple(labels) for name, labels in body["groups"].items()},
            root=body["root"],
            reasons=tuple(Membership(**reason) for reason in body["reasons"]),
            dropped=tuple(Dropped(**(row | {"reason": Membership(**row["reason"])})) for row in body["dropped"]),
            duplicates=body["duplicates"],
            tau=Tau(**body["tau"]),
            report=Intake.from_json(body["report"]),
        )
        if snapshot.digest != note["digest"]:
            raise Corrupt(f"{folder}: the snapshot does not have the digest that it promises")
        if merkle_root(corpus) != snapshot.root:
            raise Corrupt(f"{folder}: the records do not have the Merkle root {snapshot.root}")
        return snapshot


def row_bytes(record: Record) -> bytes:
    """The canonical bytes of one record, the leaf of the row tree: all fields as JSON with sorted keys."""
    return json.dumps(
        plain_row(record),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def leaves(corpus: Corpus) -> list[bytes]:
    """SHA-256(0x00 || row bytes) per record: what `poa.ledger.merkle` proves inclusion of."""
    return [leaf_hash(row_bytes(record)) for record in corpus]


def merkle_root(corpus: Corpus) -> str:
    """Hex RFC 6962 root over the rows in order."""
    return root(leaves(corpus)).hex()


def _groups(ordered: Corpus, grouped: Clusters, kept: list[int]) -> dict[str, tuple[str, ...]]:
    owner = dict(zip(ordered.ids, ordered.contributors, strict=True))
    return {
        "contributor": tuple(ordered[i].contributor for i in kept),
        "datanet": tuple(ordered[i].datanet for i in kept),
        "cluster": tuple(grouped.labels[i] for i in kept),
        "payee": tuple(owner[grouped.labels[i]] for i in kept),
    }


def _dropped(ordered: Corpus, grouped: Clusters, kept: set[int]) -> tuple[Dropped, ...]:
    return tuple(
        Dropped(record.id, record.digest, record.contributor, grouped.labels[i], grouped.memberships[i])
        for i, record in enumerate(ordered)
        if i not in kept
    )


def _note(folder: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))
        if note["body"]["schema"] != SCHEMA:
            raise Mismatch(f"{folder} holds {note['body']['schema']!r}, expected {SCHEMA}")
    except FileNotFoundError as error:
        raise CorpusError(f"{folder} holds no snapshot (no snapshot.json)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder / 'snapshot.json'} is not a snapshot note: {error}") from error
    return note
