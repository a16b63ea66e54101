"""Token heat splits a record's total score over its tokens, as a directional derivative does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.language import DoubleRun

from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.gradients.capture import layout
from poa.gradients.heat import token_heat
from poa.gradients.linear import LinearIndex
from poa.methods.datainf import DataInf
from poa.methods.gradcos import GradCos
from poa.methods.graddot import GradDot
from poa.methods.influence import Influence
from poa.methods.logra import LoGra
from poa.methods.relatif import RelatIF
from poa.methods.tracin import TracInCP
from poa.methods.trak import TRAK
from poa.records import Corpus

METHODS = (GradDot(), GradDot("all"), GradCos(), TracInCP(), Influence(), DataInf(), LoGra(width=4), TRAK(), RelatIF())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_heat_sums_to_the_total_score(run: LoRARun, double: DoubleRun, queries: Corpus, method: Any) -> None:
    for source, tolerance in ((double, 1e-6), (run, 1e-3)):
        index = method.fit(source)
        asked = Corpus([queries[1], queries[5]])
        for query, heat in zip(asked, token_heat(index, source.task, asked), strict=True):
            row = index.attribute(Corpus([query])).values[0].astype(np.float64)
            assert heat.shape == (len(source.task.tokens(query)) + 1,)
            assert abs(heat.sum() - row.sum()) < tolerance * max(np.abs(heat).sum(), abs(row.sum()))


@pytest.mark.parametrize("method", [GradDot(), Influence(checkpoints="last"), LoGra(width=4)], ids=repr)
def test_heat_is_the_directional_derivative_of_each_token(double: DoubleRun, queries: Corpus, method: Any) -> None:
    index: LinearIndex = method.fit(double)
    query, task = queries[1], double.task
    batch, lead = task.batch([query]), task.sequence(query, whole=True)[1]
    model = double.model()
    (direction,) = index.directions()
    direction = index.lenses[0].lift(direction, layout(task.tracked(model)))
    weights = [p for module in task.tracked(model).values() for p in module.parameters()]
    # Coarse steps: norms and the softmax are float32 inside, so their rounding must stay small against the change.
    step = 1e-2 / float(np.linalg.norm(direction))
    parts = torch.split(torch.from_numpy(np.asarray(direction)), [p.numel() for p in weights])

    def tokens_at(distance: float) -> np.ndarray:
        with torch.no_grad():
            for p, part in zip(weights, parts, strict=True):
                p += distance * part.view_as(p)
            found = task.token_log_probabilities(model, batch)[0, lead - 1 :].numpy()
            for p, part in zip(weights, parts, strict=True):
                p -= distance * part.view_as(p)
        return found

    measured = (tokens_at(step) - tokens_at(-step)) / (2 * step)
    (heat,) = token_heat(index, task, Corpus([query]))
    np.testing.assert_allclose(heat, measured, atol=2e-3 * np.abs(heat).max())


def test_heat_of_one_record_sums_to_its_score_and_an_unknown_one_is_refused(double: DoubleRun, queries: Corpus) -> None:
    index = Influence(checkpoints="last").fit(double)
    asked = Corpus([queries[1]])
    scores = index.attribute(asked)
    for name in scores.train_ids[:3]:
        (heat,) = token_heat(index, double.task, asked, [name])
        assert heat.sum() == pytest.approx(float(scores.values[0, scores.train_ids.index(name)]), rel=1e-5)
    with pytest.raises(PoaError, match="no training record 'nobody'"):
        token_heat(index, double.task, asked, ["nobody"])
