"""Subset truth on a small network: the exact derivative foretells small removals, noise does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.subsets import SubsetTruth, subset_masks, subset_truth
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.methods.magic import MAGIC
from poa.methods.random import Random
from poa.scores import Scores


def test_the_derivative_foretells_removal_and_noise_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path))
    corpus = digits(70, classes=(0, 1, 2))
    run = train_classifier(corpus[:60], (6,), steps=20, batch=30, lr=0.2, measures="log-probability")
    truth = subset_truth(run, corpus[60:], removed=0.05, subsets=40, seeds=(0, 1))
    exact = MAGIC().fit(run).attribute(corpus[60:])
    assert truth.of(0).lds(exact, resamples=50).value > 0.95
    assert abs(truth.lds(Random().fit(run).attribute(corpus[60:]), resamples=50).value) < 0.3
    assert 0 < truth.reliability <= truth.ceiling <= 1
    assert set(truth.spread(exact, draws=20)) == {"seeds", "subsets", "queries"}
    with pytest.raises(PoaError, match="two seeds"):
        _ = truth.of(0).reliability


def test_masks_lack_what_they_say() -> None:
    masks = subset_masks(200, 0.05, 7)
    np.testing.assert_array_equal((masks == 0).sum(1), 10)
    assert subset_masks(200, 0.05, 7, seed=1).tobytes() != masks.tobytes()
    with pytest.raises(PoaError, match="between 0 and 1"):
        subset_masks(10, 1.0, 2)


def synthetic(noise: float) -> tuple[SubsetTruth, Scores]:
    """Three seeds of an additive truth plus noise, and the scores that made it."""
    rng = np.random.default_rng(0)
    masks = subset_masks(30, 0.5, 400)
    parts = rng.normal(size=(12, 30))
    signal = masks @ parts.T
    values = signal + noise * signal.std(0) * rng.normal(size=(3, *signal.shape))
    names, asked = tuple(f"r{i}" for i in range(30)), tuple(f"q{i}" for i in range(12))
    scores = Scores(parts, asked, names, {}, "nats", "exact")
    return SubsetTruth(masks, values, (0, 1, 2), asked, names, 0.5), scores


def test_reliability_and_ceiling_are_those_of_signal_and_noise() -> None:
    """Noise as strong as the signal: R = 1/2, R_3 = 3/4 (Pearson; ranks of normal numbers lie a little below)."""
    truth, scores = synthetic(1.0)
    assert truth.reliability == pytest.approx(0.5, abs=0.06)
    assert truth.ceiling == pytest.approx(np.sqrt(0.75), abs=0.04)
    assert truth.lds(scores, resamples=20).value == pytest.approx(truth.ceiling, abs=0.03)
    assert synthetic(0.0)[0].reliability == pytest.approx(1.0)


def test_needed_subsets_follow_the_asked_width() -> None:
    truth, scores = synthetic(1.0)
    spread = truth.spread(scores)
    floor = 1.96 * spread["queries"]
    assert truth.needed(spread, 0.9 * floor) == float("inf")
    wide, narrow = truth.needed(spread, 4 * floor), truth.needed(spread, 2 * floor)
    assert narrow / wide == pytest.approx(15 / 3)
    assert wide == pytest.approx((1.96 * spread["subsets"]) ** 2 * 400 / (15 * floor**2))


def test_scores_for_other_records_are_refused() -> None:
    truth, scores = synthetic(1.0)
    with pytest.raises(PoaError, match="other records"):
        truth.predicted(scores.__class__(scores.values[:, :2], scores.query_ids, ("a", "b"), {}, "nats", "exact"))
