"""Responses are gathered under ids that cannot collide, generated reproducibly, and scored once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.language import general

from poa.errors import Corrupt, PoaError
from poa.factory.measuring import measurements, nats_per_token, tuned_and_base
from poa.factory.run import LoRARun
from poa.methods.graddot import GradDot
from poa.pipeline.answers import continuation, gather, user_texts
from poa.pipeline.attribution import attribute
from poa.pipeline.selection import Chosen
from poa.pipeline.settings import Answers
from poa.records import Corpus


def test_kinds_and_ids(run: LoRARun, queries: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the prose of all installed packages, which takes half a minute to read.
    monkeypatch.setattr("poa.pipeline.answers.general_docs", general)
    chosen = Chosen(run.corpus, queries[:4], queries[:6])
    answers = Answers(generated=2, tokens=12, texts=("the anchor", "the rose"), placebo=3)
    found = gather(run, chosen, answers, seed=0)
    assert [record.text for record in found.queries] == [record.text for record in queries[:4]]
    assert len(found.paid) == 6 + 2 + 2
    assert len(set([r.id for part in found.all_parts for r in part])) == 4 + 10 + 3 + 3
    assert {found.kinds[name] for name in found.paid.ids} == {"held-out", "generated", "user"}
    assert {found.kinds[name] for name in found.placebo.ids} == {"placebo"}
    assert gather(run, chosen, answers, seed=0).all_parts == found.all_parts
    other = gather(run, chosen, answers, seed=1)
    assert other.queries == found.queries
    assert other.all_parts != found.all_parts
    generated = [record for record in found.paid if found.kinds[record.id] == "generated"]
    for record, opening in zip(generated, queries, strict=False):
        assert opening.text.startswith(record.prompt.rstrip())


def test_generation_repeats_and_leaves_the_random_state_alone(run: LoRARun) -> None:
    before = torch.get_rng_state()
    texts = [continuation(run.task, run.model(), "The old ", 16, seed) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(PoaError, match="passes the context of 128"):
        continuation(run.task, run.model(), "The old ", 126, 0)


def test_a_text_that_does_not_fit(run: LoRARun) -> None:
    with pytest.raises(PoaError, match=r"record 'user-1' has \d+ tokens"):
        user_texts(run.task, Answers(texts=("fine", "onion " * 200)))
    with pytest.raises(PoaError, match="text is empty"):
        user_texts(run.task, Answers(texts=(" ",)))


def test_measurements_are_log_probabilities(run: LoRARun, queries: Corpus) -> None:
    tuned, base = tuned_and_base(run, queries)
    with torch.no_grad():
        together = run.task.measurement(run.model(), run.task.batch(list(queries)))
    np.testing.assert_allclose(tuned, together, rtol=1e-5)
    assert not np.allclose(tuned, base)
    tokens = sum(len(run.task.tokens(record)) + 1 for record in queries)
    assert nats_per_token(run.task, queries, tuned) == pytest.approx(-tuned.sum() / tokens)
    assert np.array_equal(measurements(run.task, run.model(), queries[2:3]), tuned[2:3])


def test_scores_are_computed_once_and_checked(
    run: LoRARun, queries: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path))
    first = attribute("graddot", GradDot(), run, [queries[:3]])
    assert first.family == "gradient"
    assert first.seconds >= 0

    def fitted(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(GradDot, "fit", fitted)
    again = attribute("graddot", GradDot(), run, [queries[:3]])
    assert again.scores.digest == first.scores.digest
    assert again.seconds == first.seconds
    for method, asked in ((GradDot("all"), queries[:3]), (GradDot(), queries[:2])):
        with pytest.raises(AssertionError, match="fitted again"):
            attribute("graddot", method, run, [asked])
    with pytest.raises(AssertionError, match="fitted again"):
        attribute("graddot", GradDot(), replace(run, digest="0" * 64), [queries[:3]])
    (path,) = (tmp_path / "scores").iterdir()
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    with pytest.raises(Corrupt, match=path.name):
        attribute("graddot", GradDot(), run, [queries[:3]])
