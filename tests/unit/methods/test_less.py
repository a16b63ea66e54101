"""LESS against the formula written out, and with the optimizer left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated
from poa.errors import Unsupported
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.gradients.capture import capturing
from poa.gradients.moments import moment_rows
from poa.gradients.store import gradients
from poa.methods.less import LESS


@pytest.fixture(scope="module")
def adam(tmp_path_factory: pytest.TempPathFactory) -> ClassifierRun:
    folder: Path = tmp_path_factory.mktemp("adam")
    corpus = digits_mlp().run.corpus
    return train_classifier(corpus, (8,), steps=30, batch=16, lr=0.01, optimizer="adamw", keep=2, cache=folder)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_equals_the_formula(adam: ClassifierRun) -> None:
    queries = digits_mlp().queries
    expected = np.zeros((len(queries), len(adam.corpus)))
    for c, step in enumerate(adam.checkpoints):
        up = np.array(gradients(adam, c, adam.corpus, "train").values)
        asked = np.array(gradients(adam, c, queries, "query").values)
        moments = adam.moments(c)
        assert moments is not None
        model = adam.model(c)
        with capturing(adam.task, model) as capture:
            first, second = moment_rows(capture.blocks, adam.task.tracked(model), moments)
        down = -up  # the gradient of the loss; batches of 16 are averaged over records
        mean = (0.9 * first.numpy() + 0.1 * down) / (1 - 0.9 ** (step + 1))
        power = (0.999 * second.numpy() + 0.001 * down**2) / (1 - 0.999 ** (step + 1))
        expected += 0.01 * unit(asked) @ unit(-mean / (np.sqrt(power) + 1e-8)).T
    found = LESS(projection=1 << 20).fit(adam).attribute(queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_without_adam_it_is_cosines_weighted_by_rate(adam: ClassifierRun) -> None:
    queries = digits_mlp().queries
    expected = np.zeros((len(queries), len(adam.corpus)))
    for c in range(len(adam.checkpoints)):
        train, asked = gradients(adam, c, adam.corpus, "train"), gradients(adam, c, queries, "query")
        expected += 0.01 * unit(np.array(asked.values)) @ unit(np.array(train.values)).T
    found = LESS(projection=1 << 20, adam=False).fit(adam).attribute(queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_plain_descent_has_no_state_to_read() -> None:
    with isolated(digits_mlp().run) as run, pytest.raises(Unsupported, match="trained by SGD: use adam=False"):
        LESS().fit(run)
