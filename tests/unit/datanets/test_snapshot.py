"""Snapshots, their Merkle root, the intake report, and held-out splits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poa.datanets.clusters import clusters, components
from poa.datanets.heldout import split
from poa.datanets.snapshot import Snapshot, leaves, merkle_root, row_bytes
from poa.errors import CorpusError, Corrupt, Mismatch
from poa.ledger.merkle import inclusion_proof, verify_inclusion
from poa.records import Corpus, Record


@pytest.fixture
def contested(honest: Corpus) -> Corpus:
    """The honest records, and of h0 an exact and a near copy by a thief."""
    first = honest[0]
    return Corpus(
        [
            Record("near", f"{first.text} more", contributor="thief", datanet="d", registered=60),
            replace(first, id="exact", contributor="thief", registered=50),
            *honest,
        ]
    )


def test_copies_are_left_out_or_kept_and_the_first_owner_is_the_payee(contested: Corpus, honest: Corpus) -> None:
    dropped = Snapshot.of(contested)
    assert dropped.corpus.ids == honest.ids
    assert [row.id for row in dropped.dropped] == ["exact", "near"]
    assert dropped.groups["payee"] == dropped.groups["contributor"] == honest.contributors
    some = Snapshot.of(contested, duplicates="drop-exact")
    assert [row.id for row in some.dropped] == ["exact"]
    kept = Snapshot.of(contested, duplicates="keep")
    assert kept.corpus.ids == (*honest.ids, "exact", "near")
    assert kept.groups["contributor"][-2:] == ("thief", "thief")
    assert kept.groups["payee"][-2:] == ("c0", "c0")
    assert kept.groups["cluster"][-2:] == ("h0", "h0")
    assert [reason.kind for reason in kept.reasons[-2:]] == ["exact", "jaccard"]


def test_the_root_follows_rfc_6962_and_not_the_upload_order(contested: Corpus) -> None:
    one = Snapshot.of(contested)
    other = Snapshot.of(contested.take(np.random.default_rng(0).permutation(len(contested))))
    assert one.root == other.root
    assert one.digest == other.digest
    hashes = leaves(one.corpus)
    assert hashes[3] == hashlib.sha256(b"\x00" + row_bytes(one.corpus[3])).digest()
    assert verify_inclusion(3, len(hashes), hashes[3], inclusion_proof(hashes, 3), bytes.fromhex(one.root))


def test_the_root_changes_with_every_field() -> None:
    row = Record("a", "text", "prompt", "who", "net", "CC0-1.0", 1, (), 2)
    changed = ("b", "texts", "prompts", "whom", "nets", "MIT", 2, (1.0,), 3)
    names = ("id", "text", "prompt", "contributor", "datanet", "licence", "registered", "features", "label")
    roots = {merkle_root(Corpus([replace(row, **{name: value})])) for name, value in zip(names, changed, strict=True)}
    assert len(roots | {merkle_root(Corpus([row]))}) == len(names) + 1


def test_report_counts(contested: Corpus) -> None:
    report = Snapshot.of(contested).report
    assert (report.records, report.kept, report.clusters, report.contested) == (42, 40, 40, 1)
    assert (report.exact_duplicates, report.near_duplicates) == (1, 1)
    assert report.contributors == {"c0": 10, "c1": 10, "c2": 10, "c3": 10, "thief": 2}
    assert report.licences == {"": 1, "CC0-1.0": 41}
    (example,) = report.examples
    assert (example.cluster, example.owner, example.size, example.copy) == ("h0", "c0", 3, "near")
    assert example.contributors == ("c0", "thief")
    assert "1 exact and 1 near" in str(report)


def test_save_and_load(contested: Corpus, tmp_path: Path) -> None:
    snapshot = Snapshot.of(contested, duplicates="keep")
    snapshot.save(tmp_path / "snap")
    loaded = Snapshot.load(tmp_path / "snap")
    assert loaded.corpus == snapshot.corpus
    assert loaded.groups == snapshot.groups
    assert loaded.reasons == snapshot.reasons
    assert loaded.dropped == snapshot.dropped
    assert loaded.report == snapshot.report
    assert (loaded.root, loaded.digest, loaded.tau) == (snapshot.root, snapshot.digest, snapshot.tau)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snap"]


def test_damage_is_found(contested: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "snap"
    snapshot = Snapshot.of(contested)
    snapshot.save(folder)
    note = json.loads((folder / "snapshot.json").read_text())
    for change in ({"root": "00" * 32}, {"duplicates": "keep"}, {"groups": {}}):
        (folder / "snapshot.json").write_text(json.dumps(note | {"body": note["body"] | change}))
        with pytest.raises(Corrupt, match="digest"):
            Snapshot.load(folder)
    (folder / "snapshot.json").write_text(json.dumps(note | {"body": note["body"] | {"schema": "poa.snapshot/9"}}))
    with pytest.raises(Mismatch, match=r"poa\.snapshot/9"):
        Snapshot.load(folder)
    (folder / "snapshot.json").write_text(json.dumps(note)[:-20])
    with pytest.raises(Corrupt, match="not a snapshot note"):
        Snapshot.load(folder)
    (folder / "snapshot.json").write_text(json.dumps(note))
    snapshot.corpus[1:].to_parquet(folder / "records.parquet")
    with pytest.raises(Corrupt, match=r"records.parquet"):
        Snapshot.load(folder)
    with pytest.raises(CorpusError, match="no snapshot"):
        Snapshot.load(tmp_path / "absent")


def test_bad_arguments(honest: Corpus) -> None:
    with pytest.raises(CorpusError, match="duplicates is 'merge'"):
        Snapshot.of(honest, duplicates="merge")  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="at least one record"):
        Snapshot.of(Corpus([]))


def test_split_keeps_copies_together(honest: Corpus) -> None:
    copies = [
        Record(f"{kind}-{row.id}", text, registered=100)
        for row in honest[:15]
        for kind, text in (("near", f"{row.text} x"), ("part", " ".join(row.text.split()[:30])))
    ]
    corpus = Corpus([*honest, *copies])
    together = dict(zip(corpus.ids, components(corpus), strict=True))
    for seed in range(5):
        train, held = split(corpus, 0.2, seed)
        assert len(held) == 14
        assert sorted((*train.ids, *held.ids)) == sorted(corpus.ids)
        assert not {together[name] for name in train.ids} & {together[name] for name in held.ids}
        labels = clusters(Corpus([*train, *held])).labels
        assert not set(labels[: len(train)]) & set(labels[len(train) :])
    assert split(corpus, 7, 1)[1] == split(corpus, 7, 1)[1]
    assert split(corpus, 7, 1)[1] != split(corpus, 7, 2)[1]


@pytest.mark.parametrize("heldout", [0, 0.0, 40, 1.0, -1])
def test_split_refuses_empty_parts(honest: Corpus, heldout: float) -> None:
    with pytest.raises(CorpusError, match="heldout is"):
        split(honest, heldout, 0)


def test_split_of_one_big_group(honest: Corpus) -> None:
    corpus = Corpus(replace(honest[0], id=f"r{i}") for i in range(5))
    with pytest.raises(CorpusError, match="hold out more"):
        split(corpus, 2, 0)
