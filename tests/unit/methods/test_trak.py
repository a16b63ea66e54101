"""TRAK against its closed form."""

from __future__ import annotations

import numpy as np
import pytest

import poa
from poa.conformance import digits_mlp, foreign, isolated, text_bigram
from poa.errors import Mismatch, PoaError
from poa.gradients.doubt import doubts
from poa.gradients.store import gradients
from poa.methods.graddot import GradDot
from poa.methods.trak import TRAK


@pytest.mark.parametrize("make", [digits_mlp, text_bigram])
def test_unprojected_equals_the_closed_form(make: object) -> None:
    case = make()  # type: ignore[operator]
    with isolated(case.run) as run:
        count, found = len(run.corpus), np.zeros((len(case.queries), len(run.corpus)))
        doubt = np.zeros(count)
        for c in range(len(run.checkpoints)):
            phi = gradients(run, c, run.corpus, "train-margin").values
            asked = gradients(run, c, case.queries, "query-margin").values
            lam = 0.1 * float((phi**2).sum()) / count**2
            kernel = phi.T @ phi + count * lam * np.eye(phi.shape[1])
            found += asked @ np.linalg.solve(kernel, phi.T) / len(run.checkpoints)
            model = run.model(c)
            for at, record in enumerate(run.corpus):
                logits, labels, _ = run.task.predictions(model, run.task.batch([record], whole=False))
                chances = logits.softmax(1).detach().numpy()
                doubt[at] += np.mean(1 - chances[np.arange(len(labels)), labels]) / len(run.checkpoints)
        np.testing.assert_allclose(np.mean([doubts(run, c) for c in range(len(run.checkpoints))], 0), doubt, rtol=1e-9)
        scores = TRAK(projection=1 << 20, damping=0.1).fit(run).attribute(case.queries)
    expected = found * doubt
    np.testing.assert_allclose(scores.values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_size_and_damping_are_chosen_and_told() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        meta = TRAK(checkpoints="last").fit(run).attribute(case.queries).meta
    told = {"rule": "whitened-cosines/1", "size": 512, "records": len(case.run.corpus)}
    assert meta["projection"] == told | {"squared_cosine": pytest.approx(0.0198, abs=1e-3)}
    assert meta["damping"][0]["rule"] == "effective-dimension/1"
    assert meta["residual"][0] < 1e-8
    with pytest.raises(PoaError, match="must be above 0"):
        TRAK(damping=0.0)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        members = [TRAK(seed=seed, checkpoints="last").fit(run) for seed in range(3)]
        together = poa.Ensemble(members).attribute(case.queries)
        each = np.stack([member.attribute(case.queries).values for member in members])
        np.testing.assert_allclose(together.values, each.mean(0), rtol=1e-12)
        assert together.stderr is not None
        np.testing.assert_allclose(together.stderr, each.std(0, ddof=1) / np.sqrt(3), rtol=1e-9)
        assert len(together.meta["members"]) == 3
        assert poa.Ensemble(members[:1]).attribute(case.queries).stderr is None
        with pytest.raises(Mismatch, match="same training records"):
            poa.Ensemble([GradDot().fit(run), GradDot().fit(text_bigram().run)]).attribute(case.queries[:0])
        assert poa.Ensemble(members).run_digest != GradDot().fit(foreign(run)).run_digest
    with pytest.raises(PoaError, match="at least one"):
        poa.Ensemble([])
