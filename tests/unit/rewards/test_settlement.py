"""Settlement: conservation to the last micro-credit, the printed examples, and what an attacker can gain."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.rewards.credit import UNIT, net_credit
from poa.rewards.policy import Policy
from poa.rewards.settlement import MOST, ScoredReceipt, Settlement, receipts_of, settle, split_fee
from poa.scores import Scores

LAW = settings(deadline=None, derandomize=True, max_examples=150)
NET = Policy.preset("net-epoch")
OPEN = replace(NET, z2=(0, 1))
PRINTED = Policy.preset("openledger-printed")
ALL_TO_CONTRIBUTORS = replace(OPEN, parts=(("contributors", 1_000_000),))
FEES = st.one_of(st.integers(0, 9), st.integers(0, 5_000_000), st.sampled_from([MOST, MOST - 1]), st.integers(0, MOST))
NAMES = ("ann", "bob", "cy", "dee")


@st.composite
def receipts(draw, signed: bool = True, names: tuple[str, ...] = NAMES) -> list[ScoredReceipt]:
    out: list[ScoredReceipt] = []
    for index in range(draw(st.integers(0, 7))):
        left = UNIT
        payees: list[tuple[str, int]] = []
        for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names)).map(sorted)):
            size = draw(st.one_of(st.integers(0, left), st.integers(0, min(left, 20))))
            left -= size
            sign = draw(st.sampled_from([1, 1, -1])) if signed else 1
            payees += [(name, sign * size)] if size else []
        out.append(receipt(f"r{index}", draw(FEES), payees, draw(st.integers(0, UNIT)), draw(st.integers(0, UNIT))))
    return out


def receipt(name: str, fee: int, payees: list[tuple[str, int]], first: int = UNIT, second: int = 0) -> ScoredReceipt:
    """A receipt whose residuals take what the fractions leave; `first`, `second` say how, in units of 1e-9."""
    rest = UNIT - sum(fraction for _, fraction in payees)
    unattributed = rest * first // UNIT
    base = (rest - unattributed) * second // UNIT
    return ScoredReceipt(name, fee, tuple(payees), base, unattributed, rest - unattributed - base)


POLICIES = st.builds(
    lambda parts, licence, z2, rule: replace(NET, parts=parts, licence_share=licence, z2=z2, rule=rule, payable=False),
    st.sampled_from(
        [
            NET.parts,
            (("contributors", 1_000_000),),
            (("auditors", 333_333), ("contributors", 333_334), ("model", 333_333)),
            (("contributors", 0), ("model", 1_000_000)),
        ]
    ),
    st.sampled_from([0, 1, 250_000, 1_000_000]),
    st.sampled_from([(0, 1), (1, 1), (4, 1), (384, 100)]),
    st.sampled_from(["net-epoch/1", "openledger-printed/1"]),
)


def money(settlement: Settlement) -> int:
    rows = (*settlement.parts, *settlement.payouts, *settlement.residuals, *settlement.licence)
    return sum(amount for _, amount in rows) + settlement.carry


# -- parts of a fee -------------------------------------------------------------------------------------------


def test_parts_of_small_fees_as_the_ledger_page_prints_them() -> None:
    parts = [("contributors", 1), ("model", 0), ("platform", 0), ("stakers", 0)]
    assert split_fee(1, NET) == tuple(parts)
    assert split_fee(7, NET) == (("contributors", 4), ("model", 1), ("platform", 1), ("stakers", 1))
    # 5 leaves one unit and equal remainders of contributors and platform.
    assert split_fee(5, NET) == (("contributors", 3), ("model", 1), ("platform", 0), ("stakers", 1))


@LAW
@given(FEES)
def test_parts_add_up_to_the_fee(fee: int) -> None:
    assert sum(amount for _, amount in split_fee(fee, NET)) == fee


# -- laws of every rule ---------------------------------------------------------------------------------------


@LAW
@given(st.data(), POLICIES, st.integers(0, 10**7))
def test_conservation_sign_and_order(data, policy: Policy, carry_in: int) -> None:
    epoch = data.draw(receipts(signed=policy.rule == "net-epoch/1"))
    clusters = {"bob": 3, "zoe": 4, "nil": 0}
    settled = settle(epoch, policy, clusters, carry_in)
    assert money(settled) == settled.total == sum(r.fee for r in epoch) + carry_in
    assert settled.carry >= 0
    assert all(amount >= 0 for _, amount in (*settled.parts, *settled.residuals))
    for rows in (settled.payouts, settled.licence):
        assert all(amount > 0 for _, amount in rows)
        assert [name for name, _ in rows] == sorted({name for name, _ in rows})
    assert [name for name, _ in settled.residuals] == ["base", "below_threshold", "unattributed"]
    assert [name for name, _ in settled.parts] == [name for name, _ in policy.parts if name != "contributors"]
    for name, amount in settled.parts:
        assert amount == sum(dict(split_fee(r.fee, policy))[name] for r in epoch)
    assert dict(settled.earned) == {
        name: dict(settled.payouts).get(name, 0) + dict(settled.licence).get(name, 0)
        for name in {*dict(settled.payouts), *dict(settled.licence)}
    }
    shuffled = data.draw(st.permutations(epoch))
    assert settle(shuffled, policy, dict(reversed(clusters.items())), carry_in) == settled


@LAW
@given(receipts(), POLICIES, st.integers(0, 100))
def test_net_epoch_equals_the_text_of_the_ledger_page(epoch, policy: Policy, carry_in: int) -> None:
    """The rule again in exact fractions, with the textbook standard error and R as printed."""
    policy = replace(policy, rule="net-epoch/1", licence_share=0)
    pools = [dict(split_fee(r.fee, policy))["contributors"] for r in epoch]
    money_in, count = sum(pools), len(epoch)
    series = {
        name: [Fraction(pool * dict(r.payees).get(name, 0)) for pool, r in zip(pools, epoch, strict=True)]
        for name in {payee for r in epoch for payee, _ in r.payees}
    }

    def paid(xs: list[Fraction]) -> bool:
        mean = sum(xs) / count
        if mean <= 0 or policy.z2[0] == 0:
            return mean > 0
        if count < 2:
            return False
        variance = sum((x - mean) ** 2 for x in xs) / (count - 1)
        return mean**2 > Fraction(*policy.z2) * variance / count

    net = {name: sum(xs) for name, xs in series.items() if paid(xs)}
    residual = sum(p * (r.base + r.unattributed + r.below_threshold) for p, r in zip(pools, epoch, strict=True))
    pool = int(max(0, min(sum(net.values()), money_in * UNIT - residual)) // UNIT)
    shared = pool + carry_in if pool else 0
    wanted = {name: int(shared * x // sum(net.values())) for name, x in net.items()}
    settled = settle(epoch, policy, carry_in=carry_in)
    assert dict(settled.payouts) == {name: amount for name, amount in wanted.items() if amount}
    assert settled.carry == pool + carry_in - sum(wanted.values())
    left = money_in - pool
    base = min(sum(p * r.base for p, r in zip(pools, epoch, strict=True)) // UNIT, left)
    unattributed = min(sum(p * r.unattributed for p, r in zip(pools, epoch, strict=True)) // UNIT, left - base)
    assert dict(settled.residuals) == {
        "base": base,
        "unattributed": unattributed,
        "below_threshold": left - base - unattributed,
    }


@LAW
@given(receipts(signed=False))
def test_printed_rule_pays_every_receipt_at_once(epoch) -> None:
    settled = settle(epoch, PRINTED, carry_in=9)
    assert settled.carry == 9
    for name in NAMES:
        exact = sum(
            Fraction(dict(split_fee(r.fee, PRINTED))["contributors"] * dict(r.payees).get(name, 0), UNIT) for r in epoch
        )
        assert abs(dict(settled.payouts).get(name, 0) - exact) < max(1, len(epoch))


def test_printed_rule_refuses_negative_fractions() -> None:
    with pytest.raises(PoaError, match="fraction of 'ann' in receipt 'r' under rule openledger-printed/1 is -5"):
        settle([receipt("r", 10, [("ann", -5)])], PRINTED)


def test_a_payee_named_like_a_residual_is_a_payee() -> None:
    settled = settle([receipt("r", 100, [("base", UNIT)])], PRINTED)
    assert settled.payouts == (("base", 50),)
    assert dict(settled.residuals)["base"] == 0


# -- net-epoch by hand ----------------------------------------------------------------------------------------


def test_evidence_nets_over_the_epoch_before_it_is_clipped() -> None:
    epoch = [receipt("r1", 1000, [("ann", UNIT // 2)]), receipt("r2", 1000, [("ann", -UNIT // 2)])]
    settled = settle(epoch, ALL_TO_CONTRIBUTORS)
    assert settled.payouts == ()
    assert dict(settled.residuals) == {"base": 0, "below_threshold": 0, "unattributed": 2000}


def test_evidence_against_some_lowers_the_pay_of_all() -> None:
    epoch = [receipt("r", 1000, [("ann", 600_000_000), ("bob", -400_000_000)])]
    assert settle(epoch, ALL_TO_CONTRIBUTORS).payouts == (("ann", 200),)


def test_steady_evidence_passes_the_gate_and_a_lone_receipt_does_not() -> None:
    policy = replace(ALL_TO_CONTRIBUTORS, z2=(4, 1))
    steady = [receipt(f"r{i}", 100, [("ann", UNIT // 4)]) for i in range(3)]
    assert settle(steady, policy).payouts == (("ann", 75),)
    assert settle(steady[:1], policy).payouts == ()
    assert settle(steady[:1], ALL_TO_CONTRIBUTORS).payouts == (("ann", 25),)
    assert dict(settle(steady[:1], policy).residuals)["below_threshold"] == 25


def test_the_gate_is_strict_at_exactly_z() -> None:
    # x = 3, 1: mean 2, standard error 1, so exactly two standard errors.
    epoch = [receipt("r1", 100, [("ann", 300_000_000)]), receipt("r2", 100, [("ann", 100_000_000)])]
    assert settle(epoch, replace(ALL_TO_CONTRIBUTORS, z2=(4, 1))).payouts == ()
    assert settle(epoch, replace(ALL_TO_CONTRIBUTORS, z2=(399, 100))).payouts == (("ann", 40),)


def test_carry_joins_the_next_pool_or_waits() -> None:
    thirds = [("ann", 300_000_000), ("bob", 300_000_000), ("cy", 300_000_000)]
    first = settle([receipt("r", 100, thirds)], ALL_TO_CONTRIBUTORS, carry_in=4)
    assert first.payouts == (("ann", 31), ("bob", 31), ("cy", 31))
    assert first.carry == 1
    second = settle([receipt("r", 100, thirds)], ALL_TO_CONTRIBUTORS, carry_in=first.carry + 2)
    assert second.payouts == (("ann", 31), ("bob", 31), ("cy", 31))
    assert second.carry == 0
    waits = settle([receipt("r", 100, [])], ALL_TO_CONTRIBUTORS, carry_in=3)
    assert waits.payouts == ()
    assert waits.carry == 3


def test_empty_zero_fee_and_all_negative_epochs_pay_nobody() -> None:
    assert money(settle([], NET)) == 0
    assert settle([], NET, carry_in=7).carry == 7
    free = settle([receipt(f"r{i}", 0, [("ann", UNIT)]) for i in range(5)], OPEN)
    assert free.payouts == ()
    assert free.total == 0
    against = settle([receipt(f"r{i}", 100, [("ann", -UNIT)]) for i in range(5)], ALL_TO_CONTRIBUTORS)
    assert against.payouts == ()
    assert sum(amount for _, amount in against.residuals) == 500


def test_residuals_never_claim_more_than_there_is() -> None:
    """Net-negative receipts carry residuals of up to 2e9; base comes first, then unattributed."""
    base = ScoredReceipt("r1", 100, (("ann", -UNIT),), 2 * UNIT, 0, 0)
    both = ScoredReceipt("r2", 100, (("ann", -UNIT),), UNIT // 2, 3 * UNIT // 2, 0)
    assert settle([base], ALL_TO_CONTRIBUTORS).residuals == (("base", 100), ("below_threshold", 0), ("unattributed", 0))
    assert dict(settle([both], ALL_TO_CONTRIBUTORS).residuals) == {
        "base": 50,
        "below_threshold": 0,
        "unattributed": 50,
    }


def test_the_largest_fees_do_not_overflow() -> None:
    epoch = [receipt(f"r{i}", MOST, [("ann", 2 * UNIT // 3), ("bob", UNIT // 3)]) for i in range(4)]
    settled = settle(epoch, replace(ALL_TO_CONTRIBUTORS, z2=(4, 1)))
    assert settled.total == 4 * MOST
    assert dict(settled.payouts)["ann"] == 4 * MOST * (2 * UNIT // 3) // UNIT


# -- licence share --------------------------------------------------------------------------------------------


def test_licence_share_goes_flat_over_the_clusters() -> None:
    policy = replace(ALL_TO_CONTRIBUTORS, licence_share=300_000)
    settled = settle([receipt("r", 1000, [("ann", UNIT)])], policy, {"bob": 1, "cy": 2, "dee": 0, "ed": 4})
    assert settled.licence == (("bob", 42), ("cy", 85), ("ed", 171))
    assert settled.payouts == (("ann", 700),)
    assert settled.carry == 2
    assert dict(settled.earned) == {"ann": 700, "bob": 42, "cy": 85, "ed": 171}


@pytest.mark.parametrize("clusters", [None, {}, {"bob": 0}])
def test_licence_share_without_clusters_is_refused(clusters) -> None:
    policy = replace(ALL_TO_CONTRIBUTORS, licence_share=300_000)
    with pytest.raises(PoaError, match="policy 'net-epoch' pays a flat licence share: pass the cluster weights"):
        settle([receipt("r", 1000, [])], policy, clusters)


# -- what an attacker can gain --------------------------------------------------------------------------------


@LAW
@given(
    receipts(names=("bob", "cy")),
    st.lists(st.integers(-UNIT, UNIT), min_size=7, max_size=7),
    st.lists(st.integers(0, 50), min_size=1, max_size=5),
    st.sampled_from([(0, 1), (1, 1), (4, 1)]),
)
def test_splitting_a_payee_in_proportion_gains_nothing(epoch, shares, weights, z2) -> None:
    whole: list[ScoredReceipt] = []
    split: list[ScoredReceipt] = []
    for item, share in zip(epoch, shares, strict=False):
        left = UNIT - sum(abs(fraction) for _, fraction in item.payees)
        one = abs(share) * left // UNIT // max(1, sum(weights)) * (1 if share > 0 else -1)
        mine = [("me", one * sum(weights))] if one * sum(weights) else []
        many = [(f"me{i}", one * weight) for i, weight in enumerate(weights) if one * weight]
        whole.append(receipt(item.id, item.fee, [*item.payees, *mine]))
        split.append(receipt(item.id, item.fee, [*item.payees, *many]))
    policy = replace(OPEN, z2=z2)
    together = dict(settle(whole, policy, carry_in=3).payouts).get("me", 0)
    apart = sum(amount for name, amount in settle(split, policy, carry_in=3).payouts if name.startswith("me"))
    assert apart <= together


@LAW
@given(receipts(names=("bob", "cy")), st.lists(st.lists(st.integers(0, 10**8), min_size=3, max_size=3), min_size=7))
def test_splitting_helpful_records_in_any_way_gains_nothing(epoch, pieces) -> None:
    """Gate off: the identities need not follow any ratio, as long as every one of them helps."""
    whole: list[ScoredReceipt] = []
    split: list[ScoredReceipt] = []
    for item, parts in zip(epoch, pieces, strict=False):
        left = UNIT - sum(abs(fraction) for _, fraction in item.payees)
        parts = [part if sum(parts) <= left else left // 3 for part in parts]
        many = [(f"me{i}", part) for i, part in enumerate(parts) if part]
        whole.append(receipt(item.id, item.fee, [*item.payees, ("me", sum(parts))] if sum(parts) else [*item.payees]))
        split.append(receipt(item.id, item.fee, [*item.payees, *many]))
    together = dict(settle(whole, OPEN, carry_in=3).payouts).get("me", 0)
    apart = sum(amount for name, amount in settle(split, OPEN, carry_in=3).payouts if name.startswith("me"))
    assert apart <= together


def test_splitting_by_sign_is_the_limit_of_netting() -> None:
    """Two names for one owner, one for what helps and one for what harms: so payees must be clusters."""
    whole = [receipt("r", 1000, [("bob", 400_000_000), ("me", 100_000_000)])]
    split = [receipt("r", 1000, [("bob", 400_000_000), ("me0", 200_000_000), ("me1", -100_000_000)])]
    assert dict(settle(whole, ALL_TO_CONTRIBUTORS).payouts)["me"] == 100
    assert dict(settle(split, ALL_TO_CONTRIBUTORS).payouts)["me0"] == 166


@LAW
@given(receipts(), st.lists(st.integers(0, 10**9), min_size=1, max_size=4))
def test_buying_own_queries_costs_more_than_it_pays(epoch, fees) -> None:
    """Gate off: fees spent on queries that credit only oneself return at most the contributors' part of them."""
    bought = [receipt(f"w{i}", fee, [("ann", UNIT)]) for i, fee in enumerate(fees)]
    before = dict(settle(epoch, OPEN).payouts).get("ann", 0)
    after = dict(settle([*epoch, *bought], OPEN).payouts).get("ann", 0)
    # Two roundings down, of the pool and of the share, may each hide a unit before the purchase.
    assert after - before <= sum(dict(split_fee(fee, OPEN))["contributors"] for fee in fees) + 2


