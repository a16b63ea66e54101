"""GraSS: nothing left out is influence; what is chosen is told."""

from __future__ import annotations

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated
from poa.evaluation.correlation import mean_spearman
from poa.methods.grass import GraSS
from poa.methods.influence import Influence


@pytest.mark.parametrize("factored", [True, False])
def test_where_nothing_is_left_out_it_is_influence(factored: bool) -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        exact = Influence(0.1, "last").fit(run).attribute(case.queries).values
        whole = GraSS(1 << 16, factored, 0.1).fit(run).attribute(case.queries).values
        small = GraSS(None, factored, 0.1).fit(run).attribute(case.queries)
    np.testing.assert_allclose(whole, exact, rtol=0, atol=1e-9 * np.abs(exact).max())
    assert mean_spearman(small.values, exact) > 0.5
    assert small.meta["projection"]["rule"] == "whitened-cosines/1"
