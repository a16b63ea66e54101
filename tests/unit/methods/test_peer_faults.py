"""Faults found in other libraries (docs/peers.md) that poa must not have.

Inverses of batches added up, projections that nobody asked for, rows of a gradient in the wrong order where a layer has
a bias, eigenvectors applied the wrong way round, NaN handed out as a score, files left in the working directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from poa.conformance import RunView, isolated, text_bigram
from poa.digests import plain_digest
from poa.errors import PoaError, Unsupported
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.gradients.capture import capturing
from poa.gradients.covariances import Covariances
from poa.gradients.kronecker import Squares, bases_of
from poa.methods import available, method
from poa.records import Corpus
from poa.steplog import StepLog

COUNT, ASKED = 40, 5
GRADIENT = sorted(name for name, kind in available().items() if kind.family == "gradient")
# Methods whose scores are about the final weights alone: nothing that happened in which batch can matter to them.
# (captum reads its records one at a time and keeps nothing.)
CHECKPOINT = [
    name for name in ("graddot", "gradcos", "influence", "datainf", "logra", "kfac", "ekfac") if name in GRADIENT
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return digits(COUNT + ASKED, contributors=3, classes=(0, 1, 2, 3), seed=2)


@pytest.fixture(scope="module")
def run(corpus: Corpus) -> ClassifierRun:
    """An MLP of 832 parameters, biases included: more than the 512 that a hidden projection would leave."""
    return train_classifier(corpus[:COUNT], hidden=(12,), steps=40, batch=8, lr=0.3, keep=2)


@pytest.fixture
def view(run: ClassifierRun) -> Iterator[RunView]:
    with isolated(run) as found:
        yield found


def rows(run: Any, records: Corpus, side: str) -> np.ndarray:
    """[n, p] by autograd, one record at a time: -grad loss or grad measurement, parameters in their own order."""
    model = run.model()
    out: list[torch.Tensor] = []
    for record in records:
        batch = run.task.batch([record])
        value = -run.task.loss(model, batch) if side == "train" else run.task.measurement(model, batch)
        out.append(torch.cat([part.flatten() for part in torch.autograd.grad(value.sum(), list(model.parameters()))]))
    return torch.stack(out).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_graddot_is_the_exact_product(view: RunView, corpus: Corpus) -> None:
    train, asked = rows(view, view.corpus, "train"), rows(view, corpus[COUNT:], "query")
    assert train.shape[1] > 512
    close(method("graddot").fit(view).attribute(corpus[COUNT:]).values, asked @ train.T)
    # what a projection to 512 dimensions would have made of it is far off
    drawn = np.random.default_rng(0).standard_normal((train.shape[1], 512)) / np.sqrt(512)
    projected = (asked @ drawn) @ (train @ drawn).T
    assert np.linalg.norm(projected - asked @ train.T) > 0.05 * np.linalg.norm(asked @ train.T)


def test_influence_inverts_one_matrix_over_all_records(view: RunView, corpus: Corpus) -> None:
    train, asked = rows(view, view.corpus, "train"), rows(view, corpus[COUNT:], "query")
    scores = method("influence", checkpoints="last").fit(view).attribute(corpus[COUNT:])
    (lam,) = scores.meta["lambda"]

    def solved(part: np.ndarray) -> np.ndarray:
        fisher = part.T @ part / len(part) + lam * np.eye(train.shape[1])
        return asked @ np.linalg.solve(fisher, train.T) / COUNT

    close(scores.values, solved(train))
    summed = solved(train[: COUNT // 2]) + solved(train[COUNT // 2 :])
    assert np.linalg.norm(summed - scores.values) > 0.5 * np.linalg.norm(scores.values)


@pytest.mark.parametrize("name", CHECKPOINT)
def test_batches_of_the_training_do_not_matter(name: str, view: RunView, corpus: Corpus) -> None:
    """The same weights, logged as if every step had taken all records at once."""
    log = view.steps
    count = len(log.rate)
    whole = StepLog(np.tile(np.arange(COUNT), (count, 1)), log.rate, np.full(count, float(COUNT)), log.loss)
    other = replace(view, steps=whole, digest=plain_digest([view.digest, "whole"]))
    expected = method(name).fit(view).attribute(corpus[COUNT:]).values
    np.testing.assert_array_equal(method(name).fit(other).attribute(corpus[COUNT:]).values, expected)


@pytest.mark.parametrize("size", [1, 7, COUNT])
def test_curvature_does_not_depend_on_how_records_are_batched(size: int, view: RunView) -> None:
    records = list(view.corpus)

    def fitted(step: int) -> tuple[Covariances, Any, Any]:
        moments = Covariances()
        with capturing(view.task, view.model()) as capture:
            batches = [capture.factors(records[at : at + step], "train") for at in range(0, COUNT, step)]
        for captured in batches:
            moments.add(captured)
        return moments, batches, batches[0].blocks

    moments, batches, blocks = fitted(size)
    reference, alone, _ = fitted(1)
    bases = bases_of(reference, blocks)
    for name, sides in moments.sides().items():
        close(sides.left.numpy(), reference.sides()[name].left.numpy())
        close(sides.right.numpy(), reference.sides()[name].right.numpy())
    found, expected = Squares(bases), Squares(bases)
    for captured in batches:
        found.add(captured)
    for captured in alone:
        expected.add(captured)
    for name, basis in found.curvature(bases).items():
        close(basis.spectrum.numpy(), expected.curvature(bases)[name].spectrum.numpy())


@dataclass(frozen=True)
class Layer:
    """One linear layer, written out: gradients [n, out, in + 1] with the bias as last column, and their factors."""

    train: np.ndarray
    asked: np.ndarray
    inputs: np.ndarray
    signals: np.ndarray

    def spectrum(self, corrected: bool, transposed: bool = False) -> Any:
        """Left and right eigenvectors, and the eigenvalues."""
        a, s = (side.T @ side / len(side) for side in (self.inputs, self.signals))
        (low_a, q_a), (low_s, q_s) = np.linalg.eigh(a), np.linalg.eigh(s)
        left, right = (q_s, q_a.T) if transposed else (q_s.T, q_a)
        return left, right, ((left @ self.train @ right) ** 2).mean(0) if corrected else np.outer(low_s, low_a)

    def scores(self, corrected: bool, lam: float, transposed: bool = False, scrambled: bool = False) -> Any:
        left, right, spectrum = self.spectrum(corrected, transposed)
        train, asked = (mangled(side) if scrambled else side for side in (self.train, self.asked))
        turned = [left @ side @ right for side in (asked, train)]
        return np.einsum("qij,ij,nij->qn", turned[0], 1 / (spectrum + lam), turned[1]) / COUNT


def mangled(gradients: np.ndarray) -> np.ndarray:
    """Weight and bias end to end, cut into rows as if the bias had been a column of the weight."""
    flat = np.concatenate([gradients[:, :, :-1].reshape(len(gradients), -1), gradients[:, :, -1]], 1)
    return flat.reshape(gradients.shape)


def layers(run: Any, records: Corpus) -> list[Layer]:
    model = run.model()
    train, asked = rows(run, run.corpus, "train"), rows(run, records, "query")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    linear = [module for module in model if isinstance(module, nn.Linear)]
    for module in linear:
        module.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    loss = run.task.loss(model, run.task.batch(list(run.corpus))).sum()
    signals = torch.autograd.grad(loss, [out for _, out in seen])
    out: list[Layer] = []
    start = 0
    for module, (given, _), signal in zip(linear, seen, signals, strict=True):
        high, wide = module.weight.shape
        parts = []
        for side in (train, asked):
            weight = side[:, start : start + high * wide].reshape(-1, high, wide)
            bias = side[:, start + high * wide : start + high * wide + high]
            parts.append(np.concatenate([weight, bias[:, :, None]], 2))
        start += high * (wide + 1)
        ones = torch.ones(len(given), 1, dtype=given.dtype)
        out.append(Layer(parts[0], parts[1], torch.cat([given, ones], 1).detach().numpy(), signal.numpy()))
    return out


@pytest.mark.parametrize(("name", "corrected"), [("kfac", False), ("ekfac", True)])
def test_rows_with_a_bias_are_in_order_and_eigenvectors_the_right_way_round(
    name: str, corrected: bool, view: RunView, corpus: Corpus
) -> None:
    found = method(name, labels="data", damping=0.1).fit(view).attribute(corpus[COUNT:]).values
    written = layers(view, corpus[COUNT:])
    lam = 0.1 * sum(layer.spectrum(corrected)[-1].sum() for layer in written) / COUNT
    close(found, sum(layer.scores(corrected, lam) for layer in written))
    for fault in ({"transposed": True}, {"scrambled": True}):
        wrong = sum(layer.scores(corrected, lam, **fault) for layer in written)
        assert np.linalg.norm(wrong - found) > 0.01 * np.linalg.norm(found)


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_kronecker_curvature_takes_sequences(name: str) -> None:
    case = text_bigram()
    with isolated(case.run) as view:
        assert np.isfinite(method(name).fit(view).attribute(case.queries).values).all()


@dataclass(frozen=True, eq=False)
class Poisoned(RunView):
    """One weight of every checkpoint is NaN."""

    def model(self, checkpoint: int = -1) -> nn.Module:
        model = self.source.model(checkpoint)
        next(model.parameters()).data[0, 0] = float("nan")
        return model


# in_run reads no checkpoint: its weights are those of the replay, which is not poisoned here.
@pytest.mark.parametrize("name", [name for name in GRADIENT if name != "in_run"])
def test_what_is_not_finite_is_refused(name: str, view: RunView, corpus: Corpus) -> None:
    poisoned = Poisoned(**vars(replace(view, digest=plain_digest([view.digest, "poisoned"]))))
    with pytest.raises(PoaError) as caught:
        method(name).fit(poisoned).attribute(corpus[COUNT:])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GRADIENT)
def test_nothing_is_left_in_the_working_directory(
    name: str, view: RunView, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        method(name).fit(view).attribute(corpus[COUNT:])
    except Unsupported as reason:
        pytest.skip(str(reason))
    assert list(tmp_path.iterdir()) == []