# -- receipts -------------------------------------------------------------------------------------------------


def test_receipts_of_credit_keep_every_unit() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 3)).round(1)
    values[2, 1] = 0.0
    by_payee = Scores(values, tuple(f"q{i}" for i in range(6)), ("ann", "bob", "cy"), unit="nats")
    credit = net_credit(by_payee, [-4.0] * 6, [-10.0] * 6)
    made = receipts_of(credit, [5, 0, 7, MOST, 1, 2])
    assert [r.id for r in made] == list(credit.query_ids)
    assert [r.fee for r in made] == [5, 0, 7, MOST, 1, 2]
    assert "bob" not in dict(made[2].payees)
    for row, made_row in zip(credit.fractions.tolist(), made, strict=True):
        assert dict(made_row.payees) == {p: f for p, f in zip(credit.payees, row, strict=True) if f}
    assert [r.unattributed for r in made] == credit.unattributed.tolist()
    with pytest.raises(PoaError, match="1 fees for 6 queries"):
        receipts_of(credit, [5])
    with pytest.raises(PoaError, match=r"fee of receipt 'q0' is 0\.5, must be an integer"):
        receipts_of(credit, [0.5, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fee": -1}, "fee of receipt 'r' is -1, must be an integer, 0 to 9223372036854775807"),
        ({"fee": MOST + 1}, "fee of receipt 'r' is 9223372036854775808"),
        ({"fee": float("nan")}, "fee of receipt 'r' is nan"),
        ({"fee": True}, "fee of receipt 'r' is True"),
        ({"payees": (("b", 1), ("a", 1))}, "receipt 'r': payees must ascend, each once; 'a' follows 'b'"),
        ({"payees": (("a", 1), ("a", 1))}, "receipt 'r': payees must ascend, each once; 'a' follows 'a'"),
        ({"payees": (("", 1),)}, "receipt 'r': a payee id is empty"),
        ({"payees": (("a", 0),)}, "fraction of 'a' of receipt 'r' is 0; leave the payee out"),
        ({"payees": (("a", UNIT + 1),)}, "fraction of 'a' of receipt 'r' is 1000000001"),
        ({"payees": (("a", UNIT), ("b", -1)), "unattributed": 1}, "absolute fractions of receipt 'r' add up to"),
        ({"base": -1}, "base of receipt 'r' is -1"),
        ({"below_threshold": 1}, "fractions and residuals of receipt 'r' add up to 1000000001, must be 1000000000"),
    ],
)
def test_receipts_refuse_what_does_not_add_up(changes: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "id": "r",
        "fee": 1,
        "payees": (("a", 1),),
        "base": 0,
        "unattributed": UNIT - 1,
        "below_threshold": 0,
    }
    assert ScoredReceipt(**good).fee == 1
    with pytest.raises(PoaError, match=message):
        ScoredReceipt(**good | changes)


def test_a_receipt_counts_once() -> None:
    one = receipt("r", 5, [])
    with pytest.raises(PoaError, match="receipt 'r' appears twice in the epoch"):
        settle([one, one], NET)


def test_settlements_that_do_not_balance_cannot_exist() -> None:
    settled = settle([receipt("r", 100, [])], NET)
    with pytest.raises(PoaError, match="settlement gives out 101 micro-credits of 100"):
        replace(settled, carry=1)
    with pytest.raises(PoaError, match="amount of 'carry' in the settlement is -1"):
        replace(settled, carry=-1, total=99)
    with pytest.raises(PoaError, match="carry_in is -1"):
        settle([], NET, carry_in=-1)
