"""Pictures hold the numbers they are made of."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib import pyplot

from poa.errors import PoaError
from poa.evaluation.contributors import ContributorTruth
from poa.evaluation.correlation import spearman_rows
from poa.integrations.plots import Measured, agreement, agreement_matrix, cost_vs_fidelity, predicted_vs_truth
from poa.scores import Scores

PAYEES = ("a", "a", "b", "b", "c", "c", "c", "d")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def made(seed: int, method: str = "Made()") -> Scores:
    values = np.random.default_rng(seed).normal(size=(3, len(PAYEES)))
    ids = tuple(f"r{i}" for i in range(len(PAYEES)))
    return Scores(values, ("q0", "q1", "q2"), ids, {"payee": PAYEES}, method=method)


def truth(seeds: tuple[int, ...] = (0, 1)) -> ContributorTruth:
    effects = np.random.default_rng(9).normal(size=(len(seeds), 3, 4))
    return ContributorTruth(effects, np.zeros((len(seeds), 3)), ("a", "b", "c", "d"), ("q0", "q1", "q2"), seeds)


def test_agreement_is_the_mean_spearman_of_payee_sums() -> None:
    one, two = made(0), made(1)
    table = agreement({"one": one, "two": two})
    expected = spearman_rows(one.by("payee").values, two.by("payee").values).mean()
    np.testing.assert_allclose(table, [[1, expected], [expected, 1]], atol=1e-12)
    records = agreement({"one": one, "two": two}, by=None)
    assert records[0, 1] == pytest.approx(spearman_rows(one.values, two.values).mean())


def test_the_matrix_prints_every_number() -> None:
    scores = {"one": made(0), "two": made(1), "three": made(2)}
    ax = agreement_matrix(scores)
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in agreement(scores).ravel()]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(scores)


def test_a_given_axes_is_drawn_on() -> None:
    given = pyplot.figure().subplots()
    assert agreement_matrix({"one": made(0)}, ax=given) is given
    assert predicted_vs_truth(made(0), truth(), given) is given
    assert cost_vs_fidelity({"one": Measured(1.0, 0.5, 0.2, 0.7)}, given) is given


@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_points_are_predictions_and_effects_and_the_line_has_the_slope(seeds: tuple[int, ...]) -> None:
    scores, true = made(0), truth(seeds)
    ax = predicted_vs_truth(scores, true)
    points, line = ax.lines[0], ax.lines[-3]
    np.testing.assert_array_equal(np.asarray(points.get_xdata()), true.aligned(scores).ravel())
    np.testing.assert_array_equal(np.asarray(points.get_ydata()), true.mean.ravel())
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(true.slope(scores))


def test_cost_stands_on_a_logarithmic_axis_with_intervals() -> None:
    ax = cost_vs_fidelity({"cheap": Measured(0.1, 0.2, -0.1, 0.5), "dear": Measured(30, 0.8, 0.6, 0.9)})
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.texts] == ["cheap", "dear"]
    bars = [segment for bar in ax.collections for segment in bar.get_segments()]
    np.testing.assert_allclose([part[:, 1] for part in bars], [[-0.1, 0.5], [0.6, 0.9]])


def test_what_cannot_be_drawn_is_refused() -> None:
    other = Scores(np.zeros((1, 8)), ("x",), made(0).train_ids, {"payee": PAYEES})
    with pytest.raises(PoaError, match="'other' and 'one' are about other queries"):
        agreement_matrix({"one": made(0), "other": other})
    with pytest.raises(PoaError, match="at least one method"):
        agreement_matrix({})
    with pytest.raises(PoaError, match="at least one method"):
        cost_vs_fidelity({})
    with pytest.raises(PoaError, match="'free' took 0 s"):
        cost_vs_fidelity({"free": Measured(0, 0.1, 0, 0.2)})
