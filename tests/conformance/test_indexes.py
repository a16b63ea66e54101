"""An index folder is whole, checked, and refuses what does not belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from poa.conformance import digits_linear, foreign, isolated
from poa.digests import plain_digest
from poa.errors import Corrupt, Mismatch, PoaError
from poa.indexes import Columns, load_columns, load_index, save_index

ARRAYS = {
    "a": np.arange(6, dtype=np.float64).reshape(2, 3),
    "b": np.asarray([1, -2], np.int64),
    "c": np.zeros((0, 4), np.float32),
    "d": np.frombuffer(b"words", np.uint8),
}


def test_round_trip(tmp_path: Path) -> None:
    save_index(tmp_path / "index", "kind", ARRAYS, {"x": [1, "é"]})
    kind, arrays, meta = load_index(tmp_path / "index")
    assert (kind, meta) == ("kind", {"x": [1, "é"]})
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_of_any_layout_are_stored_by_value(tmp_path: Path) -> None:
    save_index(tmp_path / "index", "kind", {"t": ARRAYS["a"].T, "r": ARRAYS["a"][::-1]}, {})
    arrays = load_index(tmp_path / "index")[1]
    np.testing.assert_array_equal(arrays["t"], ARRAYS["a"].T)
    np.testing.assert_array_equal(arrays["r"], ARRAYS["a"][::-1])


def test_saving_again_replaces_an_index_and_nothing_else(tmp_path: Path) -> None:
    save_index(tmp_path / "index", "one", ARRAYS, {})
    save_index(tmp_path / "index", "two", {}, {})
    assert load_index(tmp_path / "index") == ("two", {}, {})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(PoaError, match="holds no index"):
        save_index(tmp_path / "thesis", "one", ARRAYS, {})
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    save_index(tmp_path / "empty", "one", ARRAYS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "index", "thesis"]


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors"])
def test_every_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    save_index(tmp_path / "index", "kind", {"b": ARRAYS["b"]}, {"x": 1})
    path = tmp_path / "index" / name
    intact = path.read_bytes()
    for at in range(len(intact)):
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
        with pytest.raises(Corrupt):
            load_index(tmp_path / "index")
    path.write_bytes(intact)
    load_index(tmp_path / "index")


def test_missing_parts_and_other_schemas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="holds no index"):
        load_index(tmp_path / "nothing")
    save_index(tmp_path / "index", "kind", ARRAYS, {})
    (tmp_path / "index" / "arrays.safetensors").unlink()
    with pytest.raises(Corrupt, match=r"arrays\.safetensors cannot be read"):
        load_index(tmp_path / "index")
    body = {"schema": "poa.index/9"}
    manifest = json.dumps({"body": body, "digest": plain_digest(body)})
    (tmp_path / "index" / "manifest.json").write_text(manifest)
    with pytest.raises(Mismatch, match=r"schema 'poa.index/9', must be 'poa.index/1'"):
        load_index(tmp_path / "index")


def test_columns_know_their_run(tmp_path: Path) -> None:
    run = digits_linear().run
    columns = Columns.of(run)
    assert Columns.read(json.loads(json.dumps(columns.plain()))) == columns
    save_index(tmp_path / "index", "kind", ARRAYS, {"columns": columns.plain()})
    assert load_columns(tmp_path / "index", "kind", run)[0] == columns
    with pytest.raises(Mismatch, match="of kind 'kind', not 'other'"):
        load_columns(tmp_path / "index", "other", run)
    with isolated(run) as view:
        other = foreign(view)
        with pytest.raises(Mismatch, match=f"index belongs to run {run.digest}, not {other.digest}"):
            load_columns(tmp_path / "index", "kind", other)
