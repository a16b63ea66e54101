"""Stores on disk: whole or absent, the same bytes however they were made, and refused where something was changed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.conformance import digits_mlp, foreign, isolated, text_bigram
from poa.errors import Corrupt, Mismatch, PoaError
from poa.gradients import shards
from poa.gradients.capture import Block
from poa.gradients.encodings import Int8, Plain, RankOne, encoding, leading
from poa.gradients.projection import TwoSided
from poa.gradients.search import LARGEST, half_products, scores, top
from poa.gradients.shards import Plan, Store, build, merge
from poa.gradients.store import gradients

PLAN = Plan(projection=TwoSided(4), rows=7)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("make", [digits_mlp, text_bigram])
def test_rows_are_the_projected_gradients(make: Any, tmp_path: Path) -> None:
    with isolated(make().run) as run:
        rows = TwoSided(4).apply(gradients(run, -1, run.corpus, "train"))
        for fast in (False, True):
            plan = Plan(projection=TwoSided(4), rows=7, fast=fast)
            store = Store.open(build(run, tmp_path / f"store{fast}", plan), run)
            found = np.concatenate(list(store.rows()))
            np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-6 * np.abs(rows).max())
            assert (store.count, store.width) == rows.shape


def test_two_processes_and_a_merge_give_the_bytes_of_one(tmp_path: Path) -> None:
    with isolated(digits_mlp().run) as run:
        build(run, tmp_path / "one", PLAN)
        build(run, tmp_path / "two", PLAN, share=(1, 2))
        with pytest.raises(PoaError, match="lacks shard 0 of 9"):
            merge(tmp_path / "two")
        build(run, tmp_path / "two", PLAN, share=(0, 2))
        merge(tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_torchrun_names_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with isolated(digits_mlp().run) as run:
        build(run, tmp_path / "store", PLAN)
        assert sorted(path.name for path in (tmp_path / "store").glob("shard-*")) == [
            "shard-00001",
            "shard-00004",
            "shard-00007",
        ]
        with pytest.raises(PoaError, match="process 3 of 3"):
            build(run, tmp_path / "store", PLAN, share=(3, 3))


def test_a_build_that_fails_anywhere_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with isolated(digits_mlp().run) as run:
        build(run, tmp_path / "whole", PLAN)
        save, calls = np.save, 0

        def failing(*given: Any) -> None:
            nonlocal calls
            calls += 1
            if calls % 2 == 0:
                raise OSError(28, "No space left on device")
            save(*given)

        monkeypatch.setattr(shards.np, "save", failing)
        for _ in range(8):
            with pytest.raises(PoaError, match="No space left"):
                build(run, tmp_path / "again", PLAN)
        build(run, tmp_path / "again", PLAN)
    assert calls == 17
    assert content(tmp_path / "again") == content(tmp_path / "whole")


KILLED = """
import sys
from poa.conformance import digits_mlp
from poa.gradients.projection import TwoSided
from poa.gradients.shards import Plan, build
print("go", flush=True)
build(digits_mlp().run, sys.argv[1], Plan(projection=TwoSided(4), rows=1))
"""


@pytest.mark.slow
def test_a_killed_build_is_taken_up_again(tmp_path: Path) -> None:
    run = digits_mlp().run
    plan = Plan(projection=TwoSided(4), rows=1)
    build(run, tmp_path / "whole", plan)
    for wait in (0.02, 0.1, 0.2):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "again")], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
    build(run, tmp_path / "again", plan)
    assert content(tmp_path / "again") == content(tmp_path / "whole")


def test_other_features_changed_bytes_and_open_stores_are_refused(tmp_path: Path) -> None:
    with isolated(digits_mlp().run) as run:
        folder = build(run, tmp_path / "store", PLAN)
        with pytest.raises(Mismatch, match="other features"):
            build(run, folder, Plan(projection=TwoSided(5), rows=7))
        with pytest.raises(Mismatch, match="holds features of run"):
            Store.open(folder, foreign(run))
        with pytest.raises(PoaError, match="no sealed store"):
            Store.open(tmp_path, run)
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter").write_text("years of work")
        with pytest.raises(PoaError, match="holds no store"):
            build(run, tmp_path / "thesis", PLAN)
        with pytest.raises(PoaError, match="must be float32, float16, int8 or rank1"):
            build(run, tmp_path / "new", Plan(encoding="int4"))
        with pytest.raises(PoaError, match="checkpoint 7 of a run that keeps"):
            build(run, tmp_path / "new", Plan(checkpoint=7))
        path = folder / "shard-00003" / "rows.npy"
        intact = path.read_bytes()
        path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        with pytest.raises(Corrupt, match=r"rows\.npy does not have the digest"):
            Store.open(folder, run)
        sealed = (folder / "store.json").read_text()
        (folder / "store.json").write_text(sealed.replace('"count": 60', '"count": 59'))
        with pytest.raises(Corrupt, match="does not have the digest"):
            Store.open(folder, check=False)
        (folder / "store.json").write_text(sealed[:-9])
        with pytest.raises(Corrupt, match="is not a sealed store"):
            Store.open(folder, check=False)
        (folder / "store.json").write_text(sealed)
        (folder / "shard-00002" / "manifest.json").write_text("{}")
        with pytest.raises(Corrupt, match="is not the one that was sealed"):
            Store.open(folder, run, check=False)


def test_encodings_come_back_near() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 33)).astype(np.float32)
    rows[2] = 0.0
    rows[3] *= 1e-30
    for made, gap in ((Plain("float32"), 0.0), (Plain("float16"), 1e-3), (Int8(33), 0.0081)):
        near = np.delete(rows, 3, 0) if made.name == "float16" else rows
        largest = np.abs(near).max(1, keepdims=True)
        assert (np.abs(made.decode(made.encode(near)) - near) <= gap * largest).all(), made.name
    pairs = RankOne(((4, 3), (4, 3)))
    thin = np.concatenate([np.einsum("na,nb->nab", rows[:, :4], rows[:, 4:7]).reshape(5, -1)] * 2, 1)
    np.testing.assert_allclose(pairs.decode(pairs.encode(thin)), thin, atol=5e-3)
    matrices = rows[:, :12].reshape(5, 4, 3)
    for matrix, u, v in zip(matrices, *leading(matrices), strict=True):
        rest = np.linalg.svd(matrix, compute_uv=False)[1:]
        assert np.linalg.norm(matrix - np.outer(u, v)) == pytest.approx(np.sqrt((rest**2).sum()), rel=1e-5, abs=1e-6)
        assert np.linalg.norm(u) == pytest.approx(np.linalg.norm(v), rel=1e-5)


def test_a_row_of_bytes_is_a_quarter_and_keeps_its_scale() -> None:
    rows = np.random.default_rng(1).standard_normal((50, 40)).astype(np.float32) * np.logspace(-6, 6, 50)[:, None]
    rows = rows.astype(np.float32)
    made = Int8(40)
    arrays = made.encode(rows)
    assert sum(array.nbytes for array in arrays.values()) * 4 == rows.nbytes
    scales = made.scales(arrays["low"])
    exact = np.abs(rows).max(1) / 127
    assert (scales >= exact * (1 - 1e-6)).all()
    assert (scales <= exact * 1.008).all()


def test_products_of_halves() -> None:
    rng = np.random.default_rng(2)
    for width in (1, 64, 130, 256):
        packed = rng.integers(0, 1 << 16, (9, width)).astype(np.uint16)
        parts = rng.integers(-LARGEST, LARGEST + 1, (4, width)).astype(np.int16)
        parts[:, : width // 2] = LARGEST
        packed[0], out = 0xFFFF, np.empty(9, np.float32)
        half_products(packed, *parts, out)
        expected = sum((packed >> 4 * at & 15).astype(int) @ part.astype(int) for at, part in enumerate(parts))
        assert out.tolist() == expected.tolist()


@pytest.mark.parametrize("tails", [3, 30])
def test_the_best_by_bytes_are_nearly_those_by_floats(tails: int, tmp_path: Path) -> None:
    """Ten best of 3,000, of features with heavy and with light tails."""
    rng = np.random.default_rng(3)
    rows, asked = (rng.standard_t(tails, (n, 512)).astype(np.float32) for n in (3000, 16))
    blocks = (Block("features", 0, 512, (1, 512)),)
    found = [
        Store(tmp_path, {"count": 3000}, blocks, made, tuple(made.encode(part) for part in np.split(rows, 3)))
        for made in (encoding("float32", blocks), encoding("int8", blocks))
    ]
    same = [len({*top(found[0], q, 10).places} & {*top(found[1], q, 10).places}) / 10 for q in asked]
    assert np.mean(same) >= (0.97 if tails == 30 else 0.9)


def test_what_an_encoding_cannot_hold_is_refused() -> None:
    rows = np.array([[1e6, 1.0]], np.float32)
    with pytest.raises(PoaError, match="does not fit float16"):
        Plain("float16").encode(rows)
    with pytest.raises(PoaError, match="not finite"):
        Int8(32).encode(np.full((1, 32), np.nan, np.float32))
    with pytest.raises(PoaError, match="too few for int8"):
        Int8(31)
    with pytest.raises(PoaError, match="are not layers of shapes"):
        RankOne(((2, 2),)).encode(rows)
    with pytest.raises(PoaError, match="too large for half precision"):
        RankOne(((1, 2),)).encode(rows * 1e20)


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "rank1"])
def test_the_best_are_those_of_all_scores(name: str, tmp_path: Path) -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        plan = Plan(projection=TwoSided(4), encoding=name, rows=7)
        store = Store.open(build(run, tmp_path / "store", plan), run)
        asked = np.asarray(TwoSided(4).apply(gradients(run, -1, case.queries, "query")), np.float32)
        every = scores(store, asked)
        expected = asked @ np.concatenate(list(store.rows())).T
        np.testing.assert_allclose(every, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        for query, row in zip(asked, expected, strict=True):
            best = top(store, query, 5)
            assert best.places.tolist() == np.argsort(-row, kind="stable")[:5].tolist()
            np.testing.assert_allclose(best.scores, row[best.places], rtol=1e-3, atol=1e-4 * np.abs(row).max())
        with pytest.raises(PoaError, match="must be 1 or more"):
            top(store, asked[0], 0)
        with pytest.raises(PoaError, match="against features of"):
            top(store, asked[0][:3], 1)
