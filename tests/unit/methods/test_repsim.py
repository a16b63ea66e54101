"""RepSim is the cosine or dot product of hidden states, one record at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from poa.conformance import Case, digits_linear, digits_mlp, isolated, text_bigram
from poa.errors import PoaError
from poa.methods.repsim import RepSim, RepSimIndex
from poa.records import Corpus, Record


def states(case: Case, corpus: Corpus, checkpoint: int = -1) -> np.ndarray:
    with torch.no_grad():
        return case.run.task.hidden(case.run.model(checkpoint), case.run.task.batch(corpus)).double().numpy()


@pytest.mark.parametrize("make", [digits_linear, digits_mlp, text_bigram])
@pytest.mark.parametrize("checkpoint", [-1, 0])
def test_equals_products_of_batched_states(make: Callable[[], Case], checkpoint: int) -> None:
    case = make()
    train, asked = states(case, case.run.corpus, checkpoint), states(case, case.queries, checkpoint)
    dot = RepSim("dot", checkpoint).fit(case.run).attribute(case.queries).values
    np.testing.assert_allclose(dot, asked @ train.T, rtol=1e-10, atol=1e-12)
    cosine = RepSim("cosine", checkpoint).fit(case.run).attribute(case.queries).values
    norms = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(train, axis=1)
    np.testing.assert_allclose(cosine, asked @ train.T / norms, rtol=1e-10, atol=1e-12)
    assert np.abs(cosine).max() <= 1 + 1e-12


def test_a_record_is_most_similar_to_itself() -> None:
    case = text_bigram()
    scores = RepSim().fit(case.run).attribute(case.run.corpus)
    np.testing.assert_allclose(np.diag(scores.values), 1, atol=1e-12)
    assert scores.meta["layer"] == "task.hidden"


def test_same_class_is_more_similar() -> None:
    case = digits_mlp()
    values = RepSim().fit(case.run).attribute(case.queries).values
    same = np.asarray([[q.label == r.label for r in case.run.corpus] for q in case.queries])
    assert values[same].mean() > values[~same].mean() + 0.2


def test_manifest_order_does_not_change_a_byte() -> None:
    case = digits_mlp()
    forth = RepSim().fit(case.run).attribute(case.queries).values
    with isolated(case.run) as view:
        shorter = replace(view, corpus=case.run.corpus.take([31, 2, 47]), groups={})
        some = RepSim().fit(shorter).attribute(case.queries).values
    assert some.tobytes() == np.ascontiguousarray(forth[:, [31, 2, 47]]).tobytes()


def test_a_zero_state_has_cosine_zero() -> None:
    case = digits_linear()
    zero = Record("zero", features=(0.0,) * 64, label=0)
    values = RepSim().fit(case.run).attribute(Corpus([zero])).values
    assert values.tolist() == [[0.0] * len(case.run.corpus)]


def test_bad_options_and_queries_are_refused() -> None:
    with pytest.raises(PoaError, match="similarity is 'l2', must be 'cosine' or 'dot'"):
        RepSim("l2")  # type: ignore[arg-type]
    case = digits_linear()
    with pytest.raises(PoaError, match="checkpoint is 4, but the run kept 4: use -4 to 3"):
        RepSim(checkpoint=4).fit(case.run)
    with pytest.raises(PoaError, match="record 'text' has 0 features; this classifier takes 64"):
        RepSim().fit(case.run).attribute(Corpus([Record("text", "a text")]))


def test_save_and_load_at_a_checkpoint(tmp_path: Path) -> None:
    case = digits_mlp()
    index = RepSim("dot", checkpoint=1).fit(case.run)
    index.save(tmp_path / "index")
    loaded = RepSimIndex.load(tmp_path / "index", case.run)
    assert loaded.method == RepSim("dot", checkpoint=1)
    assert loaded.attribute(case.queries).digest == index.attribute(case.queries).digest
