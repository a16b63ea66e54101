"""What is differentiated: predictions add up to losses, margins are log-odds, draws follow the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poa.conformance import Case, digits_mlp, text_bigram
from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.gradients.capture import example_gradients
from poa.gradients.outputs import drawn, margins, outputs, predictions
from poa.records import Corpus


@pytest.mark.parametrize("make", [digits_mlp, text_bigram])
def test_predictions_add_up_to_the_loss(make: Any) -> None:
    case: Case = make()
    _add_up(case.run, list(case.run.corpus[:6]))


def test_predictions_of_a_language_model_add_up_to_the_loss(run: LoRARun) -> None:
    _add_up(run, list(run.corpus[:5]))


def _add_up(run: Any, records: list[Any]) -> None:
    model = run.model()
    batch = run.task.batch(records, whole=False)
    found = predictions(run.task, model, batch)
    each = torch.nn.functional.cross_entropy(found.logits, found.labels, reduction="none")
    sums = torch.zeros(len(records), dtype=each.dtype).index_add(0, found.owners, each)
    torch.testing.assert_close(sums, run.task.loss(model, batch), rtol=1e-5, atol=1e-5)


def test_margins_are_log_odds_and_finite_where_the_probability_rounds_to_one() -> None:
    run = digits_mlp().run
    batch = run.task.batch(list(run.corpus[:5]), whole=False)
    found = predictions(run.task, run.model(), batch)
    p = found.logits.softmax(1).gather(1, found.labels[:, None]).squeeze(1)
    torch.testing.assert_close(margins(found), (p / (1 - p)).log())
    sure = found._replace(logits=torch.tensor([[800.0, 0.0]]), labels=torch.tensor([0]), owners=torch.tensor([0]))
    assert float(margins(sure)) == 800.0


def test_labels_drawn_from_the_model_follow_it_and_belong_to_the_record() -> None:
    case = digits_mlp()
    task, model, records = case.run.task, case.run.model(), list(case.run.corpus[:6])
    found = predictions(task, model, task.batch(records, whole=False))
    draws = torch.stack([drawn(found, records, number) for number in range(3000)])
    shares = torch.stack([(draws == label).double().mean(0) for label in range(task.classes)], 1)
    assert float((shares - found.logits.detach().softmax(1)).abs().max()) < 0.04  # 4 standard errors
    alone = predictions(task, model, task.batch(records[3:4], whole=False))
    assert drawn(alone, records[3:4], 7).tolist() == [drawn(found, records, 7).tolist()[3]]


def test_sides_of_other_names_are_refused() -> None:
    case = digits_mlp()
    with pytest.raises(PoaError, match="side is 'trian', must be one of train, query"):
        outputs(case.run.task, case.run.model(), list(case.run.corpus[:1]), "trian")


def test_margins_of_a_classifier_are_its_measurement() -> None:
    case = digits_mlp()
    records: Corpus = case.queries
    sides = [example_gradients(case.run.task, case.run.model(), list(records), s) for s in ("query", "query-margin")]
    np.testing.assert_allclose(sides[0], sides[1], rtol=1e-10)
