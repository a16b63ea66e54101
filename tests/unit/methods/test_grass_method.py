"""GraSS: nothing left out is influence; what is chosen is told."""

from __future__ import annotations

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated
from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.gradients.sketch_size import sided, sized
from poa.gradients.store import blocks_of
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
    assert small.meta["projection"]["rule"] == "features-per-direction/1"


def test_sizes_grow_with_the_root_of_the_records() -> None:
    assert [sized(None, count)[0] for count in (64, 256, 1024, 16_384)] == [512, 1024, 2048, 8192]
    assert sized(7, 64) == (7, {"rule": "given", "size": 7})
    blocks = blocks_of(digits_mlp().run)
    width, told = sided(None, blocks, 64)
    assert sum(min(width, b.shape[0]) * min(width, b.shape[1]) for b in blocks) == told["size"] >= 512
    assert sided(3, blocks, 64)[0] == 3
    for wrong in (lambda: sized(0, 5), lambda: sided(0, blocks, 5)):
        with pytest.raises(PoaError, match="must be 1 or more"):
            wrong()
