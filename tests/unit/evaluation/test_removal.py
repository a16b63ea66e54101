"""Brittleness, tail-patch and mislabels: oracles are single retrainings, single steps and labels known to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poa import methods
from poa.errors import PoaError
from poa.evaluation.brittleness import brittleness
from poa.evaluation.mislabels import auc, detection, mislabelled, shown
from poa.evaluation.tail_patch import tail_patch
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.records import Corpus

CORPUS = digits(130, contributors=3)
TRAIN, QUERIES = CORPUS[:120], CORPUS[120:]


@pytest.fixture(scope="module")
def run() -> ClassifierRun:
    return train_classifier(TRAIN, (), steps=40, batch=40, lr=0.5, measures="log-probability")


def test_brittleness_is_retraining_without_the_top_records(run: ClassifierRun) -> None:
    scores = methods.method("influence").fit(run).attribute(QUERIES)
    found = brittleness(run, scores, QUERIES, (3, 20))
    model = run.model()
    for query in (0, 7):
        weights = np.ones(len(TRAIN))
        weights[np.argsort(-scores.values[query], kind="stable")[:20]] = 0.0
        asked = run.task.batch([QUERIES[query]])
        with torch.no_grad():
            full, less = (run.task.measurement(m, asked)[0] for m in (model, run.retrained(weights).model()))
        assert found.losses[1, query] == pytest.approx(float(full - less), abs=1e-9)
    assert (found.gain > 0).all()
    assert found.gain[1] > found.gain[0]


def test_counts_and_scores_that_do_not_fit_are_refused(run: ClassifierRun) -> None:
    scores = methods.method("graddot").fit(run).attribute(QUERIES)
    with pytest.raises(PoaError, match="cannot take 120 of 120"):
        brittleness(run, scores, QUERIES, (120,))
    with pytest.raises(PoaError, match="other records or queries"):
        brittleness(run, scores, QUERIES[:3], (3,))
    with pytest.raises(PoaError, match="other records or queries"):
        tail_patch(run, scores, QUERIES[:3])


def test_tail_patch_is_one_step_on_each_top_record(run: ClassifierRun) -> None:
    scores = methods.method("graddot").fit(run).attribute(QUERIES)
    found = tail_patch(run, scores, QUERIES, k=2, rate=0.01)
    query, gains = 4, []
    for place in np.argsort(-scores.values[query], kind="stable")[:2]:
        model = run.model()
        asked, own = run.task.batch([QUERIES[query]]), run.task.batch([TRAIN[int(place)]])
        before = run.task.measurement(model, asked)[0].item()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        run.task.loss(model, own).sum().backward()
        optimizer.step()
        gains.append(run.task.measurement(model, asked)[0].item() - before)
    assert found[query] == pytest.approx(np.mean(gains), rel=1e-9)
    assert (found > 0).all()  # to first order it is the dot product that ranked them


def test_wrong_labels_stand_out_by_their_influence_on_themselves() -> None:
    corpus, wrong = mislabelled(TRAIN, 10, 0.1, seed=1)
    assert len(wrong) == 12
    changed = {new.id for old, new in zip(TRAIN, corpus, strict=True) if old.label != new.label}
    assert changed == wrong
    run = train_classifier(corpus, (16,), steps=120, batch=40, lr=0.3, measures="log-probability")
    asked = shown(corpus, wrong, 12)
    assert len(asked) == 24
    assert detection(methods.method("graddot").fit(run).attribute(asked), wrong) > 0.8
    assert 0.1 < detection(methods.method("random").fit(run).attribute(asked), wrong) < 0.9


def test_auc_counts_ties_half() -> None:
    assert auc(np.asarray([1.0, 3.0]), np.asarray([1.0, 0.0, 2.0])) == pytest.approx((1.5 + 3) / 6)


def test_self_influence_needs_training_records(run: ClassifierRun) -> None:
    scores = methods.method("graddot").fit(run).attribute(QUERIES)
    with pytest.raises(PoaError, match="training records as queries"):
        detection(scores, frozenset({TRAIN[0].id}))
    with pytest.raises(PoaError, match="fraction"):
        mislabelled(TRAIN, 10, 1.5)
    with pytest.raises(PoaError, match="cannot be wrong"):
        mislabelled(Corpus(TRAIN), 1)
