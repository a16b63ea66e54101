"""captum's TracInCP at one checkpoint is GradDot by somebody else's code."""

from __future__ import annotations

import numpy as np
import pytest
from tests.language import DoubleRun

from poa.errors import Unsupported
from poa.factory.run import LoRARun
from poa.methods.captum_tracin import CaptumTracIn
from poa.methods.graddot import GradDot
from poa.records import Corpus


@pytest.mark.parametrize("checkpoints", ["last", "all"])
def test_equals_graddot(run: LoRARun, double: DoubleRun, queries: Corpus, checkpoints: str) -> None:
    for source, tolerance in ((double, 1e-8), (run, 1e-4)):
        found = CaptumTracIn(checkpoints).fit(source).attribute(queries[:5]).values
        expected = GradDot(checkpoints).fit(source).attribute(queries[:5]).values
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_no_queries_and_wrong_checkpoints(run: LoRARun, queries: Corpus) -> None:
    assert CaptumTracIn().fit(run).attribute(queries[:0]).values.shape == (0, len(run.corpus))
    with pytest.raises(Unsupported, match="must be last or all"):
        CaptumTracIn("first").fit(run)
