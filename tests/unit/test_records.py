"""Record and Corpus: identity, refusals, selection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import CorpusError
from poa.records import RECORD_FIELDS, Corpus, Record, check, content_digest, tagged

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(derandomize=True, deadline=None)
@given(a=st.tuples(WORDS, WORDS, st.integers(-1, 3)), b=st.tuples(WORDS, WORDS, st.integers(-1, 3)))
def test_equal_digests_are_equal_content(a: tuple[str, str, int], b: tuple[str, str, int]) -> None:
    one, other = content_digest(a[0], a[1], (), a[2]), content_digest(b[0], b[1], (), b[2])
    assert (one == other) is (a == b)


@settings(derandomize=True, deadline=None)
@given(text=WORDS, prompt=WORDS, features=st.lists(FLOATS, min_size=1, max_size=3).map(tuple), label=st.integers(-1, 9))
def test_features_never_collide_with_text(text: str, prompt: str, features: tuple[float, ...], label: int) -> None:
    digest = content_digest(text, prompt, features, label)
    assert digest != content_digest(text, prompt, (*features, 0.0), label)
    assert digest != content_digest(text, prompt, (), label)
    assert digest != content_digest(text, prompt, features, label + 1)


def test_the_digest_ignores_who_says_it() -> None:
    row = Record("a", "text", contributor="x", registered=3)
    assert row.digest == replace(row, id="b", contributor="y", datanet="d", licence="l", registered=4).digest


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Record("", "t"), "id '' must be"),
        (Record("a b", "t"), "id 'a b' must be"),
        (Record("é", "t"), "must be 1-200 characters"),
        (Record("a" * 201, "t"), "must be 1-200 characters"),
        (Record("a\n", "t"), "must be 1-200 characters"),
        (Record("a", " \n"), "text is empty"),
        (Record("a", features=(1.0, float("nan"))), "NaN or infinity"),
        (Record("a", features=(float("inf"),)), "NaN or infinity"),
        (Record("a", "t", registered=-1), "registered is -1"),
        (Record("a", "t", registered=2**63), "below 2\\^63"),
        (Record("a", "t", label=2**63), "must fit in 64 bits"),
        (Record("a", "\ud800"), "text is not valid UTF-8"),
        (Record("a", "t", contributor="x\x00"), "contributor contains a NUL"),
    ],
)
def test_refusals(row: Record, reason: str) -> None:
    with pytest.raises(CorpusError, match=reason):
        Corpus([row])


def test_good_records_pass() -> None:
    assert check(Record("a", "t")) is None
    assert check(Record("A:1/b@c+d-e_f.g", features=(0.0,))) is None


def test_all_bad_rows_are_counted() -> None:
    with pytest.raises(CorpusError, match=r"record 'r7': text is empty \(and 4 more\)$"):
        Corpus(Record(f"r{i}") for i in range(12))
    with pytest.raises(CorpusError, match="duplicate ids: 'a'"):
        Corpus([Record("a", "x"), Record("a", "y")])


def test_sequence_and_selection() -> None:
    corpus = Corpus(Record(f"r{i}", f"t{i}", contributor=f"c{i % 2}", licence="MIT") for i in range(6))
    assert len(corpus) == 6
    assert corpus[1:3].ids == ("r1", "r2")
    assert corpus[-1].id == "r5"
    assert corpus.take([4, 0]).ids == ("r4", "r0")
    assert corpus.where(lambda row: row.contributor == "c1").ids == ("r1", "r3", "r5")
    assert corpus[:3] + corpus[3:] == corpus
    assert hash(corpus[:3] + corpus[3:]) == hash(corpus)
    assert corpus.groups("licence") == ("MIT",) * 6
    assert repr(corpus) == "Corpus(6 records, 2 contributors, 1 datanets)"
    assert set(tagged(corpus, datanet="d").datanets) == {"d"}
    with pytest.raises(CorpusError, match="cannot group by 'text'"):
        corpus.groups("text")


def test_the_corpus_digest_sees_every_field_and_the_order() -> None:
    row = Record("a", "text", "prompt", "who", "net", "MIT", 1, (), 2)
    values = ("b", "texts", "prompts", "whom", "nets", "BSD", 2, (1.0,), 3)
    digests = {
        Corpus([replace(row, **{name: value})]).digest for name, value in zip(RECORD_FIELDS, values, strict=True)
    }
    assert len(digests | {Corpus([row]).digest}) == 10
    two = Corpus([row, replace(row, id="b")])
    assert two.digest != two.take([1, 0]).digest


def test_bare_texts_are_named_by_content() -> None:
    corpus = Corpus.from_texts(["x", "y", "x", "x"], prompt="p", contributor="me", datanet="d")
    name = content_digest("x", "p", (), -1)[:16]
    assert (corpus.ids[0], corpus.ids[2], corpus.ids[3]) == (name, f"{name}.2", f"{name}.3")
    assert corpus[1] == Record(corpus.ids[1], "y", "p", "me", "d")
    with pytest.raises(CorpusError, match="lone surrogate"):
        Corpus.from_texts(["\udfff"])
