"""K-FAC and EK-FAC influence against curvature that is written out, and under LoRA factors written down otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.language import DoubleRun
from tests.unit.gradients import fishers
from tests.unit.gradients.test_gauge import Rewritten

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.evaluation.correlation import spearman_rows
from poa.gradients.linear import LinearIndex
from poa.gradients.store import gradients
from poa.methods.ekfac import EKFAC
from poa.methods.graddot import GradDot
from poa.methods.kfac import KFAC
from poa.records import Corpus

KINDS = {KFAC: fishers.kfac, EKFAC: fishers.ekfac}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_explicit_inverse(kind: type) -> None:
    case = text_bigram()
    with isolated(case.run) as run:
        expected = np.zeros((len(case.queries), len(run.corpus)))
        lams: list[float] = []
        for c in range(len(run.checkpoints)):
            train, asked = gradients(run, c, run.corpus, "train"), gradients(run, c, case.queries, "query")
            each = fishers.examples(run, "sampled", 2, c)
            curvature = {block: KINDS[kind](each[block.name]) for block in train.blocks}
            lams.append(0.05 * sum(float(np.trace(fisher)) for fisher in curvature.values()) / len(run.corpus))
            for block, fisher in curvature.items():
                solved = np.linalg.solve(fisher + lams[-1] * np.eye(len(fisher)), train.block(block).T)
                expected += asked.block(block) @ solved / len(run.corpus) / len(run.checkpoints)
        found = kind(0.05, "all", draws=2).fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert found.meta["lambda"] == pytest.approx(lams)
    assert max(found.meta["residual"]) < 1e-10


@pytest.mark.parametrize("name", ["cond 10, 0", "cond 10000, 1", "small", "large", "alpha"])
def test_undamped_kfac_does_not_depend_on_how_an_adapter_is_written_down(
    double: DoubleRun, queries: Corpus, tmp_path: Path, name: str
) -> None:
    other = Rewritten(double, name, tmp_path)
    before, after = (KFAC(0.0).fit(run).attribute(queries[:4]).values for run in (double, other))
    assert np.abs(after - before).max() <= 1e-6 * np.abs(before).max()


@pytest.mark.parametrize("name", ["cond 10, 0", "cond 10000, 1", "small", "large", "padded by 4", "alpha"])
def test_balanced_coordinates_do_not_either_at_any_damping(
    double: DoubleRun, queries: Corpus, tmp_path: Path, name: str
) -> None:
    other = Rewritten(double, name, tmp_path)
    for method in (KFAC(coordinates="balanced"), KFAC(1e-3, coordinates="balanced"), EKFAC(coordinates="balanced")):
        before, after = (method.fit(run).attribute(queries[:4]).values for run in (double, other))
        assert np.abs(after - before).max() <= 1e-9 * np.abs(before).max()


def test_damped_curvature_in_adapter_coordinates_does(double: DoubleRun, queries: Corpus, tmp_path: Path) -> None:
    """The negative control; EK-FAC moves even undamped, because its basis does."""
    other = Rewritten(double, "cond 10000, 1", tmp_path)
    for method in (KFAC(0.1), EKFAC(0.1), EKFAC(0.0)):
        before, after = (method.fit(run).attribute(queries[:4]).values for run in (double, other))
        assert np.abs(after - before).max() > 0.05 * np.abs(before).max()


def test_scaling_the_damping_up_tends_to_dot_products() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        heavy = EKFAC(1e9).fit(run).attribute(case.queries)
        (lam,) = heavy.meta["lambda"]  # type: ignore[misc]
        dots = GradDot().fit(run).attribute(case.queries).values / lam / len(run.corpus)
    np.testing.assert_allclose(heavy.values, dots, rtol=0, atol=1e-5 * np.abs(dots).max())


def test_follows_the_exact_fisher_better_than_dot_products() -> None:
    """Against each layer's own Fisher over the same draws, at the same lambda; corrected eigenvalues help."""
    case = text_bigram()
    with isolated(case.run) as run:
        dots, kfac, ekfac = (
            method.fit(run).attribute(case.queries) for method in (GradDot(), KFAC(draws=4), EKFAC(draws=4))
        )
        train, asked = gradients(run, -1, run.corpus, "train"), gradients(run, -1, case.queries, "query")
        each = fishers.examples(run, "sampled", 4)
        exact = np.zeros(dots.values.shape)
        (lam,) = ekfac.meta["lambda"]  # type: ignore[misc]
        for block in train.blocks:
            fisher = fishers.exact(each[block.name])
            exact += asked.block(block) @ np.linalg.solve(fisher + lam * np.eye(len(fisher)), train.block(block).T)
    agreement = [float(spearman_rows(found.values, exact).mean()) for found in (dots, kfac, ekfac)]
    assert agreement[0] + 0.05 < agreement[1] < agreement[2]
    assert agreement[2] > 0.9


def test_a_stored_index_keeps_damping_and_residual(tmp_path: Path) -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        index = EKFAC().fit(run)
        index.save(tmp_path / "index")
        found = LinearIndex.load(tmp_path / "index", run)
        assert found.notes == index.notes
        assert len(found.notes["lambda"]) == len(found.positions)  # type: ignore[index]
