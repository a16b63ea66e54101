"""RelatIF against the explicit inverse."""

from __future__ import annotations

import numpy as np
import pytest

from poa.conformance import digits_mlp, isolated
from poa.errors import PoaError
from poa.gradients.store import gradients
from poa.methods.relatif import RelatIF


@pytest.mark.parametrize("relative_to", ["loss", "parameters"])
def test_equals_the_explicit_ratio(relative_to: str) -> None:
    case = digits_mlp()
    with isolated(case.run) as run:
        train = gradients(run, -1, run.corpus, "train").values
        asked = gradients(run, -1, case.queries, "query").values
        count = len(train)
        lam = 0.1 * float((train**2).sum()) / count**2
        moved = np.linalg.solve(train.T @ train / count + lam * np.eye(train.shape[1]), train.T).T
        size = np.linalg.norm(moved, axis=1) if relative_to == "parameters" else np.sqrt((moved * train).sum(1))
        expected = asked @ (moved / size[:, None]).T
        found = RelatIF(0.1, relative_to=relative_to).fit(run).attribute(case.queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(PoaError, match="must be loss or parameters"):
        RelatIF(relative_to="length")
