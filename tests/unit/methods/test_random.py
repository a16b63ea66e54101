"""Random scores are standard normal, and depend on seed, query id and record id only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from poa.evaluation.bootstrap import two_way
from poa.evaluation.correlation import mean_spearman
from poa.indexes import Columns
from poa.methods.random import Random, RandomIndex
from poa.records import Corpus, Record

IDS = st.text("abcXYZ019-/", min_size=1, max_size=12).filter(lambda name: name[0] not in "-/")


def columns(ids: list[str]) -> Columns:
    return Columns("run", tuple(ids), {"contributor": tuple("c" for _ in ids)})


def asked(ids: list[str]) -> Corpus:
    return Corpus(Record(name, text="?") for name in ids)


def by_hand(seed: int, query: str, record: str) -> float:
    def key(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    mask = (1 << 64) - 1
    z = key(f"query {seed}\n{query}") ^ key(f"record\n{record}")
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return NormalDist().inv_cdf(((z >> 12) + 0.5) / 2**52)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 9), st.lists(IDS, min_size=1, max_size=4, unique=True), st.lists(IDS, max_size=5, unique=True))
def test_equals_one_hash_at_a_time(seed: int, queries: list[str], records: list[str]) -> None:
    scores = RandomIndex(columns(records), Random(seed)).attribute(asked(queries))
    expected = [[by_hand(seed, q, r) for r in records] for q in queries]
    np.testing.assert_allclose(scores.values, np.asarray(expected).reshape(scores.values.shape), rtol=1e-9, atol=1e-12)


def test_any_batch_and_order_gives_the_same_bytes() -> None:
    records, queries = [f"r{i}" for i in range(67)], [f"q{i}" for i in range(9)]
    whole = RandomIndex(columns(records), Random()).attribute(asked(queries))
    part = RandomIndex(columns(records[::-3]), Random()).attribute(asked(queries[4:2:-1]))
    assert part.values.tobytes() == np.ascontiguousarray(whole.values[4:2:-1, ::-3]).tobytes()


def test_is_standard_normal_and_independent() -> None:
    records, queries = [f"r{i}" for i in range(500)], [f"q{i}" for i in range(200)]
    values = RandomIndex(columns(records), Random()).attribute(asked(queries)).values
    assert kstest(values.ravel(), "norm").pvalue > 0.01
    # 6 standard errors, for the largest of 124,750 correlations of independent columns
    assert np.abs(np.corrcoef(values.T) - np.eye(500)).max() < 6 / np.sqrt(200)
    other = RandomIndex(columns(records), Random(seed=1)).attribute(asked(queries)).values
    assert abs(np.corrcoef(values.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(values.size)


def test_has_no_rank_correlation_with_anything() -> None:
    records, queries = [f"r{i}" for i in range(80)], [f"q{i}" for i in range(40)]
    values = RandomIndex(columns(records), Random()).attribute(asked(queries)).values
    truth = np.random.default_rng(0).normal(size=values.shape)
    interval = two_way(mean_spearman, values, truth, resamples=200)
    assert interval.low < 0 < interval.high


def test_save_and_load(tmp_path: Path) -> None:
    from poa.conformance import digits_linear

    case = digits_linear()
    index = Random(seed=3).fit(case.run)
    index.save(tmp_path / "index")
    loaded = RandomIndex.load(tmp_path / "index", case.run)
    assert loaded.method == Random(seed=3)
    assert loaded.attribute(case.queries).digest == index.attribute(case.queries).digest


def test_repr_is_the_identity() -> None:
    assert repr(Random(seed=2)) == "Random(seed=2)"
    with pytest.raises(AttributeError):
        Random().seed = 1  # type: ignore[misc]
