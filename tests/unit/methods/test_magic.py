"""Programs of arrays against the torch trainings that they stand for, and their derivatives against both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.conformance import text_bigram
from poa.errors import Mismatch, PoaError, Unsupported
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.gradients.program import Program
from poa.gradients.unrolled import HalfSteps
from poa.methods import load_index
from poa.methods.adamw_influence import AdamWInfluence
from poa.methods.dvemb import DVEmb
from poa.methods.magic import MAGIC
from poa.records import Corpus

CORPUS = digits(50, classes=(0, 1, 2), seed=2)
TRAIN, QUERIES = CORPUS[:40], CORPUS[40:]
OPTIMIZERS: list[dict[str, Any]] = [
    {"lr": 0.2},
    {"lr": 0.2, "momentum": 0.9, "decay": 0.01},
    {"lr": 0.01, "optimizer": "adamw", "decay": 0.1},
]


def run_of(folder: Path, **settings: Any) -> ClassifierRun:
    given: dict[str, Any] = {"steps": 13, "batch": 16, "keep": 1, "cache": folder} | settings
    return train_classifier(TRAIN, (6,), **given)


def measured(run: ClassifierRun, queries: Corpus) -> np.ndarray:
    return run.task.measurement(run.model(), run.task.batch(list(queries))).detach().numpy()


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("dtype", "near"), [("float64", 1e-12), ("float32", 1e-4)])
def test_program_trains_as_torch_does(settings: dict[str, Any], dtype: Any, near: float, tmp_path: Path) -> None:
    """40 records in batches of 16: the last batch of an epoch is short."""
    run = run_of(tmp_path, dtype=dtype, **settings)
    weights = np.random.default_rng(0).integers(0, 2, (3, 40)).astype(float)
    found = run.program().measured(weights, run.arrays(QUERIES))
    expected = np.stack([measured(run.retrained(row), QUERIES) for row in weights])
    np.testing.assert_allclose(found, expected, rtol=0, atol=near * np.abs(expected).max())
    start = {name: value.numpy() for name, value in run.states[-1].items()}
    for name, value in run.program().trained(np.ones((1, 40))).items():
        np.testing.assert_allclose(value[0], start[name], rtol=0, atol=near * np.abs(start[name]).max())


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=str)
def test_magic_is_the_derivative_by_the_weight(settings: dict[str, Any], tmp_path: Path) -> None:
    """Central differences of torch retrainings, in float64."""
    run = run_of(tmp_path, **settings)
    found = MAGIC().fit(run).attribute(QUERIES)
    step = 1e-4
    for at in (0, 7, 39):
        ends = []
        for sign in (1, -1):
            weights = np.ones(len(TRAIN))
            weights[at] += sign * step
            ends.append(measured(run.retrained(weights), QUERIES))
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found.values[:, at], expected, rtol=0, atol=1e-6 * np.abs(found.values).max())
    assert found.unit == "nats"
    assert found.meta["measured"] < 1e-12


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=str)
def test_magic_is_the_walk_back_by_hand(settings: dict[str, Any], tmp_path: Path) -> None:
    """The recursions of `poa.gradients.adjoint`, written for torch, know nothing of JAX."""
    run = run_of(tmp_path, **settings)
    other = AdamWInfluence() if settings.get("optimizer") else DVEmb()
    expected = other.fit(run).attribute(QUERIES).values
    found = MAGIC().fit(run).attribute(QUERIES).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_stacking_changes_nothing_but_last_digits(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    whole = MAGIC().fit(run).attribute(QUERIES).values
    parts = MAGIC(stack=3).fit(run).attribute(QUERIES).values
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_masked_records_have_no_part_in_the_training(tmp_path: Path) -> None:
    """A run that masks records is differentiated where it is: at weights of 0."""
    run = run_of(tmp_path)
    weights = np.ones(len(TRAIN))
    weights[:5] = 0.0
    masked = run.retrained(weights)
    found = MAGIC().fit(masked).attribute(QUERIES)
    assert found.meta["measured"] < 1e-12
    assert np.abs(found.values[:, :5]).max() > 0


def test_a_training_that_is_not_smooth_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, lr=8.0, steps=60)
    assert HalfSteps.of(run.program(), run.weights, run.arrays(QUERIES)).smoothness < 0.9
    with pytest.raises(PoaError, match="not smooth"):
        MAGIC().fit(run).attribute(QUERIES)
    tame = run_of(tmp_path)
    steps = HalfSteps.of(tame.program(), tame.weights, tame.arrays(QUERIES))
    assert steps.smoothness > 0.9
    slopes = MAGIC().fit(tame).attribute(QUERIES)
    assert steps.unforetold(slopes.values) == slopes.meta["unforetold"] < 0.2
    assert steps.unforetold(0 * slopes.values) == 1


def test_a_derivative_between_cusps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half steps agree in sign, and the slope at the weights themselves is another one."""
    run = run_of(tmp_path)
    real = Program.metagradient

    def steep(self: Program, *given: Any) -> Any:
        values, slopes = real(self, *given)
        return values, slopes * np.where(np.arange(40) % 7, 1, -30)

    monkeypatch.setattr(Program, "metagradient", steep)
    with pytest.raises(Unsupported, match="worse than no change"):
        MAGIC().fit(run).attribute(QUERIES)
    assert "unforetold" not in MAGIC(smooth=0).fit(run).attribute(QUERIES).meta


def test_a_program_that_is_not_the_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path)
    other = run_of(tmp_path, lr=0.3).program()
    monkeypatch.setattr(ClassifierRun, "program", lambda self: other)
    with pytest.raises(Mismatch, match="should stand for"):
        MAGIC(smooth=0.0).fit(run).attribute(QUERIES)


def test_low_precision_and_foreign_runs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="no program"):
        MAGIC().fit(text_bigram().run)
    low = Program(**(vars(run_of(tmp_path).program()) | {"dtype": "bfloat16"}))
    monkeypatch.setattr(ClassifierRun, "program", lambda self: low)
    with pytest.raises(Unsupported, match="bfloat16"):
        MAGIC().fit(run_of(tmp_path))


def test_weights_of_another_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match=r"\[models, 40\]"):
        run_of(tmp_path).program().trained(np.ones((2, 39)))


def test_a_stored_index_gives_the_same_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    index = MAGIC(stack=8).fit(run)
    index.save(tmp_path / "index")
    assert load_index(tmp_path / "index", run).attribute(QUERIES).digest == index.attribute(QUERIES).digest


def test_settings_are_checked() -> None:
    with pytest.raises(PoaError, match="stack"):
        MAGIC(stack=0)
    with pytest.raises(PoaError, match="smooth"):
        MAGIC(smooth=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stack": 2.5}, "magic.stack is 2.5, must be 1 or more"),
        ({"stack": True}, "magic.stack is True"),
        ({"probes": 2.5}, "magic.probes is 2.5"),
        ({"smooth": "x"}, "magic.smooth is 'x', must lie between 0 and 1"),
        ({"seed": -1}, "magic.seed is -1, must be an integer of 0 or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        MAGIC(**options)
