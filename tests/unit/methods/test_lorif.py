"""LoRIF: rank one loses nothing of one-token records, and is near the projected influence elsewhere."""

from __future__ import annotations

import numpy as np

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.evaluation.correlation import mean_spearman
from poa.methods.logra import LoGra
from poa.methods.lorif import LoRIF


def test_records_of_one_token_lose_nothing() -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        exact = LoGra(8, 0.1).fit(run).attribute(case.queries).values
        found = LoRIF(8, 0.1).fit(run).attribute(case.queries).values
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-2 * np.abs(exact).max())  # half precision
    assert mean_spearman(found, exact) > 0.999


def test_longer_records_stay_near() -> None:
    case = text_bigram()
    with isolated(case.run) as run:
        exact = LoGra(4, 0.1).fit(run).attribute(case.queries).values
        found = LoRIF(4, 0.1).fit(run).attribute(case.queries)
    assert mean_spearman(found.values, exact) > 0.5
    assert found.meta["projection"] == {"rule": "given", "width": 4}
