"""TrackStar against the whitened cosine written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated
from poa.errors import Unsupported
from poa.factory.classifier import train_classifier
from poa.gradients.capture import capturing
from poa.gradients.moments import moment_rows
from poa.gradients.store import gradients
from poa.gradients.whitening import whitening
from poa.methods.trackstar import TrackStar


def whitened_cosines(train: np.ndarray, asked: np.ndarray, damping: float) -> np.ndarray:
    moment = train.T @ train / len(train)
    lam = damping * np.trace(moment) / min(train.shape)
    values, vectors = np.linalg.eigh(moment + lam * np.eye(len(moment)))
    root = (vectors / np.sqrt(values)) @ vectors.T
    left, right = asked @ root, train @ root
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return left @ right.T


def test_without_adam_it_is_the_whitened_cosine() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        train = np.array(gradients(run, -1, run.corpus, "train").values)
        asked = np.array(gradients(run, -1, case.queries, "query").values)
        found = TrackStar(1 << 20, 0.1).fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, whitened_cosines(train, asked, 0.1), rtol=0, atol=1e-8)


def test_adam_divides_by_the_root_of_its_second_moment(tmp_path: Path) -> None:
    case = digits_mlp()
    run = train_classifier(case.run.corpus, (8,), steps=30, lr=0.01, optimizer="adamw", keep=1, cache=tmp_path)
    model, moments = run.model(), run.moments()
    assert moments is not None
    with capturing(run.task, model) as capture:
        second = moment_rows(capture.blocks, run.task.tracked(model), moments)[1].numpy()
    scale = 1 / (np.sqrt(second / (1 - 0.999**30)) + 1e-8)
    train = np.array(gradients(run, -1, run.corpus, "train").values) * scale
    asked = np.array(gradients(run, -1, case.queries, "query").values) * scale
    found = TrackStar(1 << 20, 0.1).fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, whitened_cosines(train, asked, 0.1), rtol=0, atol=1e-6)


def test_damping_is_chosen_and_told() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        meta = TrackStar().fit(run).attribute(case.queries).meta
    assert meta["damping"][0]["rule"] == "effective-dimension/1"
    with pytest.raises(Unsupported, match="zero"):
        whitening(np.zeros((3, 2)))
