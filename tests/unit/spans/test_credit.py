"""Rule P: equal to its definition over all spans, and the properties that keep copies from earning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import Mismatch, PoaError
from poa.spans import Calibration, Commons, Document, Priority, SpanCredit, SpanIndex, Unigram, calibrate, credit

LAW = settings(deadline=None, derandomize=True, max_examples=120)
VOCABULARY = 4
TABLE = Unigram(np.array([1, 2, 3, 5], np.int64), 5)
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)


@dataclass(frozen=True)
class Case:
    """Documents in order of time (document i is registered at 10 i), an output, and what is masked."""

    documents: tuple[tuple[str, tuple[int, ...]], ...]
    output: tuple[int, ...]
    theta: int
    passages: tuple[tuple[int, ...], ...] = ()
    reference: tuple[tuple[int, ...], ...] = ()
    shared_by: int = 1
    mask_theta: int | None = None
    placed: list[Document] = field(default_factory=list)

    def rows(self) -> list[Document]:
        return [
            Document(f"r{i}", owner, 10 * i, tokens) for i, (owner, tokens) in enumerate(self.documents)
        ] + self.placed

    def rule(self) -> Priority:
        rows = [Document(f"ref{i}", "", i, tokens) for i, tokens in enumerate(self.reference)]
        commons = Commons(SpanIndex.build(rows, VOCABULARY, "t", "frozen"), self.shared_by) if rows else None
        return Priority(TABLE, self.theta, commons, self.mask_theta)

    def credit(self) -> SpanCredit:
        return credit(
            SpanIndex.build(self.rows(), VOCABULARY, "t", "r"), self.output, self.rule(), passages=self.passages
        )

    def plus(self, *more: Document) -> Case:
        return replace(self, placed=[*self.placed, *more])


@st.composite
def cases(draw: st.DrawFn, masks: bool = True) -> Case:
    documents = draw(st.lists(st.tuples(st.sampled_from("abc"), TOKENS.map(tuple)), min_size=1, max_size=5))
    # The output is made of pieces of documents and passages, so that windows occur at all.
    passages = draw(st.lists(TOKENS.map(tuple), max_size=2)) if masks else []
    reference = draw(st.lists(TOKENS.map(tuple), max_size=3)) if masks else []
    texts = st.sampled_from([tokens for _, tokens in documents] + passages + reference)
    piece = st.tuples(texts, st.integers(0, 6), st.integers(1, 12)).map(lambda cut: cut[0][cut[1] : cut[1] + cut[2]])
    pieces = draw(st.lists(st.one_of(piece, TOKENS.map(lambda tokens: tuple(tokens[:2]))), min_size=1, max_size=3))
    return Case(
        tuple(documents),
        tuple(token for one in pieces for token in one),
        draw(st.integers(6, 16)),
        tuple(passages),
        tuple(reference),
        draw(st.integers(1, 2)),
        draw(st.one_of(st.none(), st.integers(6, 16))) if masks else None,
    )


def holds(document: tuple[int, ...], needle: tuple[int, ...]) -> bool:
    return any(document[i : i + len(needle)] == needle for i in range(len(document) - len(needle) + 1))


def by_definition(case: Case) -> list[str]:
    """Per token its account or owner, from all spans: no index, no windows, no tricks."""
    m, output = len(case.output), case.output
    bits = [int(TABLE.table[token]) for token in output]
    account = ["unattributed"] * m
    mask_theta = case.theta if case.mask_theta is None else case.mask_theta

    def informative(theta: int) -> list[tuple[int, int]]:
        return [(x, y) for x in range(m) for y in range(x + 1, m + 1) if sum(bits[x:y]) >= theta]

    def mask(name: str, texts: tuple[tuple[int, ...], ...], least: int) -> None:
        found = [(x, y) for x, y in informative(mask_theta) if sum(holds(t, output[x:y]) for t in texts) >= least]
        for t in {t for x, y in found for t in range(x, y)}:
            if account[t] == "unattributed":
                account[t], bits[t] = name, 0

    mask("from_input", case.passages, 1)
    if case.reference:
        mask("commons", case.reference, case.shared_by)
    spans = informative(case.theta)
    for t in range(m):
        if account[t] == "unattributed":
            around = [output[x:y] for x, y in spans if x <= t < y]
            rows = sorted(case.rows(), key=lambda row: row.registered)
            winners = [row.owner for row in rows if any(holds(tuple(row.tokens), one) for one in around)]
            account[t] = f"owner {winners[0]}" if winners else "unattributed"
    return account


def owners_by_token(found: SpanCredit) -> list[str]:
    out = list(found.accounts)
    for window in found.windows:
        for t in window.tokens:
            assert window.start <= t < window.end
            assert out[t] == "owner"
            out[t] = f"owner {window.owner}"
    return out


@settings(LAW, max_examples=600)
@given(cases())
def test_brute_force(case: Case) -> None:
    found, wanted = case.credit(), by_definition(case)
    assert owners_by_token(found) == wanted
    counted = Counter(wanted)
    assert found.owners == {name[6:]: counted[name] for name in sorted(counted) if name.startswith("owner ")}
    assert found.from_input == counted["from_input"]
    assert found.commons == counted["commons"]
    assert found.unattributed == counted["unattributed"]


@pytest.mark.slow
@settings(LAW, max_examples=5000)
@given(cases())
def test_brute_force_many(case: Case) -> None:
    assert owners_by_token(case.credit()) == by_definition(case)


def test_the_cases_reach_every_account() -> None:
    draw = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(200):
        texts = [tuple(draw.integers(0, 4, 8).tolist()) for _ in range(4)]
        output = texts[0][:5] + texts[1][2:] + texts[2] + texts[3]
        case = Case((("a", texts[0]), ("b", texts[1])), output, 9, texts[2:3], texts[3:4])
        wanted = by_definition(case)
        assert owners_by_token(case.credit()) == wanted
        seen.update(wanted)
    assert {"owner a", "owner b", "from_input", "commons", "unattributed"} <= set(seen)


@LAW
@given(cases(), st.data())
def test_efficiency(case: Case, data: st.DataObject) -> None:
    index, m = SpanIndex.build(case.rows(), VOCABULARY, "t", "r"), len(case.output)
    weights = data.draw(st.lists(st.integers(0, 2**40), min_size=m, max_size=m))
    withdrawn = data.draw(st.sets(st.sampled_from([row.record_id for row in case.rows()])))
    found = credit(index, case.output, case.rule(), passages=case.passages, weights=weights, withdrawn=withdrawn)
    accounts = found.from_input + found.commons + found.withdrawn + found.unattributed
    assert sum(found.owners.values()) + accounts == found.total == sum(weights)
    won = {t: window for window in found.windows for t in window.tokens}
    assert sorted(won) == [t for t, account in enumerate(found.accounts) if account in ("owner", "withdrawn")]
    for name in ("from_input", "commons", "withdrawn", "unattributed"):
        assert getattr(found, name) == sum(w for w, a in zip(weights, found.accounts, strict=True) if a == name)
    for window in found.windows:
        assert window.weight == sum(weights[t] for t in window.tokens)
        assert window.withdrawn == (window.record_id in withdrawn)
        document = next(row for row in case.rows() if row.record_id == window.record_id)
        there = tuple(document.tokens)[window.position : window.position + window.end - window.start]
        assert there == case.output[window.start : window.end]


@LAW
@given(cases(), st.integers(0, 4), st.sampled_from(["a", "b", "thief"]), st.integers(1, 5))
def test_replicate_and_sybil(case: Case, which: int, name: str, copies: int) -> None:
    tokens = case.documents[which % len(case.documents)][1]
    later = [Document(f"copy{i}", name if i % 2 else f"{name}{i}", 1000 + i, tokens) for i in range(copies)]
    assert case.plus(*later).credit().owners == case.credit().owners


@LAW
@given(cases(), st.integers(0, 4), TOKENS, TOKENS)
def test_no_steal(case: Case, which: int, before: list[int], after: list[int]) -> None:
    extended = [*before, *case.documents[which % len(case.documents)][1], *after]
    old = owners_by_token(case.credit())
    new = owners_by_token(case.plus(Document("longer", "thief", 1000, extended)).credit())
    for mine, then in zip(old, new, strict=True):
        assert then == mine or (mine == "unattributed" and then == "owner thief")


@LAW
@given(cases(), st.sampled_from(["a", "b", "new"]), TOKENS)
def test_owner_monotone(case: Case, owner: str, tokens: list[int]) -> None:
    old, new = case.credit(), case.plus(Document("later", owner, 1000, tokens)).credit()
    assert all(new.owners.get(name, 0) >= paid for name, paid in old.owners.items())
    assert (new.from_input, new.commons) == (old.from_input, old.commons)


@LAW
@given(cases(), st.integers(0, 4), st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_split_doc(case: Case, which: int, cuts: list[int]) -> None:
    which %= len(case.documents)
    owner, tokens = case.documents[which]
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    rows = [row for row in case.rows() if row.record_id != f"r{which}"]
    rows += [Document(f"part{i}", owner, 10 * which, tokens[x:y]) for i, (x, y) in enumerate(pairwise(edges))]
    found = credit(SpanIndex.build(rows, VOCABULARY, "t", "r"), case.output, case.rule(), passages=case.passages)
    assert found.owners.get(owner, 0) <= case.credit().owners.get(owner, 0)


@LAW
@given(cases(), st.lists(TOKENS, min_size=10, max_size=30))
def test_griefing(case: Case, flood: list[list[int]]) -> None:
    later = [Document(f"flood{i}", "griefer", 1000 + i, tokens) for i, tokens in enumerate(flood)]
    old, new = owners_by_token(case.credit()), owners_by_token(case.plus(*later).credit())
    for mine, then in zip(old, new, strict=True):
        assert then == mine or (mine == "unattributed" and then == "owner griefer")


@LAW
@given(cases(), st.integers(6, 16), st.integers(1, 10))
def test_theta_monotone(case: Case, mask_theta: int, more: int) -> None:
    low = replace(case, mask_theta=mask_theta)
    high = replace(low, theta=low.theta + more)
    for a, b in zip(low.credit().accounts, high.credit().accounts, strict=True):
        assert b == a or (a == "owner" and b == "unattributed")


def test_masks_that_follow_theta_are_not_monotone() -> None:
    # At 10 the first three tokens are masked and the last is alone; at 12 nothing is masked and all four earn. Hence
    # `mask_theta`.
    case = Case((("a", (2, 3, 1, 2)),), (2, 3, 1, 2), 10, passages=((2, 3, 1),))
    assert case.credit().accounts == ("from_input",) * 3 + ("unattributed",)
    assert replace(case, theta=12).credit().accounts == ("owner",) * 4
    assert replace(case, theta=12, mask_theta=10).credit().accounts == ("from_input",) * 3 + ("unattributed",)


def test_the_table_of_cases() -> None:
    source, licence = (3, 2, 3, 1, 3, 0), (2, 2, 3, 3, 1, 1)
    copied = Case((("author", source), ("thief", source)), source, 8)
    assert copied.credit().owners == {"author": 6}
    # One chance word (an owner registered it next to the licence) does not make boilerplate pay.
    farm = tuple((f"farm{i}", licence) for i in range(20))
    boilerplate = Case(
        (("innocent", (0, *licence)), *farm), (0, *licence), 8, reference=(licence, licence), shared_by=2
    )
    assert boilerplate.credit().owners == {}
    assert (boilerplate.credit().commons, boilerplate.credit().unattributed) == (6, 1)
    scattered = Case((("author", (3, 1, 3, 1, 3, 1)),), (3, 0, 3, 0, 3, 0), 8)
    assert scattered.credit().owners == {}
    assert scattered.credit().unattributed == 6


def test_a_takedown_never_promotes_a_copier() -> None:
    rows = [("old", "author", 1, (3, 2, 3)), ("copy", "thief", 2, (3, 2, 3))]
    index = SpanIndex.build(rows, VOCABULARY, "t", "r")
    found = credit(index, (3, 2, 3), Priority(TABLE, 8), withdrawn=["old"])
    assert (found.owners, found.withdrawn) == ({}, 3)
    assert found.windows[0].withdrawn


def test_the_result_says_what_it_rests_on() -> None:
    decoys = [[0, 1, 2], [3, 3, 1]]
    index = SpanIndex.build([("x", "a", 1, (3, 2, 3, 1, 3))], VOCABULARY, "t", "r")
    measured = calibrate(index, TABLE, decoys, alpha=0.3)
    commons = Commons(SpanIndex.build([("y", "", 1, (0,))], VOCABULARY, "t", "frozen"), 1)
    found = credit(index, (3, 2, 3, 1), Priority.calibrated(measured, TABLE, commons, mask_theta=99))
    assert (found.theta, found.mask_theta, found.alpha) == (measured.theta, 99, 0.3)
    assert found.digests == {
        "index": index.digest,
        "unigram": TABLE.digest,
        "commons": commons.index.digest,
        "decoys": measured.decoy_digest,
    }


def test_an_empty_output() -> None:
    found = Case((("a", (1, 2)),), (), 8, passages=((1,),)).credit()
    assert (found.total, dict(found.owners), found.windows, found.accounts) == (0, {}, (), ())


def test_what_does_not_belong_together_is_refused() -> None:
    index = SpanIndex.build([("x", "a", 1, (3, 2))], VOCABULARY, "t", "r")
    rule = Priority(TABLE, 8)
    with pytest.raises(PoaError, match=r"theta is 5; it must be above the unigram cap of 5"):
        Priority(TABLE, 5)
    with pytest.raises(PoaError, match=r"mask_theta is 1; it must be above"):
        Priority(TABLE, 8, mask_theta=1)
    for weights in ([1], [1, -1], [0.5, 1]):
        with pytest.raises(PoaError, match=r"weights must be 2 integers of 0 or more"):
            credit(index, (3, 2), rule, weights=weights)  # type: ignore[arg-type]
    with pytest.raises(PoaError, match=r"output: token 4 at position 0"):
        credit(index, (4,), rule)
    with pytest.raises(PoaError, match=r"record 'passage 1': token 9 at position 0"):
        credit(index, (3,), rule, passages=[(1,), (9,)])
    with pytest.raises(PoaError, match=r"documents is 0"):
        Commons(index, 0)
    with pytest.raises(Mismatch, match=r"another tokenizer"):
        credit(index, (3,), Priority(TABLE, 8, Commons(SpanIndex.build([], VOCABULARY, "other", "r"), 1)))
    with pytest.raises(Mismatch, match=r"unigram table has 1 tokens, the span index 4"):
        credit(index, (3,), Priority(Unigram(np.zeros(1, np.int64), 5), 8))
    other = calibrate(SpanIndex.build([], VOCABULARY, "t", "r"), TABLE, [[0], [1]])
    with pytest.raises(Mismatch, match=r"calibrate again"):
        credit(index, (3,), Priority.calibrated(other, TABLE))
    with pytest.raises(Mismatch, match=r"its calibration says"):
        Priority(TABLE, other.theta + 1, calibration=other)
    assert isinstance(other, Calibration)
