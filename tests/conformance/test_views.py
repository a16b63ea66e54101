"""Views of a run change what they say and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from poa.conformance import digits_mlp, duplicated, foreign, isolated, permuted
from poa.conformance.truth import leave_one_out, measured
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits


def test_a_permuted_run_logs_the_same_records_in_the_same_steps() -> None:
    run = digits_mlp().run
    order = np.random.default_rng(3).permutation(len(run.corpus))
    with isolated(run) as view:
        other = permuted(view, order)
    assert other.corpus.ids == tuple(run.corpus.ids[i] for i in order)
    assert other.groups["contributor"] == other.corpus.contributors
    assert (run.steps.records == -1).any()
    for before, after in zip(run.steps.records, other.steps.records, strict=True):
        assert [run.corpus.ids[i] if i >= 0 else "" for i in before] == [
            other.corpus.ids[i] if i >= 0 else "" for i in after
        ]
    assert other.digest != run.digest


def test_a_duplicate_enters_the_steps_of_its_original() -> None:
    run = digits_mlp().run
    with isolated(run) as view:
        other = duplicated(view, 7, "twin")
    assert other.corpus[len(run.corpus)].digest == run.corpus[7].digest
    assert other.corpus.ids[-1] == "twin"
    assert other.groups["cluster"][-1] == run.groups["cluster"][7]
    originals = (other.steps.records == 7).sum(1)
    assert originals.sum() > 0
    np.testing.assert_array_equal(originals, (other.steps.records == len(run.corpus)).sum(1))
    np.testing.assert_array_equal(other.steps.records[:, :-1], run.steps.records)


def test_an_isolated_run_has_an_empty_cache_that_vanishes() -> None:
    run = digits_mlp().run
    with isolated(run) as view:
        (view.cache / "x").write_text("x")
        assert view.digest == run.digest
        assert foreign(view).digest != run.digest
    assert not view.cache.exists()


def test_leave_one_out_is_retraining_without_the_record() -> None:
    corpus = digits(8, classes=(0, 1))
    run = train_classifier(corpus[:6], steps=10, batch=6)
    truth = leave_one_out(run, corpus[6:])
    weights = np.ones(6)
    weights[4] = 0
    without = train_classifier(corpus[:6], steps=10, batch=6, weights=weights)
    np.testing.assert_array_equal(truth[:, 4], measured(run, corpus[6:]) - measured(without, corpus[6:]))
    assert truth.shape == (2, 6)
    # A record of the query's class helps it, one of the other class hurts it, most of the time.
    same = np.asarray([[q.label == r.label for r in corpus[:6]] for q in corpus[6:]])
    assert truth[same].mean() > 0 > truth[~same].mean()


def test_measured_asks_the_final_model() -> None:
    case = digits_mlp()
    import torch

    with torch.no_grad():
        together = case.run.task.measurement(case.run.model(), case.run.task.batch(case.queries))
    assert measured(case.run, case.queries) == pytest.approx(together.numpy(), rel=1e-12)
