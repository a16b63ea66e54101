"""Methods that walk through a training, against finite differences in a record's weight and against TracIn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.errors import Unsupported
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.gradients.store import gradients
from poa.gradients.trajectory import record_rates
from poa.methods import load_index
from poa.methods.adamw_influence import AdamWInfluence
from poa.methods.dvemb import DVEmb
from poa.methods.graddot import GradDot
from poa.methods.in_run import InRun
from poa.methods.tracin import TracInCP
from poa.records import Corpus

CORPUS = digits(20, classes=(0, 1, 2), seed=2)
TRAIN, QUERIES = CORPUS[:16], CORPUS[16:]


def run_of(folder: Path, **settings: Any) -> ClassifierRun:
    given: dict[str, Any] = {"steps": 12, "batch": 6, "lr": 0.2, "keep": 3, "cache": folder} | settings
    return train_classifier(TRAIN, (5,), **given)


def measured(run: ClassifierRun, queries: Corpus) -> np.ndarray:
    model = run.model()
    return np.array([float(run.task.measurement(model, run.task.batch([q])).detach()) for q in queries])


def differences(run: ClassifierRun, step: float = 1e-4) -> np.ndarray:
    """[Q, N] central differences of the final measurement in each record's weight."""
    out = []
    for at in range(len(run.corpus)):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(run.corpus))
            weights[at] += sign * step
            ends.append(measured(run.retrained(weights), QUERIES))
        out.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(out, 1)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"momentum": 0.5, "decay": 0.1}], ids=str)
def test_dvemb_is_the_derivative_by_the_weight(settings: dict[str, float], tmp_path: Path) -> None:
    run = run_of(tmp_path, **settings)
    expected = differences(run)
    found = DVEmb().fit(run).attribute(QUERIES)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert found.unit == "nats"


@pytest.mark.parametrize("settings", [{}, {"decay": 0.1, "eps": 1e-3}, {"betas": (0.5, 0.9)}], ids=str)
def test_adamw_influence_is_the_derivative_by_the_weight(settings: dict[str, Any], tmp_path: Path) -> None:
    run = run_of(tmp_path, optimizer="adamw", lr=0.01, **settings)
    expected = differences(run)
    found = AdamWInfluence().fit(run).attribute(QUERIES)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_in_run_is_tracin_with_every_step_as_a_checkpoint(tmp_path: Path) -> None:
    """Gradients before each step: TracIn's checkpoints are after steps, so that its first segment is by hand."""
    run = run_of(tmp_path, keep=12)
    expected = np.zeros((len(QUERIES), len(TRAIN)))
    start = run_of(tmp_path / "base", steps=1, lr=1e-300, keep=1)
    for step in range(12):
        at, where = (start, 0) if step == 0 else (run, step - 1)
        rates = record_rates(run, step, step + 1)
        train, asked = gradients(at, where, TRAIN, "train").values, gradients(at, where, QUERIES, "query").values
        expected += asked @ (train * rates[:, None]).T
    found = InRun().fit(run).attribute(QUERIES).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert not np.allclose(found, TracInCP().fit(run).attribute(QUERIES).values)


def test_each_is_for_its_optimizer_and_needs_a_replay(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="take adamw_influence"):
        DVEmb().fit(run_of(tmp_path, optimizer="adamw", lr=0.01))
    with pytest.raises(Unsupported, match="take dvemb"):
        AdamWInfluence().fit(run_of(tmp_path))


@pytest.mark.parametrize("method", [DVEmb(), InRun()], ids=repr)
def test_a_stored_index_walks_the_same_way(method: Any, tmp_path: Path) -> None:
    case = text_bigram()
    with isolated(case.run) as run:
        index = method.fit(run)
        index.save(tmp_path / "index")
        again = load_index(tmp_path / "index", run)
        assert again.attribute(case.queries[:2]).digest == index.attribute(case.queries[:2]).digest


def test_one_step_is_graddot_by_its_rate(tmp_path: Path) -> None:
    """After a single step the walk back is <grad m at the end, -grad loss at the start> rate / denominator."""
    with isolated(digits_mlp().run) as run:
        whole = GradDot().fit(run).attribute(digits_mlp().queries).values
    assert np.abs(whole).max() > 0
    run_ = run_of(tmp_path, steps=1, batch=16, keep=1)
    start = run_of(tmp_path / "base", steps=1, batch=16, lr=1e-300, keep=1)
    expected = gradients(run_, 0, QUERIES, "query").values @ gradients(start, 0, TRAIN, "train").values.T * 0.2 / 16
    found = DVEmb().fit(run_).attribute(QUERIES).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
