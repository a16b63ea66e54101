"""Spans credits the first registrant of verbatim words, and the index survives the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poa.conformance import digits_linear, text_bigram
from poa.conformance.bigram import BigramRun, train_bigram
from poa.errors import Corrupt, PoaError, Unsupported
from poa.methods.spans import Spans, SpansIndex
from poa.records import Corpus, Record

FOX = "the quick brown fox jumps over the lazy dog"


def run_on(*records: Record) -> BigramRun:
    return train_bigram(Corpus(records), steps=1)


def run_of_copies() -> BigramRun:
    """The copy comes first in the manifest and last in time."""
    return run_on(
        Record("copy", FOX, contributor="thief", registered=9),
        Record("own", FOX, contributor="author", registered=3),
        Record("other", "a wholly different sentence about rivers", contributor="third", registered=1),
    )


def values(index: SpansIndex, text: str, prompt: str = "") -> list[float]:
    return index.attribute(Corpus([Record("q", text, prompt)])).values[0].tolist()


def test_the_first_registrant_gets_every_token() -> None:
    assert values(Spans(min_bits=20).fit(run_of_copies()), FOX) == [0, 9, 0]


def test_what_the_prompt_says_counts_for_nobody() -> None:
    index = Spans(min_bits=20).fit(run_of_copies())
    assert values(index, FOX, prompt=FOX) == [0, 0, 0]
    assert index.credit(Record("q", FOX, FOX)).from_input == 9


def test_short_matches_are_not_informative() -> None:
    index = Spans(min_bits=20).fit(run_of_copies())
    assert values(index, "quick brown rivers") == [0, 0, 0]
    assert [span.length for span in index.trace(Record("q", "quick brown"))] == [2]


def test_scores_are_not_all_zero_on_the_bigram_run() -> None:
    case = text_bigram()
    scores = Spans(min_bits=10).fit(case.run).attribute(case.run.corpus)
    lengths = [len(case.run.task.tokens(record)) for record in case.run.corpus]
    assert scores.values.sum(axis=1).tolist() == lengths


def test_reference_and_decoys(tmp_path: Path) -> None:
    run = run_of_copies()
    table, decoys = tmp_path / "counts", tmp_path / "decoys.jsonl"
    table.write_text("".join(f"{token} {token + 1}\n" for token in range(32)))
    Corpus([Record("x", "the quick brown rivers"), Record("y", "fox over dog")]).to_jsonl(decoys)
    method = Spans(min_bits=1.0, reference=str(table), decoys=str(decoys), alpha=0.05)
    index = method.fit(run)
    assert index.calibration is not None
    assert index.rule.theta == index.calibration.theta > index.unigram.cap
    index.save(tmp_path / "index")
    again = SpansIndex.load(tmp_path / "index", run)
    query = Record("q", FOX)
    assert again.trace(query) == index.trace(query)
    assert again.trace(query)[0].p_value == 1 / 8
    assert again.attribute(Corpus([query])).values.tobytes() == index.attribute(Corpus([query])).values.tobytes()
    table.write_text("1 2\nx\n")
    with pytest.raises(PoaError, match="line 2: 'x' is not"):
        method.fit(run)


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    index = Spans().fit(run_of_copies())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    with pytest.raises(PoaError, match="holds no spans index"):
        index.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "note").read_text() == "keep"
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")


def test_the_text_of_another_index_is_refused(tmp_path: Path) -> None:
    run, other = run_of_copies(), run_on(Record("a", "one two three"))
    Spans().fit(run).save(tmp_path / "a")
    Spans().fit(other).save(tmp_path / "b")
    (tmp_path / "a" / "text").rename(tmp_path / "c")
    (tmp_path / "b" / "text").rename(tmp_path / "a" / "text")
    with pytest.raises(Corrupt, match="its index is"):
        SpansIndex.load(tmp_path / "a", run)


def test_payees_come_before_contributors() -> None:
    run = run_of_copies()

    class Paid(BigramRun):
        @property
        def groups(self) -> dict[str, tuple[str, ...]]:  # type: ignore[override]
            return {"payee": ("p", "q", "r")}

    paid = Paid(run.corpus, run.task, run.steps, run.checkpoints, run.states, run.initial)
    assert dict(Spans(min_bits=20).fit(paid).credit(Record("q", FOX)).owners) == {"q": 9}
    assert dict(Spans(min_bits=20).fit(run).credit(Record("q", FOX)).owners) == {"author": 9}


def test_refusals() -> None:
    with pytest.raises(Unsupported, match="spans compares tokens"):
        Spans().fit(digits_linear().run)
    for wrong in ({"min_bits": -1.0}, {"alpha": 0.0}, {"seed": -1}):
        with pytest.raises(PoaError, match=next(iter(wrong))):
            replace(Spans(), **wrong)
    with pytest.raises(PoaError, match="has no text"):
        Spans().fit(run_of_copies()).attribute(Corpus([Record("q", features=(1.0,), label=0)]))
    assert np.isfinite(Spans(min_bits=0.0).fit(run_of_copies()).attribute(Corpus([Record("q", "fox")])).values).all()
