"""Budgeted metagradients: exact with a probe for every query, and closer to exact with every further one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.gradients.probes import Probed, probed
from poa.methods import load_index
from poa.methods.magic import MAGIC

CORPUS = digits(140, seed=3)
TRAIN, QUERIES = CORPUS[:100], CORPUS[100:]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ClassifierRun:
    settings = {"steps": 40, "batch": 25, "lr": 0.05, "momentum": 0.9, "decay": 0.01}
    return train_classifier(TRAIN, (12,), cache=tmp_path_factory.mktemp("run"), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exact(run: ClassifierRun) -> np.ndarray:
    return run.program().metagradient(np.ones(100), run.arrays(QUERIES))[1]


def with_probes(run: ClassifierRun, probes: int) -> Probed:
    return probed(run.program(), np.ones(100), run.arrays(QUERIES), probes)


def test_a_probe_for_every_query_is_exact(run: ClassifierRun, exact: np.ndarray) -> None:
    found = with_probes(run, len(QUERIES))
    np.testing.assert_allclose(found.slopes, exact, rtol=0, atol=1e-10 * np.abs(exact).max())
    assert found.kept == pytest.approx(1)
    np.testing.assert_allclose(found.values, run.program().measured(np.ones((1, 100)), run.arrays(QUERIES))[0])


def test_more_probes_leave_less_error(run: ClassifierRun, exact: np.ndarray) -> None:
    found = [with_probes(run, probes) for probes in (2, 5, 10, 20)]
    agreement = [mean_spearman(one.slopes, exact) for one in found]
    assert agreement == sorted(agreement)
    assert agreement[-1] > 0.8
    kept = [one.kept for one in found]
    assert kept == sorted(kept)


@pytest.mark.parametrize("probes", [4, 8, 16])
def test_probes_beat_as_many_queries(run: ClassifierRun, exact: np.ndarray, probes: int) -> None:
    """Against the span of the first queries' gradients, what one has without looking for probes."""
    import jax

    _, signals = run.program().asked(np.ones(100), run.arrays(QUERIES))
    rows = np.concatenate([np.asarray(x, np.float64).reshape(40, -1) for x in jax.tree.leaves(signals)], 1)
    mixed = np.linalg.lstsq(rows[:probes].T, rows.T, rcond=None)[0].T
    assert mean_spearman(with_probes(run, probes).slopes, exact) > mean_spearman(mixed @ exact[:probes], exact)


def test_the_method_says_what_its_probes_keep(run: ClassifierRun, exact: np.ndarray, tmp_path: Path) -> None:
    index = MAGIC(probes=6).fit(run)
    scores = index.attribute(QUERIES)
    assert scores.meta["probes"] == 6
    assert 0 < scores.meta["kept"] < 1
    np.testing.assert_array_equal(scores.values, with_probes(run, 6).slopes)
    few = index.attribute(QUERIES[:5])
    np.testing.assert_allclose(few.values, exact[:5], rtol=0, atol=1e-9 * np.abs(exact).max())
    assert "probes" not in few.meta
    index.save(tmp_path / "index")
    np.testing.assert_array_equal(load_index(tmp_path / "index", run).attribute(QUERIES).values, scores.values)


def test_wrong_budgets_are_refused() -> None:
    with pytest.raises(PoaError, match=r"magic\.probes is 0"):
        MAGIC(probes=0)
