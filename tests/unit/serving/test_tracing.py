"""Traces: verbatim quotations, scores that the methods really gave, sums that add up, bytes that repeat."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poa import methods
from poa.errors import Corrupt, Mismatch, PoaError
from poa.factory.run import LoRARun
from poa.factory.workers import one_thread
from poa.records import Corpus
from poa.serving.document import decimal
from poa.serving.generate import Sampling
from poa.serving.passages import whole_characters
from poa.serving.runs import open_run, with_adapter
from poa.serving.tracing import Tracer, answered

ANSWER = " of the naïve number 3 is computed from the kernel, as nobody Σ-sum said"


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    return [leaf for member in value for leaf in leaves(member)] if isinstance(value, list) else [value]


def test_json_is_canonical(tracer: Tracer) -> None:
    trace = tracer.trace("The matrix", sampling=Sampling(10, temperature=0.7, top_p=0.9, seed=3))
    again = json.loads(trace.json)
    assert {type(leaf) for leaf in leaves(again)} == {str, int}
    assert json.dumps(again, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == trace.json
    assert again["sampling"] == {"max_new_tokens": 10, "temperature": "0.7", "top_p": "0.9", "seed": 3}


def test_the_same_question_gives_the_same_bytes_whatever_came_before(tracer: Tracer) -> None:
    first = tracer.trace("The solver", sampling=Sampling(8, temperature=1.0, seed=4))
    tracer.trace("Another one", ANSWER)
    assert tracer.trace("The solver", sampling=Sampling(8, temperature=1.0, seed=4)).json == first.json
    assert tracer.trace("The solver", sampling=Sampling(8, temperature=1.0, seed=5)).json != first.json


def test_spans_and_their_quotations_are_verbatim(tracer: Tracer, run: LoRARun) -> None:
    trace = tracer.trace("The kernel", ANSWER)
    texts = {record.id: record.text for record in run.corpus}
    assert any("naïve number 3 is computed from the kernel" in span.text for span in trace.spans)
    for span in trace.spans:
        assert trace.output.text[span.start : span.end] == span.text
        assert span.length == span.right - span.left >= tracer.least
        for document in span.documents:
            at = document.needle_offset_snippet
            assert document.text_snippet[at : at + len(span.text)] == span.text
            assert document.text_snippet in texts[document.record_id]


def test_every_long_copy_is_found_and_nothing_else(tracer: Tracer, run: LoRARun) -> None:
    """Brute force over token n-grams: positions that some record repeats for `least` tokens or more."""
    task, said = run.task, run.task.encode(ANSWER)
    known = {
        tuple(ids[i : i + tracer.least])
        for ids in (task.encode(record.text) for record in run.corpus)
        for i in range(len(ids) - tracer.least + 1)
    }
    expected = {
        i + j
        for i in range(len(said) - tracer.least + 1)
        if tuple(said[i : i + tracer.least]) in known
        for j in range(tracer.least)
    }
    found = {i for span in tracer.trace("The kernel", ANSWER).spans for i in range(span.left, span.right)}
    assert found == expected != set()


def test_tokens_tile_the_answer_and_add_up_to_its_measurement(tracer: Tracer, run: LoRARun) -> None:
    trace = tracer.trace("The kernel", ANSWER)
    assert [token.id for token in trace.output.tokens] == run.task.encode(ANSWER)
    assert trace.output.tokens[0].start == 0
    assert trace.output.tokens[-1].end == len(ANSWER)
    ids = torch.tensor([[run.task.edges[0], *run.task.encode("The kernel"), *run.task.encode(ANSWER)]])
    with torch.no_grad():
        rows = torch.log_softmax(run.model()(input_ids=ids).logits[0, :-1], -1)
    direct = rows.gather(1, ids[0, 1:, None])[-len(trace.output.tokens) :].sum()
    assert float(sum(Decimal(token.logprob) for token in trace.output.tokens)) == pytest.approx(float(direct), abs=1e-3)


def test_records_and_shares_are_what_the_methods_say(tracer: Tracer, run: LoRARun) -> None:
    trace = tracer.trace("The kernel", ANSWER)
    assert [one.id for one in trace.methods] == ["graddot", "bm25", "repsim"]
    for one in trace.methods:
        with one_thread():
            scores = methods.method(one.id).fit(run).attribute(Corpus([answered("The kernel", ANSWER)]))
        assert [(row.record_id, float(row.score)) for row in one.records] == [
            (hit.train_id, float(decimal(scores.values[0][scores.train_ids.index(hit.train_id)])))
            for hit in scores.top(tracer.most)[0]
        ]
        for share in one.shares:
            own = [
                s
                for s, who in zip(scores.values[0], scores.groups["contributor"], strict=True)
                if who == share.contributor
            ]
            assert float(share.sum) == pytest.approx(float(np.sum(own, dtype=np.float64)), rel=1e-9)
        assert 10**9 - len(one.shares) <= sum(share.parts for share in one.shares) <= 10**9


def test_an_index_is_fitted_once_and_opened_after(run: LoRARun, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracer.open(run, ("graddot",)) as first:
        before = first.trace("The", ANSWER).json
    monkeypatch.setattr(methods.GradDot, "fit", lambda *_: pytest.fail("fitted again"))
    with Tracer.open(run, ("graddot",)) as second:
        assert second.trace("The", ANSWER).json == before


def test_an_index_of_several_parts_is_kept_and_opened_too(run: LoRARun, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tracer.open(run, ("spans",)) as first:
        before = first.trace("The", ANSWER)
    assert before.methods[0].records[0].record_id == "a-3"
    monkeypatch.setattr(methods.Spans, "fit", lambda *_: pytest.fail("fitted again"))
    with Tracer.open(run, ("spans",)) as second:
        assert second.trace("The", ANSWER).json == before.json


def test_questions_leave_nothing_behind(run: LoRARun, tracer: Tracer) -> None:
    def files() -> set[Path]:
        return {path for folder in (run.folder, tracer.scratch) for path in folder.rglob("*") if path.is_file()}

    before = files()
    tracer.trace("The kernel", ANSWER)
    tracer.trace("Some other question", sampling=Sampling(5))
    assert files() == before


def test_an_index_of_this_run_is_asked_and_one_of_another_is_refused(
    run: LoRARun, sibling: LoRARun, tmp_path: Path
) -> None:
    methods.method("bm25", k1=2.0).fit(run).save(tmp_path / "own")
    methods.method("bm25").fit(sibling).save(tmp_path / "other")
    with Tracer.open(run, (), tmp_path / "own") as opened:
        assert [(one.name, one.identity) for one in opened.indexes] == [("bm25", "BM25(k1=2.0, b=0.75)")]
    with pytest.raises(Mismatch, match=sibling.digest):
        Tracer.open(run, (), tmp_path / "other")


def test_an_altered_index_is_refused(run: LoRARun, tmp_path: Path) -> None:
    methods.method("bm25").fit(run).save(tmp_path / "index")
    path = tmp_path / "index" / "arrays.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match="arrays"):
        Tracer.open(run, (), tmp_path / "index")


def test_an_earlier_checkpoint_answers_as_the_run_was_then(run: LoRARun) -> None:
    early = with_adapter(run, run.folder / "checkpoints" / f"step-{run.checkpoints[0]:06d}")
    assert (early.checkpoints, early.corpus) == (run.checkpoints[:1], run.corpus)
    assert early.digest != run.digest
    assert with_adapter(run, run.adapter_folder) is run
    with Tracer.open(early, ("graddot",)) as opened:
        trace = opened.trace("The kernel", ANSWER)
    assert trace.digests.adapter == early.adapter_digest != run.adapter_digest


def test_an_adapter_brings_the_records_that_trained_it(run: LoRARun, sibling: LoRARun) -> None:
    assert open_run(run.folder, sibling.adapter_folder).corpus == sibling.corpus


def test_an_adapter_of_another_base_or_of_no_run_is_refused(
    run: LoRARun, stranger: LoRARun, sibling: LoRARun, tmp_path: Path
) -> None:
    with pytest.raises(Mismatch, match="belongs to base"):
        with_adapter(run, stranger.adapter_folder)
    lone = tmp_path / "deep" / "lone"
    lone.mkdir(parents=True)
    for path in sibling.adapter_folder.iterdir():
        (lone / path.name).write_bytes(path.read_bytes())
    with pytest.raises(Mismatch, match="its records are unknown"):
        with_adapter(run, lone)
    with pytest.raises(PoaError, match="has no adapter_config"):
        with_adapter(run, tmp_path)


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (" ", None, "question is empty"),
        ("The", "\n", "answer is empty"),
        ("\udc80", None, "not valid UTF-8"),
        ("The", "a\x00b", "NUL"),
        ("The", "matrix " * 200, "the answer has"),
    ],
)
def test_texts_that_cannot_be_traced_are_refused(tracer: Tracer, question: str, answer: str | None, why: str) -> None:
    with pytest.raises(PoaError, match=why):
        tracer.trace(question, answer)


def test_a_repeated_or_unknown_method_is_refused_and_no_folder_stays(
    run: LoRARun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(PoaError, match="did you mean 'bm25'"):
        Tracer.open(run, ("bm52",))
    with pytest.raises(PoaError, match="once"):
        Tracer.open(run, ("bm25", "bm25"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (np.float32(0.1), "0.1"), (1e-9, "0.000000001"), (-0.0, "0"), (2.0, "2"), (-1.5e10, "-15000000000")],
)
def test_decimals_are_the_shortest_without_exponent(value: float, text: str) -> None:
    assert decimal(value) == text


def test_parts_of_characters_are_left_out() -> None:
    # Three tokens share the character at 1.
    offsets = [(0, 1), (1, 2), (1, 2), (1, 3), (3, 4)]
    assert whole_characters(offsets, 0, 5) == (0, 4)
    assert whole_characters(offsets, 0, 2) == (0, 1)
    assert whole_characters(offsets, 3, 5) == (2, 4)
    assert whole_characters(offsets, 2, 3) == (2, 2)
    assert whole_characters(offsets, 1, 4) == (1, 3)
