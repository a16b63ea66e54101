"""The classifier task and its trainer equal formulas written by hand, and refuse what does not fit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from poa.errors import CorpusError, PoaError, Unsupported
from poa.factory.classifier import Classifier, ClassifierRecipe, train_classifier
from poa.factory.digits import digits
from poa.records import Corpus, Record

CORPUS = digits(40, contributors=4, classes=(1, 7, 9))


def fixed_logits(rows: list[list[float]]) -> tuple[nn.Module, Classifier, Corpus]:
    """A model whose logits are the features."""
    task = Classifier(len(rows[0]), len(rows[0]))
    model = nn.Sequential(nn.Linear(len(rows[0]), len(rows[0]), bias=False, dtype=torch.float64))
    model[0].weight.data.copy_(torch.eye(len(rows[0])))
    records = (Record(f"r{i}", features=tuple(row), label=i % len(row)) for i, row in enumerate(rows))
    return model, task, Corpus(records)


LOGITS = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(st.floats(-8, 8), min_size=width, max_size=width), min_size=1, max_size=4)
)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(LOGITS)
def test_loss_and_measurement_equal_the_definitions(rows: list[list[float]]) -> None:
    model, task, corpus = fixed_logits(rows)
    batch = task.batch(corpus)
    losses, odds = task.loss(model, batch).tolist(), task.measurement(model, batch).tolist()
    for record, loss, odd in zip(corpus, losses, odds, strict=True):
        weights = [math.exp(z) for z in record.features]
        own = weights[record.label] / sum(weights)
        assert loss == pytest.approx(-math.log(own), abs=1e-9)
        assert odd == pytest.approx(math.log(own) - math.log(1 - own), abs=1e-6)


def test_measurement_is_exact_where_the_probability_rounds_to_one() -> None:
    model, task, corpus = fixed_logits([[900.0, 0.0, 0.0], [900.0, 0.0, 0.0]])
    odds = task.measurement(model, task.batch(corpus)).tolist()
    assert odds[0] == pytest.approx(900 - math.log(2), rel=1e-15)
    assert odds[1] == pytest.approx(-900, rel=1e-15)


def test_measurement_has_gradients_everywhere() -> None:
    model, task, corpus = fixed_logits([[900.0, -3.0, 5.0], [1.0, 2.0, 3.0]])
    task.measurement(model, task.batch(corpus)).sum().backward()
    assert bool(torch.isfinite(model[0].weight.grad).all())  # type: ignore[index]
    assert float(model[0].weight.grad.abs().max()) > 0  # type: ignore[index]


def test_hidden_tracked_and_tokens() -> None:
    linear, deep = train_classifier(CORPUS, steps=1), train_classifier(CORPUS, hidden=(32, 5), steps=1)
    batch = linear.task.batch(CORPUS[:6])
    assert torch.equal(linear.task.hidden(linear.model(), batch), batch["x"])
    model = deep.model()
    expected = torch.tanh(model[2](torch.tanh(model[0](batch["x"]))))
    assert torch.equal(deep.task.hidden(model, batch), expected)
    assert list(deep.task.tracked(model)) == ["0", "2", "4"]
    model[2].requires_grad_(False)
    assert list(deep.task.tracked(model)) == ["0", "4"]
    with pytest.raises(Unsupported, match=f"record '{CORPUS.ids[0]}' is a feature vector"):
        deep.task.tokens(CORPUS[0])
    with pytest.raises(Unsupported, match=r"ends in nn\.Linear"):
        deep.task.hidden(nn.Sequential(nn.Tanh()), batch)


def test_wrong_records_are_named() -> None:
    task = Classifier(2, 3)
    with pytest.raises(PoaError, match="record 'a' has 3 features; this classifier takes 2"):
        task.batch([Record("a", features=(1.0, 2.0, 3.0), label=0)])
    with pytest.raises(PoaError, match="record 'b' has label 3, must be 0 to 2"):
        task.batch([Record("a", features=(1.0, 2.0), label=2), Record("b", features=(1.0, 2.0), label=3)])
    with pytest.raises(PoaError, match="record 't' has 0 features"):
        train_classifier(Corpus([Record("f", features=(1.0, 2.0), label=0), Record("t", "text")]))
    assert task.batch([])["x"].shape == (0, 2)


@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_training_equals_sgd_by_hand(batch: int, momentum: float, decay: float) -> None:
    weights = np.linspace(0, 2, len(CORPUS))
    run = train_classifier(CORPUS, steps=13, batch=batch, lr=0.2, momentum=momentum, decay=decay, weights=weights)
    x = np.asarray([record.features for record in CORPUS])
    y = np.eye(3)[[record.label for record in CORPUS]]
    theta = {name: value.numpy().copy() for name, value in run.initial.items()}
    velocity = {name: np.zeros_like(value) for name, value in theta.items()}
    for step, row in enumerate(run.steps.records):
        picks = row[row >= 0]
        logits = x[picks] @ theta["0.weight"].T + theta["0.bias"]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        nats = -np.log((p * y[picks]).sum(1))
        assert run.steps.denominator[step] == len(picks)
        assert run.steps.loss[step] == pytest.approx((weights[picks] * nats).sum() / len(picks), rel=1e-10)
        error = (p - y[picks]) * weights[picks, None] / len(picks)
        slopes = {"0.weight": error.T @ x[picks], "0.bias": error.sum(0)}
        for name in theta:
            velocity[name] = momentum * velocity[name] + slopes[name] + decay * theta[name]
            theta[name] -= 0.2 * velocity[name]
    for name, value in run.model().state_dict().items():
        np.testing.assert_allclose(value.numpy(), theta[name], rtol=1e-10, atol=1e-13)


def test_every_record_once_an_epoch_and_a_short_last_batch() -> None:
    log = train_classifier(CORPUS, steps=8, batch=12).steps
    assert log.records.shape == (8, 12)
    for epoch in (log.records[:4], log.records[4:]):
        assert sorted(epoch[epoch >= 0].tolist()) == list(range(40))
    assert (log.records[3] >= 0).sum() == 4
    assert log.denominator.tolist() == [12, 12, 12, 4] * 2
    assert not np.array_equal(log.records[:3], log.records[4:7])


def test_masked_removal_is_training_without_the_record() -> None:
    run = train_classifier(CORPUS, hidden=(6,), steps=30, batch=10)
    weights = np.ones(len(CORPUS))
    weights[11] = 0
    masked = run.retrained(weights)
    changed = Corpus(
        replace(record, features=(0.5,) * 64, label=0) if i == 11 else record for i, record in enumerate(CORPUS)
    )
    # What the masked record says cannot matter; that it was masked must.
    other = train_classifier(changed, hidden=(6,), steps=30, batch=10, weights=weights, classes=3)
    for name, value in masked.model().state_dict().items():
        assert torch.equal(value, other.model().state_dict()[name])
        assert not torch.equal(value, run.model().state_dict()[name])
    assert np.array_equal(masked.steps.records, run.steps.records)
    assert np.array_equal(masked.steps.denominator, run.steps.denominator)
    assert all(torch.equal(masked.initial[name], value) for name, value in run.initial.items())
    assert run.retrained(np.ones(len(CORPUS))).digest == run.digest != masked.digest


def test_same_arguments_same_bytes_and_every_argument_counts() -> None:
    base = dict(hidden=(4,), steps=6, batch=16, lr=0.1, momentum=0.0, decay=0.0, seed=0, keep=2)
    digest = train_classifier(CORPUS, **base).digest  # type: ignore[arg-type]
    assert train_classifier(CORPUS, **base).digest == digest  # type: ignore[arg-type]
    changes = dict(hidden=(5,), steps=7, batch=15, lr=0.2, momentum=0.1, decay=0.1, seed=1, keep=3, dtype="float32")
    others = {train_classifier(CORPUS, **(base | {k: v})).digest for k, v in changes.items()}  # type: ignore[arg-type]
    others.add(train_classifier(CORPUS[:39], **base).digest)  # type: ignore[arg-type]
    assert len(others) == len(changes) + 1
    assert digest not in others


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    train_classifier(CORPUS, hidden=(4,), steps=2).model()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002


def test_checkpoints_and_fresh_models() -> None:
    run = train_classifier(CORPUS, steps=10, keep=4)
    assert run.checkpoints == (2, 5, 8, 10)
    assert train_classifier(CORPUS, steps=2, keep=9).checkpoints == (1, 2)
    shorter = train_classifier(CORPUS, steps=5, keep=1)
    assert torch.equal(run.model(1)[0].weight, shorter.model()[0].weight)
    assert torch.equal(run.base()[0].weight, run.initial["0.weight"])
    first = run.model()
    first[0].weight.data.zero_()
    assert float(run.model()[0].weight.detach().abs().max()) > 0
    assert not first.training


def test_training_learns() -> None:
    corpus = digits(400, seed=4)
    run = train_classifier(corpus[:300], steps=150, lr=0.5)
    with torch.no_grad():
        odds = run.task.measurement(run.model(), run.task.batch(corpus[300:]))
    assert float((odds > 0).double().mean()) > 0.8
    assert run.steps.loss[-10:].mean() < 0.3 * run.steps.loss[0]


def test_single_precision_follows_double() -> None:
    double, single = (train_classifier(CORPUS, (8,), steps=20, dtype=dtype) for dtype in ("float64", "float32"))
    assert single.model()[0].weight.dtype == torch.float32
    close = torch.allclose(single.model()[0].weight.double(), double.model()[0].weight, rtol=1e-4, atol=1e-5)
    assert close


def test_groups_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path / "home"))
    twins = CORPUS[:3] + Corpus([replace(CORPUS[1], id="twin", contributor="thief")])
    run = train_classifier(twins, steps=1)
    assert run.groups["cluster"] == (*CORPUS.ids[:3], CORPUS.ids[1])
    assert run.groups["contributor"] == run.groups["payee"] == twins.contributors
    assert run.groups["datanet"] == ("digits",) * 4
    assert run.cache == tmp_path / "home" / "runs" / run.digest[:16]
    assert train_classifier(twins, steps=1, cache=tmp_path / "own").cache == tmp_path / "own"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0, must be 1 or more"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"hidden": (0,)}, "every width must be 1 or more"),
        ({"lr": 0.0}, "need rate > 0"),
        ({"lr": float("nan")}, "need rate > 0"),
        ({"momentum": 1.0}, "momentum < 1"),
        ({"dtype": "float16"}, "dtype is 'float16', must be one of float32, float64"),
        ({"weights": [1.0]}, r"weights have shape \(1,\), must be one per record: \(40,\)"),
        ({"weights": [1.0] * 39 + [-1.0]}, r"weight of record 39 is -1\.0"),
        ({"weights": [float("nan")] + [1.0] * 39}, "weight of record 0 is nan"),
        ({"classes": 2}, "has label 2, must be 0 to 1"),
        ({"lr": 1e300, "decay": 1e10}, "training diverged at step"),
        ({"lr": 1e300, "decay": 1e10, "steps": 1}, "training diverged: a weight is not finite after step 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        train_classifier(CORPUS, **({"steps": 5} | options))  # type: ignore[arg-type]


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(PoaError, match="the corpus is empty"):
        train_classifier(CORPUS[:0])


def test_a_list_of_widths_is_a_tuple() -> None:
    recipe = ClassifierRecipe(hidden=[3, 4])  # type: ignore[arg-type]
    assert recipe == ClassifierRecipe(hidden=(3, 4))
    assert hash(recipe) == hash(ClassifierRecipe(hidden=(3, 4)))


def test_digits_are_the_source_with_stable_contributors() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    corpus = digits()
    assert len(corpus) == len(labels) == len(set(corpus.ids))
    for record in corpus[:50]:
        assert np.array_equal(np.asarray(record.features) * 16, pixels[record.registered])
        assert record.label == labels[record.registered]
    assert digits(100) == corpus[:100]
    assert digits(100, seed=1) != corpus[:100]
    some = digits(classes=(8, 3))
    assert {record.label for record in some} == {0, 1}
    assert all(labels[record.registered] == (8, 3)[record.label] for record in some)


def test_contributors_specialise_as_concentration_falls() -> None:
    def largest_share(concentration: float) -> float:
        corpus = digits(contributors=5, concentration=concentration)
        counts = np.zeros((10, 5))
        for record in corpus:
            counts[record.label, int(record.contributor.removeprefix("contributor-"))] += 1
        return float((counts.max(1) / counts.sum(1)).mean())

    assert largest_share(0.05) > 0.75 > 0.35 > largest_share(100.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1798}, "count is 1798, but there are 1797"),
        ({"classes": (1, 11)}, "must be distinct digits"),
        ({"classes": ()}, "must be distinct digits"),
        ({"contributors": 0}, "contributors >= 1"),
        ({"concentration": 0.0}, "concentration > 0"),
    ],
)
def test_bad_digits_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        digits(**options)  # type: ignore[arg-type]
