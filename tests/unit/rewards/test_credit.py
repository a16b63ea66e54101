"""Credit: exact sums, signs kept, no response exceeded; the printed rule against a brute-force twin."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.rewards.credit import UNIT, Credit, net_credit, printed_credit
from poa.scores import Scores

LAW = settings(deadline=None, derandomize=True, max_examples=200)
NATS = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1e-300, -1e-300, 5e-324, 1e300, -1e300, 1e-9]))
MEASURED = st.one_of(st.floats(-400, 0), st.sampled_from([0.0, -5e-324, -1e-300, -1e300]))
ROWS = st.integers(0, 6).flatmap(
    lambda payees: st.lists(
        st.tuples(st.lists(NATS, min_size=payees, max_size=payees), MEASURED, MEASURED), min_size=1, max_size=5
    )
)


def scores(values: object, labels: tuple[str, ...] | None = None, unit: str = "nats") -> Scores:
    array = np.asarray(values, np.float64)
    names = tuple(f"p{i:03d}" for i in range(array.shape[1]))
    groups = {} if labels is None else {"contributor": labels}
    return Scores(array, tuple(f"q{i}" for i in range(array.shape[0])), names, groups, unit)


@LAW
@given(ROWS)
def test_net_credit_laws(rows) -> None:
    values = np.array([row[0] for row in rows], np.float64).reshape(len(rows), -1)
    tuned, base = [row[1] for row in rows], [row[2] for row in rows]
    credit = net_credit(scores(values), tuned, base)
    total = credit.fractions.sum(axis=1) + credit.base + credit.unattributed + credit.below_threshold
    assert (total == UNIT).all()
    assert (credit.below_threshold == 0).all()
    # The sign of the evidence survives, whichever it is, or the fraction is too small to write down.
    assert ((credit.fractions == 0) | (np.sign(credit.fractions) == np.sign(values))).all()
    for row, after, before, fractions, kept in zip(values, tuned, base, credit.fractions, credit.base, strict=True):
        if before < -1e-300:
            row = np.minimum(row, 0.0) if after < before else row
            assert after >= before or fractions.max(initial=0) <= 0
            moved = min(Fraction(1), abs(Fraction(after) - Fraction(before)) / -Fraction(before))
            size = sum(abs(Fraction(score)) for score in row.tolist()) / -Fraction(before)
            scale = moved / size if size > moved else Fraction(1)
            for score, fraction in zip(row.tolist(), fractions.tolist(), strict=True):
                wanted = Fraction(score) / -Fraction(before) * scale * UNIT
                assert abs(fraction) <= abs(wanted) + Fraction(1, 10**5)
                assert abs(fraction - wanted) < 1 + Fraction(1, 10**5)
            assert abs((UNIT - int(kept)) - moved * UNIT) < 1 + Fraction(1, 10**5)
            assert sum(map(abs, fractions.tolist())) <= UNIT - int(kept)


def test_net_credit_by_hand() -> None:
    values = [[1.0, 0.5], [3.0, -1.0], [-0.5, -0.5], [9.0, 1.0]]
    credit = net_credit(scores(values), tuned=[-5.0, -8.0, -9.0, -20.0], base=[-10.0, -10.0, -10.0, -10.0])
    assert credit.fractions.tolist() == [
        [100_000_000, 50_000_000],
        [150_000_000, -50_000_000],  # evidence .4 for a move of .2: halved
        [-50_000_000, -50_000_000],
        [0, 0],  # tuning made this response less likely, so together they cannot have helped
    ]
    assert credit.base.tolist() == [500_000_000, 800_000_000, 900_000_000, 0]
    # The third response is net negative: its residuals are 1.1e9 together.
    assert credit.unattributed.tolist() == [350_000_000, 100_000_000, 200_000_000, 1_000_000_000]


def test_rounding_favours_neither_the_payees_nor_the_base_model() -> None:
    credit = net_credit(scores([[1.0], [-1.0]]), [-2.0, -2.0], [-3.0, -3.0])
    assert credit.fractions.tolist() == [[333_333_333], [-333_333_333]]
    assert credit.base.tolist() == [666_666_666, 666_666_666]
    assert credit.unattributed.tolist() == [1, 666_666_667]


def test_evidence_against_a_response_that_tuning_made_less_likely_stays() -> None:
    credit = net_credit(scores([[2.0, -1.0], [2.0, -4.0]]), [-12.0, -12.0], [-10.0, -10.0])
    assert credit.fractions.tolist() == [[0, -100_000_000], [0, -200_000_000]]  # the second claims more than the move
    assert credit.unattributed.tolist() == [300_000_000, 400_000_000]


def test_nothing_moved_pays_nobody() -> None:
    credit = net_credit(scores([[4.0, -3.0]]), [-7.0], [-7.0])
    assert credit.fractions.tolist() == [[0, 0]]
    assert credit.base.tolist() == [UNIT]


def test_a_response_that_the_base_model_was_sure_of() -> None:
    credit = net_credit(scores([[2.0, -2.0], [2.0, 2.0]]), [-1.0, 0.0], [0.0, 0.0])
    assert credit.fractions.tolist() == [[0, -UNIT], [0, 0]]
    assert credit.base.tolist() == [0, UNIT]


def test_the_same_bytes_whatever_the_batch() -> None:
    rng = np.random.default_rng(3)
    values, base = rng.normal(size=(40, 57)), -rng.uniform(1, 50, 40)
    tuned = base * rng.uniform(0, 1, 40)
    whole = net_credit(scores(values), tuned, base)
    for q in range(40):
        alone = net_credit(scores(values[q : q + 1]), tuned[q : q + 1], base[q : q + 1])
        assert (alone.fractions[0] == whole.fractions[q]).all()
    turned = net_credit(scores(np.asfortranarray(values)), tuned, base)
    assert (turned.fractions == whole.fractions).all()


def test_net_credit_refusals() -> None:
    good = scores([[1.0, 2.0]])
    with pytest.raises(PoaError, match="only scores in nats can be paid"):
        net_credit(scores([[1.0]], unit="uncalibrated"), [-1.0], [-2.0])
    for bad in (float("nan"), float("-inf"), 0.1):
        with pytest.raises(PoaError, match=r"tuned of query 'q0' is .*must be a log-probability"):
            net_credit(good, [bad], [-2.0])
        with pytest.raises(PoaError, match=r"base of query 'q0' is .*must be a log-probability"):
            net_credit(good, [-2.0], [bad])
    with pytest.raises(PoaError, match=r"base has shape \(2,\), must be one number for each of 1 queries"):
        net_credit(good, [-2.0], [-2.0, -3.0])
    with pytest.raises(PoaError, match=r"by\('payee'\)\): payees must ascend, each once; 'a' follows 'b'"):
        net_credit(Scores(np.ones((1, 2)), ("q",), ("b", "a"), unit="nats"), [-1.0], [-2.0])
    with pytest.raises(PoaError, match="a payee id is empty"):
        net_credit(Scores(np.ones((1, 2)), ("q",), ("", "a"), unit="nats"), [-1.0], [-2.0])
    with pytest.raises(PoaError, match="scores of query 'q0' are too large"):
        net_credit(scores([[1.7e308, 1.7e308]]), [-1.0], [-2.0])
    with pytest.raises(PoaError, match="is not finite"):
        net_credit(scores([[float("nan")]]), [-1.0], [-2.0])


def test_rolling_up_to_payees_nets_inside_a_payee() -> None:
    records = Scores(np.array([[3.0, -3.0, 1.0]]), ("q",), ("r1", "r2", "r3"), {"payee": ("bob", "bob", "ann")}, "nats")
    credit = net_credit(records.by("payee"), [-1.0], [-10.0])
    assert credit.payees == ("ann", "bob")
    assert credit.fractions.tolist() == [[100_000_000, 0]]


@LAW
@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(NATS, min_size=n, max_size=n), min_size=1, max_size=4),
            st.lists(st.sampled_from(["ann", "bob", "cy"]), min_size=n, max_size=n),
        )
    )
)
def test_printed_credit_equals_its_description(case) -> None:
    rows, labels = case
    credit = printed_credit(scores(rows, tuple(labels), "uncalibrated"))
    assert credit.payees == tuple(sorted(set(labels)))
    for row, fractions, rest in zip(rows, credit.fractions.tolist(), credit.unattributed.tolist(), strict=True):
        top = max(row)
        assert sum(fractions) + rest == UNIT
        assert min(fractions) >= 0
        if top <= 0:
            assert rest == UNIT
            continue
        assert rest == 0
        sums = dict.fromkeys(credit.payees, Fraction(0))
        for score, label in zip(row, labels, strict=True):
            sums[label] += max(Fraction(score), Fraction(0))
        for payee, fraction in zip(credit.payees, fractions, strict=True):
            # One unit of rounding, and 2**-40 of the largest score for each of at most seven records.
            assert abs(fraction - sums[payee] / sum(sums.values()) * UNIT) < 1 + Fraction(1, 50)


def test_printed_credit_by_hand() -> None:
    by_record = scores([[2.0, -5.0, 1.0, 0.0], [-1.0, -1.0, 0.0, -2.0], [1.0, 1.0, 1.0, 0.0]], ("b", "b", "a", "c"))
    credit = printed_credit(by_record)
    assert credit.payees == ("a", "b", "c")
    assert credit.fractions.tolist() == [[333_333_333, 666_666_667, 0], [0, 0, 0], [333_333_333, 666_666_667, 0]]
    assert credit.unattributed.tolist() == [0, UNIT, 0]


def test_printed_credit_breaks_ties_by_ascending_id() -> None:
    credit = printed_credit(scores([[1.0, 1.0, 1.0]], ("c", "a", "b")))
    assert credit.fractions.tolist() == [[333_333_334, 333_333_333, 333_333_333]]


def test_printed_credit_refusals() -> None:
    with pytest.raises(PoaError, match=r"no group 'owner'; these scores know \['contributor'\]"):
        printed_credit(scores([[1.0]], ("a",)), "owner")
    with pytest.raises(PoaError, match="a payee id is empty"):
        printed_credit(scores([[1.0]], ("",)))


def arrays(**changes: object) -> dict[str, object]:
    def ints(*values: object) -> np.ndarray:
        return np.array(values, np.int64)

    good: dict[str, object] = {
        "query_ids": ("q0", "q1"),
        "payees": ("a", "b"),
        "fractions": ints([600_000_000, -400_000_000], [0, 0]),
        "base": ints(0, UNIT),
        "unattributed": ints(800_000_000, 0),
        "below_threshold": ints(0, 0),
    }
    return good | changes


def test_credit_accepts_a_net_negative_response() -> None:
    fractions = np.array([[-UNIT, 0], [0, 0]])
    assert Credit(**arrays(fractions=fractions, unattributed=np.array([2 * UNIT, 0]))).unattributed[0] == 2 * UNIT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unattributed": np.array([799_999_999, 0])}, "'q0' has a sum other than 1e9"),
        ({"below_threshold": np.array([0, 1])}, "'q1' has a sum other than 1e9"),
        ({"base": np.array([0, -1])}, "'q1' has a residual below 0"),
        ({"base": np.array([0.0, 1e9])}, r"base is float64 \(2,\), must be int64 \(2,\)"),
        ({"base": np.array([UNIT])}, r"base is int64 \(1,\), must be int64 \(2,\)"),
        ({"payees": ("b", "a")}, "payees must ascend"),
        ({"payees": ("a",)}, r"fractions is int64 \(2, 2\), must be int64 \(2, 1\)"),
        ({"fractions": np.array([[0, 0], [2**62, -(2**62)]])}, "'q1' has a fraction beyond 1e9"),
        ({"fractions": np.array([[0, 0], [-(2**63), 0]])}, "'q1' has a fraction beyond 1e9"),
        ({"fractions": np.array([[0, 0], [600_000_000, -600_000_000]])}, "'q1' has absolute fractions above 1e9"),
    ],
)
def test_credit_refuses_what_does_not_add_up(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        Credit(**arrays(**changes))
