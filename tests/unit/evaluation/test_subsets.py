"""Subset truth on a small network: the exact derivative foretells small removals, noise does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.subsets import subset_masks, subset_truth
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.methods.magic import MAGIC
from poa.methods.random import Random


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
