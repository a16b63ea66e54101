"""Linear indexes: checkpoint choice, unit rows, storage bound to a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.conformance import digits_linear
from poa.errors import Mismatch, Unsupported
from poa.factory.run import LoRARun
from poa.gradients.lens import unit_rows
from poa.gradients.linear import LinearIndex, positions_of
from poa.methods.logra import LoGra
from poa.records import Corpus


def test_checkpoints_are_last_or_all(run: LoRARun) -> None:
    assert positions_of(run, "last") == (1,)
    assert positions_of(run, "all") == (0, 1)
    with pytest.raises(Unsupported, match="checkpoints is 'first', must be last or all"):
        positions_of(run, "first")


def test_unit_rows_and_a_zero_row() -> None:
    rows = np.asarray([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]], np.float32)
    assert unit_rows(rows).tolist() == [[np.float32(0.6), np.float32(0.8)], [0.0, 0.0], [1.0, 0.0]]


def test_a_stored_index_keeps_projection_and_notes(run: LoRARun, queries: Corpus, tmp_path: Path) -> None:
    index = LoGra(width=3, seed=2).fit(run)
    index.save(tmp_path / "index")
    loaded = LinearIndex.load(tmp_path / "index", run)
    assert loaded.lenses[0].projection == index.lenses[0].projection
    assert loaded.notes == index.notes
    assert loaded.attribute(queries).digest == index.attribute(queries).digest
    with pytest.raises(Mismatch, match="index belongs to run"):
        LinearIndex.load(tmp_path / "index", digits_linear().run)
