"""theta from decoys: the smallest that holds in the bootstrap, and p-values by counting."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poa.errors import Corrupt, Mismatch, PoaError
from poa.spans import Calibration, SpanIndex, Unigram, calibrate
from poa.spans.calibrate import covering_information
from poa.spans.stored import save_arrays

VOCABULARY = 6
TABLE = Unigram(np.array([1, 2, 3, 4, 5, 7], np.int64), 7)


def texts(seed: int, documents: int, length: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, VOCABULARY, int(draw.integers(0, length))).tolist() for _ in range(documents)]


@pytest.fixture(scope="module")
def index() -> SpanIndex:
    return SpanIndex.build([(f"r{i}", "x", i, one) for i, one in enumerate(texts(1, 8, 40))], VOCABULARY, "t", "r")


def brute_scores(index: SpanIndex, tokens: list[int]) -> list[int]:
    """s_t from the definition: the largest information of any span that occurs and covers t."""
    documents = [index.tokens(i).tolist() for i in range(len(index))]
    out = [0] * len(tokens)
    for x in range(len(tokens)):
        for y in range(x + 1, len(tokens) + 1):
            piece = tokens[x:y]
            if any(piece == one[i : i + len(piece)] for one in documents for i in range(len(one))):
                worth = sum(int(TABLE.table[token]) for token in piece)
                out[x:y] = [max(old, worth) for old in out[x:y]]
    return out


def test_scores_equal_the_definition(index: SpanIndex) -> None:
    for tokens in texts(2, 25, 18):
        found = covering_information(index, TABLE, index.encode(tokens, "decoy"))
        assert found.tolist() == brute_scores(index, tokens)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_theta_is_the_smallest_that_holds(index: SpanIndex, alpha: float, seed: int) -> None:
    decoys = texts(3, 12, 25)
    found = calibrate(index, TABLE, decoys, alpha=alpha, resamples=200, upper=0.9, seed=seed)
    used = [brute_scores(index, tokens) for tokens in decoys if tokens]
    draw = np.random.default_rng(seed)
    resamples = [draw.integers(0, len(used), len(used)) for _ in range(200)]

    def upper_end(theta: int) -> float:
        shares = [
            sum(s >= theta for i in picks for s in used[i]) / sum(len(used[i]) for i in picks) for picks in resamples
        ]
        return sorted(shares)[math.ceil(0.9 * 200) - 1]

    wanted = next(theta for theta in range(TABLE.cap + 1, 10_000) if upper_end(theta) <= alpha)
    assert found.theta == wanted
    assert found.scores.tolist() == sorted(s for one in used for s in one)


def test_it_depends_on_the_seed_alone(index: SpanIndex) -> None:
    decoys = texts(4, 10, 25)
    first, again = (calibrate(index, TABLE, decoys, seed=7) for _ in range(2))
    assert first.digest == again.digest
    assert first.digest != calibrate(index, TABLE, decoys, seed=8).digest
    assert first.decoy_digest != calibrate(index, TABLE, decoys[:-1], seed=7).decoy_digest


def test_a_smaller_alpha_never_lowers_theta(index: SpanIndex) -> None:
    decoys = texts(5, 15, 30)
    thetas = [calibrate(index, TABLE, decoys, alpha=alpha).theta for alpha in (0.9, 0.5, 0.2, 0.05, 0.001)]
    assert thetas == sorted(thetas)
    assert thetas[0] > TABLE.cap
    assert thetas[-1] > thetas[0]


def test_p_values_count_decoy_tokens(index: SpanIndex) -> None:
    found = calibrate(index, TABLE, texts(6, 10, 30))
    scores = found.scores.tolist()
    for worth in range(0, max(scores) + 3):
        assert found.p_value(worth) == (1 + sum(s >= worth for s in scores)) / (1 + len(scores))
    assert found.p_value(0) == 1
    assert found.p_value(10**9) == 1 / (1 + len(scores))


def test_no_token_reaches_theta_alone() -> None:
    nothing = SpanIndex.build([], VOCABULARY, "t", "r")
    assert calibrate(nothing, TABLE, [[5], [5, 5]]).theta == TABLE.cap + 1


def test_saved_and_loaded(index: SpanIndex, tmp_path: Path) -> None:
    found = calibrate(index, TABLE, texts(7, 10, 30), alpha=0.25)
    found.save(tmp_path / "calibration")
    again = Calibration.load(tmp_path / "calibration")
    assert again.digest == found.digest
    assert repr(again) == repr(found)
    again.require(index, TABLE)
    with pytest.raises(Mismatch, match="calibration belongs to unigram table"):
        again.require(index, Unigram(TABLE.table, 8))
    path = tmp_path / "calibration" / "scores.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Corrupt, match=r"scores\.npy"):
        Calibration.load(tmp_path / "calibration")
    backwards = replace(found, scores=found.scores[::-1].copy())
    backwards.save(tmp_path / "backwards")
    with pytest.raises(Corrupt, match=r"scores\.npy: must be flat int64 in ascending order"):
        Calibration.load(tmp_path / "backwards")
    save_arrays(tmp_path / "bare", "poa.calibration/1", {"scores": found.scores}, {"theta": 3})
    with pytest.raises(Corrupt, match=r"manifest\.json: its note must give theta, alpha"):
        Calibration.load(tmp_path / "bare")


def test_bad_options_are_refused(index: SpanIndex) -> None:
    good = [[1, 2], [3]]
    for options, message in (
        ({"alpha": 0.0}, "alpha is 0.0; it must lie between 0 and 1"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"upper": 1.0}, "upper is 1.0"),
        ({"resamples": 0}, "resamples is 0"),
    ):
        with pytest.raises(PoaError, match=message):
            calibrate(index, TABLE, good, **options)
    with pytest.raises(PoaError, match="1 non-empty decoy documents; a bootstrap over documents needs 2"):
        calibrate(index, TABLE, [[1], []])
    with pytest.raises(PoaError, match="decoy 1: token 6 at position 0"):
        calibrate(index, TABLE, [[1], [6]])
    with pytest.raises(Mismatch, match="unigram table"):
        calibrate(index, Unigram(TABLE.table[:2], 7), good)
