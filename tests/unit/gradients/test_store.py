"""Gradient rows on disk: computed once, independent of neighbours, checked when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.language import DoubleRun, autograd_rows

from poa.errors import Corrupt
from poa.factory.run import LoRARun
from poa.gradients import store
from poa.gradients.store import gradients
from poa.records import Corpus


@pytest.fixture
def fresh(run: LoRARun, tmp_path: Path) -> DoubleRun:
    return DoubleRun(run, tmp_path)


def test_rows_are_the_gradients_in_record_order(fresh: DoubleRun, queries: Corpus) -> None:
    rows = gradients(fresh, 1, queries, "query")
    np.testing.assert_allclose(rows.values, autograd_rows(fresh, queries, "query"), rtol=1e-9, atol=1e-12)
    assert rows.blocks[-1].stop == rows.values.shape[1]
    assert all(a.stop == b.start for a, b in zip(rows.blocks, rows.blocks[1:], strict=False))
    block = rows.blocks[3]
    assert np.array_equal(rows.block(block), rows.values[:, block.start : block.stop])


def test_a_row_depends_on_its_record_alone(fresh: DoubleRun, queries: Corpus) -> None:
    together = gradients(fresh, 1, queries, "train").values
    backwards = gradients(fresh, 1, Corpus(reversed(list(queries))), "train").values
    alone = gradients(fresh, 1, queries[2:3], "train").values
    assert together[::-1].tobytes() == backwards.tobytes()
    assert together[2].tobytes() == alone[0].tobytes()


def test_the_second_call_reads(fresh: DoubleRun, queries: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gradients(fresh, 0, queries[:2], "query")

    def computed(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(store, "capturing", computed)
    again = gradients(fresh, 0, queries[:2], "query")
    assert again.values.tobytes() == first.values.tobytes()
    assert again.blocks == first.blocks
    for other in [(1, queries[:2], "query"), (0, queries[:1], "query"), (0, queries[:2], "train")]:
        with pytest.raises(AssertionError, match="computed again"):
            gradients(fresh, *other)


def test_an_altered_row_is_found(fresh: DoubleRun, queries: Corpus) -> None:
    gradients(fresh, 1, queries[:1], "query")
    (path,) = fresh.cache.rglob("rows.npy")
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(Corrupt, match=r"rows.npy does not have the digest"):
        gradients(fresh, 1, queries[:1], "query")


def test_no_records_give_no_rows(fresh: DoubleRun, queries: Corpus) -> None:
    assert gradients(fresh, 1, queries[:0], "query").values.shape == (
        0,
        gradients(fresh, 1, queries[:1], "query").values.shape[1],
    )
