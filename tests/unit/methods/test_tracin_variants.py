"""TracIn on the last layer and on projections, against the full one."""

from __future__ import annotations

import numpy as np

from poa.conformance import digits_mlp, isolated
from poa.gradients.store import blocks_of, gradients
from poa.gradients.trajectory import record_rates
from poa.methods.tracin import TracInCP
from poa.methods.tracin_last import TracInLast
from poa.methods.tracin_projection import TracInProjection


def test_the_last_layer_s_weight_is_all_that_counts() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        last = blocks_of(run)[-1]
        expected = np.zeros((len(case.queries), len(run.corpus)))
        for c, step in enumerate(run.checkpoints):
            train, asked = gradients(run, c, run.corpus, "train"), gradients(run, c, case.queries, "query")
            rates = record_rates(run, run.checkpoints[c - 1] if c else 0, step)
            weight = (slice(None), slice(None, -1))  # the last column is the bias
            one, other = (rows.block(last).reshape(-1, *last.shape)[:, *weight] for rows in (asked, train))
            expected += np.einsum("qoi,noi,n->qn", one, other, rates)
        found = TracInLast().fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert found.meta["layer"] == last.name


def test_projections_are_right_on_average_and_exact_when_wide() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        exact = TracInCP().fit(run).attribute(case.queries).values
        draws = np.stack(
            [TracInProjection(64, seed=seed).fit(run).attribute(case.queries).values for seed in range(40)]
        )
        wide = TracInProjection(1 << 20).fit(run).attribute(case.queries)
    np.testing.assert_allclose(wide.values, exact, rtol=0, atol=1e-12 * np.abs(exact).max())
    error = draws.mean(0) - exact
    spread = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert np.abs(error / spread).mean() < 1.2  # of a standard normal: 0.8
    assert draws.std(0).mean() > 1e-3 * np.abs(exact).max()
