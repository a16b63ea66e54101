"""Contributor truth: effects are differences of retrained measurements, and agreement reads payee sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation import contributors as module
from poa.evaluation.contributors import ContributorTruth, leave_one_out
from poa.evaluation.correlation import spearman_rows
from poa.factory.classifier import train_classifier
from poa.factory.counterfactual import retrain
from poa.factory.digits import digits
from poa.factory.run import LoRARun
from poa.methods.graddot import GradDot
from poa.records import Corpus
from poa.scores import Scores


@pytest.fixture(scope="module")
def truth(run: LoRARun, queries: Corpus) -> ContributorTruth:
    with pytest.MonkeyPatch.context() as patch:
        # In this process: starting workers costs more than these trainings.
        patch.setattr("poa.factory.counterfactual.os.cpu_count", lambda: 1)
        return leave_one_out(run, queries, seeds=(0, 1))


def made(effects: np.ndarray) -> ContributorTruth:
    seeds, asked, people = effects.shape
    names, ids = tuple("abcdefgh"[:people]), tuple(f"q{i}" for i in range(asked))
    return ContributorTruth(effects, np.zeros((seeds, asked)), names, ids, tuple(range(seeds)))


def test_effects_are_differences_of_measurements(truth: ContributorTruth, run: LoRARun, queries: Corpus) -> None:
    assert truth.contributors == ("cook", "gardener", "sailor", "smith")
    assert truth.query_ids == queries.ids
    payees = np.asarray(run.groups["payee"])
    weights = np.stack([np.ones(16), *((payees != name).astype(float) for name in truth.contributors)])
    measured = retrain(run, weights, queries, (0, 1), workers=1)
    for c in range(4):
        np.testing.assert_allclose(truth.effects[:, :, c], measured[:, 0] - measured[:, c + 1], atol=1e-12)
    assert np.array_equal(truth.full, measured[:, 0])


def test_a_topic_needs_its_contributor(truth: ContributorTruth, queries: Corpus) -> None:
    best = [truth.contributors[i] for i in truth.mean.argmax(1)]
    assert np.mean([a == b for a, b in zip(best, queries.contributors, strict=True)]) >= 0.75


def test_gradients_agree_with_retraining(truth: ContributorTruth, run: LoRARun, queries: Corpus) -> None:
    scores = GradDot("all").fit(run).attribute(queries)
    interval = truth.agreement(scores)
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(spearman_rows(truth.aligned(scores), truth.mean).mean())
    assert interval.value > 0.4
    assert truth.slope(scores) > 0
    assert 0 < truth.ceiling <= 1


def test_a_part_of_the_contributors(run: LoRARun, queries: Corpus, truth: ContributorTruth) -> None:
    part = leave_one_out(run, queries, ("smith", "cook"), seeds=(0,))
    assert part.contributors == ("smith", "cook")
    np.testing.assert_allclose(part.effects[0], truth.effects[0][:, [3, 0]], atol=1e-3)
    with pytest.raises(PoaError, match="contributor 'nobody' has no record in this run"):
        leave_one_out(run, queries, ("nobody",))


def test_removal_goes_by_payee(run: LoRARun, queries: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []

    def fake(run: LoRARun, weights: np.ndarray, queries: Corpus, seeds: tuple[int, ...]) -> np.ndarray:
        asked.append(weights)
        return np.zeros((len(seeds), len(weights), len(queries)))

    monkeypatch.setattr(module, "retrain", fake)
    payees = ("x", "y") * 8
    leave_one_out(replace(run, groups={**run.groups, "payee": payees}), queries, seeds=(0,))
    assert asked[0].tolist() == [[1.0] * 16, [0.0, 1.0] * 8, [1.0, 0.0] * 8]


def test_a_cluster_goes_with_its_copies() -> None:
    corpus = digits(46, contributors=3)
    copies = [replace(corpus[at], id=f"copy-{at}") for at in (0, 5)]
    run = train_classifier(Corpus([*corpus[:40], *copies]), (), steps=12, batch=42, lr=0.1)
    truth = leave_one_out(run, corpus[40:], (corpus[0].id, corpus[5].id), seeds=(0,), group="cluster")
    masks = np.ones((3, 42))
    masks[1, [0, 40]] = masks[2, [5, 41]] = 0
    measured = retrain(run, masks, corpus[40:], (0,))
    np.testing.assert_array_equal(truth.effects[0], (measured[0, :1] - measured[0, 1:]).T)
    scores = GradDot().fit(run).attribute(corpus[40:])
    np.testing.assert_allclose(truth.aligned(scores), scores.values @ (1 - masks[1:]).T, rtol=1e-12)
    with pytest.raises(PoaError, match="cluster 'copy-0' has no record"):
        leave_one_out(run, corpus[40:], ("copy-0",), group="cluster")
    with pytest.raises(PoaError, match="group is 'author', must be one of contributor"):
        leave_one_out(run, corpus[40:], group="author")


def test_aligned_sums_by_payee_in_the_order_of_the_truth() -> None:
    scores = Scores(
        np.asarray([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]), ("q1", "q0"), ("r", "s", "t"), {"payee": ("b", "a", "b")}
    )
    assert made(np.zeros((1, 2, 2))).aligned(scores).tolist() == [[16.0, 40.0], [2.0, 5.0]]


def test_stderr_and_slope() -> None:
    effects = np.random.default_rng(0).normal(size=(3, 4, 5))
    truth = made(effects)
    np.testing.assert_allclose(truth.mean, effects.mean(0))
    np.testing.assert_allclose(truth.stderr, effects.std(0, ddof=1) / np.sqrt(3))
    scores = Scores(truth.mean / 2.5, truth.query_ids, truth.contributors, {"payee": truth.contributors})
    assert truth.slope(scores) == pytest.approx(2.5)
    zero = replace(scores, values=np.zeros((4, 5)))
    assert truth.slope(zero) == 0.0


def test_the_ceiling_is_spearman_brown() -> None:
    same = np.broadcast_to(np.random.default_rng(1).normal(size=(6, 8)), (2, 6, 8))
    assert made(same.copy()).ceiling == pytest.approx(1.0)
    opposite = np.stack([same[0], -same[0]])
    assert made(opposite).ceiling == 0.0
    effects = np.random.default_rng(2).normal(size=(3, 6, 8)) + same[0]
    pairs = [spearman_rows(effects[a], effects[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    one = np.mean(pairs)
    assert made(effects).ceiling == pytest.approx(np.sqrt(3 * one / (1 + 2 * one)))


def test_a_single_seed_has_no_error() -> None:
    truth = made(np.ones((1, 2, 2)))
    for name in ("stderr", "ceiling"):
        with pytest.raises(PoaError, match="at least two seeds"):
            getattr(truth, name)
