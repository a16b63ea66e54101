"""Influence by solvers against the explicit inverse, and the faults that other libraries' solvers have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.errors import PoaError, Unsupported
from poa.evaluation.correlation import mean_spearman
from poa.gradients import operators
from poa.gradients.operators import GaussNewton
from poa.gradients.solved import SolvedIndex
from poa.gradients.store import gradients
from poa.methods import load_index
from poa.methods.astra import ASTRA
from poa.methods.ekfac_cg import EKFACCG
from poa.methods.exact_influence import ExactInfluence
from poa.methods.influence import Influence
from poa.records import Corpus


def expected(run: Any, queries: Corpus, damping: float) -> np.ndarray:
    train = np.array(gradients(run, -1, run.corpus, "train").values)
    asked = np.array(gradients(run, -1, queries, "query").values)
    drawn = np.array(gradients(run, -1, run.corpus, "sampled").values)
    lam = damping * float((drawn**2).sum()) / len(train) ** 2
    matrix = GaussNewton(run, len(run.checkpoints) - 1).dense()
    return asked @ np.linalg.solve(matrix + lam * np.eye(len(matrix)), train.T) / len(train)


@pytest.mark.parametrize(
    ("make", "solver"),
    [
        (digits_mlp, "auto"),
        (digits_mlp, "block_cg"),
        (text_bigram, "cg"),
        (text_bigram, "lissa"),
        (text_bigram, "nystrom"),
        (text_bigram, "arnoldi"),
    ],
)
def test_every_solver_gives_the_explicit_scores(make: Any, solver: str) -> None:
    case = make()
    with isolated(case.run) as run:
        explicit = expected(run, case.queries, 0.5)
        rank, tolerance = 20_000 if solver in ("nystrom", "arnoldi") else 100, 1e-9
        found = ExactInfluence(solver, damping=0.5, tolerance=tolerance, rank=rank).fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, explicit, rtol=0, atol=1e-6 * np.abs(explicit).max())
    assert len(found.meta["residual"]) == len(case.queries)
    assert max(found.meta["residual"]) < 1e-6


def test_the_fisher_is_what_influence_inverts(double: Any, queries: Corpus) -> None:
    for coordinates in ("adapter", "balanced"):
        exact = Influence(0.1, "last", coordinates=coordinates).fit(double).attribute(queries).values
        made = ExactInfluence("cg", "fisher", 0.1, coordinates=coordinates)
        found = made.fit(double).attribute(queries).values
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * np.abs(exact).max())


def test_a_language_model_is_multiplied_through(double: Any, queries: Corpus) -> None:
    """LoRA with the matrix never written out: d^T G d is the variance of what d does to logits, by differences.

    The norms of this model compute in float32, so that differences are good to a few digits only.
    """
    operator = GaussNewton(double, 1)
    assert not operator.writable
    row = np.random.default_rng(0).standard_normal((1, operator.size))
    given, batch_weights = operator.places.parameters(torch.from_numpy(row[0])), operator._weights()
    total, step = 0.0, 1e-5
    for record in double.corpus:
        batch = double.task.batch([record], whole=False)
        ends = [
            operator._logits({name: w + sign * step * given[name] for name, w in batch_weights.items()}, batch).detach()
            for sign in (1, -1)
        ]
        chances = operator._logits(batch_weights, batch).detach().softmax(1)
        moved = (ends[0] - ends[1]) / (2 * step)
        total += float((chances * (moved - (chances * moved).sum(1, keepdim=True)) ** 2).sum())
    assert float((row * operator.times(row)).sum()) == pytest.approx(total / len(double.corpus), rel=1e-3)
    found = ExactInfluence("cg", damping=1.0, tolerance=1e-5).fit(double).attribute(queries[:1])
    assert max(found.meta["residual"]) < 1e-4


def test_no_score_depends_on_how_the_data_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inverses of parts, summed over a loader's batches, are not an inverse (a fault of another library's solvers)."""
    case = digits_mlp()
    for solver in ("explicit", "cg"):
        scores: list[np.ndarray] = []
        for chunk in (7, 64):
            monkeypatch.setattr(operators, "CHUNK", chunk)
            with isolated(case.run) as run:
                scores.append(ExactInfluence(solver, tolerance=1e-12).fit(run).attribute(case.queries).values)
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-9 * np.abs(scores[0]).max())


def test_low_rank_solvers_stay_finite_where_curvature_is_singular() -> None:
    """Square roots of eigenvalues that rounding makes negative are not finite (a fault of another library)."""
    case = text_bigram()
    with isolated(case.run) as run:
        exact = ExactInfluence("explicit").fit(run).attribute(case.queries).values
        for solver in ("arnoldi", "nystrom"):
            found = ExactInfluence(solver, rank=100_000).fit(run).attribute(case.queries)
            assert mean_spearman(found.values, exact) > 0.999


def test_ekfac_cg_and_astra_come_to_the_same_scores() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        exact = ExactInfluence("explicit", damping=1.0).fit(run).attribute(case.queries).values
        by_cg = EKFACCG(1.0, tolerance=1e-9).fit(run).attribute(case.queries)
        by_steps = ASTRA(1.0, steps=150).fit(run).attribute(case.queries)
    np.testing.assert_allclose(by_cg.values, exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    assert mean_spearman(by_steps.values, exact) > 0.99
    assert max(by_steps.meta["residual"]) < 0.5


@pytest.mark.parametrize("method", [ExactInfluence("cg"), EKFACCG(), ASTRA(steps=4)], ids=repr)
def test_stored_settings_come_back(method: Any, tmp_path: Path) -> None:
    case = text_bigram()
    with isolated(case.run) as run:
        index = method.fit(run)
        index.save(tmp_path / "index")
        again = load_index(tmp_path / "index", run)
        assert isinstance(again, SolvedIndex)
        assert again.solver == index.solver
        assert again.attribute(case.queries[:2]).digest == index.attribute(case.queries[:2]).digest


def test_unsafe_settings_are_refused(double: Any) -> None:
    with pytest.raises(PoaError, match="must be one of auto, explicit"):
        ExactInfluence("newton")
    with pytest.raises(PoaError, match="must be gauss-newton or fisher"):
        ExactInfluence(curvature="hessian").fit(double)
    with pytest.raises(Unsupported, match="adapter coordinates"):
        ExactInfluence(coordinates="balanced").fit(double)
