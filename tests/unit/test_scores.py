"""Scores: axes, sums, order, units, and files that cannot be changed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from poa.errors import Corrupt, Mismatch, PoaError
from poa.scores import Scores


def make(values: np.ndarray, stderr: np.ndarray | None = None, **groups: tuple[str, ...]) -> Scores:
    queries, train = values.shape
    return Scores(
        values,
        tuple(f"q{i}" for i in range(queries)),
        tuple(f"t{j}" for j in range(train)),
        groups,
        method="M()",
        stderr=stderr,
        meta={"run": "abc"},
    )


MATRICES = st.integers(1, 4).flatmap(
    lambda rows: st.integers(1, 6).flatmap(
        lambda columns: st.lists(st.integers(-5, 5), min_size=rows * columns, max_size=rows * columns).map(
            lambda cells: np.array(cells, np.float32).reshape(rows, columns)
        )
    )
)


@settings(derandomize=True, deadline=None)
@given(MATRICES, st.integers(1, 8), st.booleans())
def test_top_equals_sorting_by_score_then_position(values: np.ndarray, k: int, opponents: bool) -> None:
    sign = 1 if opponents else -1
    for row, hits in zip(values, make(values).top(k, opponents=opponents), strict=True):
        order = sorted(range(len(row)), key=lambda j: (sign * row[j], j))[:k]
        assert [(hit.train_id, hit.score) for hit in hits] == [(f"t{j}", row[j]) for j in order]


def test_a_negative_number_of_hits_is_refused() -> None:
    with pytest.raises(PoaError, match="k is -1"):
        make(np.zeros((1, 3))).top(-1)


@settings(derandomize=True, deadline=None)
@given(MATRICES, st.data())
def test_sums_are_signed_and_conserved(values: np.ndarray, data: st.DataObject) -> None:
    labels = tuple(data.draw(st.sampled_from(["b", "a", "c"])) for _ in range(values.shape[1]))
    errors = np.abs(values) + 1
    rolled = make(values, errors, contributor=labels).by("contributor")
    assert rolled.train_ids == tuple(sorted(set(labels)))
    for i, row in enumerate(values):
        for j, name in enumerate(rolled.train_ids):
            picks = [t for t, label in enumerate(labels) if label == name]
            assert rolled.values[i, j] == sum(float(row[t]) for t in picks)
            assert rolled.stderr is not None
            assert rolled.stderr[i, j] == pytest.approx(np.sqrt(sum(float(errors[i, t]) ** 2 for t in picks)))
    assert np.array_equal(rolled.values.sum(1), values.sum(1))


def test_groups_that_are_constant_inside_a_sum_travel_with_it() -> None:
    scores = make(np.ones((1, 3)), contributor=("a", "a", "b"), datanet=("x", "x", "y"), cluster=("1", "2", "3"))
    rolled = scores.by("contributor")
    assert dict(rolled.groups) == {"contributor": ("a", "b"), "datanet": ("x", "y")}
    assert rolled.by("datanet").values.tolist() == [[2.0, 1.0]]
    assert scores.with_groups(payee=["p", "q", "p"]).by("payee").values.tolist() == [[2.0, 1.0]]
    with pytest.raises(PoaError, match=r"no group 'payee'; these scores know \['cluster', 'contributor', 'datanet'\]"):
        scores.by("payee")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"values": np.zeros((2, 2))}, r"scores have shape \(2, 2\), ids say \(2, 3\)"),
        ({"stderr": np.zeros((3, 2))}, "standard errors have shape"),
        ({"groups": {"g": ("a",)}}, "group 'g' has 1 labels for 3 train columns"),
        ({"unit": "points"}, "unit is 'points'"),
        ({"values": np.array([[0, 0, 0], [0, np.nan, 0]])}, "query 'q1', record 't1' is not finite"),
    ],
)
def test_refusals(change: dict[str, object], reason: str) -> None:
    with pytest.raises(PoaError, match=reason):
        replace(make(np.zeros((2, 3))), **change)


def test_scaling_gives_nats_and_keeps_errors_positive() -> None:
    scaled = make(np.array([[1.0, -2.0]]), np.array([[0.5, 0.5]])).scaled(-3.0, "ten retrainings")
    assert scaled.unit == "nats"
    assert scaled.values.tolist() == [[-3.0, 6.0]]
    assert scaled.stderr is not None
    assert scaled.stderr.tolist() == [[1.5, 1.5]]
    assert scaled.meta["calibration"] == "ten retrainings"
    assert scaled.meta["run"] == "abc"


def test_rows() -> None:
    scores = make(np.arange(6.0).reshape(3, 2), np.ones((3, 2)))
    assert scores["q1"].tolist() == scores[1].tolist() == [2.0, 3.0]
    part = scores.select([2, 0])
    assert part.query_ids == ("q2", "q0")
    assert part.values.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    joined = scores.select([0]).concat(scores.select([1, 2]))
    assert joined.digest == scores.digest
    assert joined.stderr is not None
    for other in (replace(scores, method="N()"), replace(scores, unit="nats"), replace(scores, train_ids=("x", "y"))):
        with pytest.raises(Mismatch, match="must be equal"):
            scores.concat(other)


def test_long_form() -> None:
    frame = make(np.array([[1.0, -2.0], [3.0, 4.0]]), np.full((2, 2), 0.1)).to_frame()
    assert list(frame.columns) == ["query", "train", "score", "stderr"]
    assert frame.iloc[2].tolist() == ["q1", "t0", 3.0, 0.1]
    assert len(make(np.ones((2, 3))).to_frame()) == 6


def test_html_escapes_ids() -> None:
    page = replace(make(np.ones((1, 1))), query_ids=("<script>",), train_ids=("a&b",))._repr_html_()
    assert "<script>" not in page
    assert "a&amp;b (+1)" in page


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_save_and_load(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    scores = make(values, np.abs(values), contributor=("a", "b", "a", "ü"))
    scores.save(tmp_path / "s.safetensors")
    loaded = Scores.load(tmp_path / "s.safetensors")
    assert loaded.values.dtype == dtype
    assert np.array_equal(loaded.values, values)
    assert loaded.stderr is not None
    assert np.array_equal(loaded.stderr, np.abs(values))
    assert (loaded.query_ids, loaded.train_ids) == (scores.query_ids, scores.train_ids)
    assert (dict(loaded.groups), dict(loaded.meta)) == (dict(scores.groups), dict(scores.meta))
    assert (loaded.unit, loaded.method, loaded.digest) == (scores.unit, scores.method, scores.digest)


def test_a_transposed_view_is_saved_as_it_reads(tmp_path: Path) -> None:
    scores = make(np.arange(6.0).reshape(2, 3).T)
    scores.save(tmp_path / "s")
    assert Scores.load(tmp_path / "s").values.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


@pytest.mark.parametrize("part", ["values", "stderr", "groups", "meta", "train_ids", "unit", "sign", "schema"])
def test_changed_files_are_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "s.safetensors"
    make(np.ones((2, 2)), np.ones((2, 2)), contributor=("a", "b")).save(path)
    with safe_open(str(path), framework="numpy") as stored:
        header = json.loads(stored.metadata()["poa"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    body = json.loads(header["body"])
    if part in tensors:
        tensors[part] = tensors[part] * 2
    elif part in header:
        header[part] = "negative = helped"
    else:
        body[part] = {"groups": {"contributor": ["b", "a"]}, "meta": {}, "train_ids": ["x", "y"], "unit": "nats"}[part]
        header["body"] = json.dumps(body, sort_keys=True)
    save_file(tensors, path, metadata={"poa": json.dumps(header)})
    with pytest.raises(Mismatch if part in ("sign", "schema") else Corrupt):
        Scores.load(path)


def test_files_that_are_no_scores(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="does not exist"):
        Scores.load(tmp_path / "none")
    (tmp_path / "text").write_text("not safetensors")
    with pytest.raises(Corrupt, match="not a readable safetensors file"):
        Scores.load(tmp_path / "text")


def test_the_same_scores_make_the_same_file(tmp_path: Path) -> None:
    scores = Scores(
        np.ones((2, 2)), ("q", "r"), ("a", "b"), {"contributor": ("x", "y")}, meta={"run": "0", "dtype": "f"}
    )
    for i in range(12):
        scores.save(tmp_path / f"{i}")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_standard_errors_that_mean_nothing_are_refused(wrong: float) -> None:
    with pytest.raises(PoaError, match="standard errors must be finite and 0 or more"):
        make(np.ones((1, 2)), np.array([[0.1, wrong]]))


def test_an_unknown_query_is_named() -> None:
    with pytest.raises(PoaError, match="no scores of query 'zz'"):
        make(np.ones((1, 2)))["zz"]
