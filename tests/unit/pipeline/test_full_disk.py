"""A full disk is one clear error, and nothing half-written stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from poa.datanets.snapshot import Snapshot
from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.files import atomic_folder
from poa.methods.influence import Influence
from poa.records import Corpus
from poa.scores import Scores


def ledger(disk: Path, run: LoRARun, queries: Corpus) -> None:
    from poa.ledger import Ledger, Signer

    with (
        atomic_folder(disk / "ledger") as work,
        Ledger.init(work / "l.sqlite", "o.example/x", Signer("o.example/x", b"s" * 32)),
    ):
        pass


WRITERS: dict[str, Callable[[Path, LoRARun, Corpus], object]] = {
    "snapshot": lambda disk, run, queries: Snapshot.of(run.corpus).save(disk / "snapshot"),
    "index": lambda disk, run, queries: Influence().fit(run).save(disk / "index"),
    "scores": lambda disk, run, queries: Influence().fit(run).attribute(queries).save(disk / "scores"),
    "ledger": ledger,
}


@pytest.mark.parametrize(
    ("what", "free"), [("snapshot", 0), ("snapshot", 4096), ("index", 0), ("index", 4096), ("scores", 0), ("ledger", 0)]
)
def test_one_error_and_nothing_left(what: str, free: int, small_disk: Path, run: LoRARun, queries: Corpus) -> None:
    with (small_disk / "ballast").open("wb") as stream:
        stream.write(b"\0" * ((1 << 20) - 4096 - free))
    if free == 0:
        (small_disk / "more").mkdir()
        stuffed = small_disk / "more" / "ballast"
        try:
            stuffed.write_bytes(b"\0" * (1 << 16))
        except OSError:
            assert stuffed.exists()
    before = {path.relative_to(small_disk) for path in small_disk.rglob("*")}
    with pytest.raises(PoaError, match=r"No space left|disk is full|disk I/O error") as caught:
        WRITERS[what](small_disk, run, queries)
    assert "\n" not in str(caught.value)
    assert {path.relative_to(small_disk) for path in small_disk.rglob("*")} == before


def test_there_was_room_otherwise(small_disk: Path, run: LoRARun, queries: Corpus) -> None:
    for write in WRITERS.values():
        write(small_disk, run, queries)
    assert Scores.load(small_disk / "scores").query_ids == queries.ids
