"""Noise must not pay: the printed rule against netting on synthetic scores with a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poa.rewards.credit import net_credit, printed_credit
from poa.rewards.policy import Policy
from poa.rewards.settlement import Settlement, receipts_of, settle
from poa.scores import Scores

SEEDS = range(10)
FEE = 1000
NET = Policy.preset("net-epoch")
UNGATED = replace(NET, z2=(0, 1))
PRINTED = Policy.preset("openledger-printed")


def farm_scores(seed: int, queries: int = 200) -> Scores:
    """Ten contributors with 30 records that help a little, and a farm of 300 records of zero-mean noise (nats)."""
    rng = np.random.default_rng(seed)
    labels = tuple(f"honest{i}" for i in range(10) for _ in range(30)) + ("farm",) * 300
    helps = np.array([0.0 if label == "farm" else 0.002 for label in labels])
    return scores(helps + rng.normal(0, 0.02, (queries, len(labels))), labels)


def placebo_scores(seed: int, queries: int = 400) -> Scores:
    """Twelve contributors with 20 records each, none of which helps or harms any query."""
    labels = tuple(f"c{i:02d}" for i in range(12) for _ in range(20))
    return scores(np.random.default_rng(seed).normal(0, 1.0, (queries, len(labels))), labels)


def scores(values: np.ndarray, labels: tuple[str, ...]) -> Scores:
    groups = {"contributor": labels, "payee": labels}
    queries = tuple(f"q{i}" for i in range(values.shape[0]))
    return Scores(values, queries, tuple(f"r{i}" for i in range(values.shape[1])), groups, "nats")


def netted(by_record: Scores, policy: Policy) -> Settlement:
    queries = len(by_record.query_ids)
    credit = net_credit(by_record.by("payee"), tuned=[-20.0] * queries, base=[-60.0] * queries)
    return settle(receipts_of(credit, [FEE] * queries), policy)


def printed(by_record: Scores) -> Settlement:
    return settle(receipts_of(printed_credit(by_record), [FEE] * len(by_record.query_ids)), PRINTED)


def paid(settlement: Settlement) -> int:
    return sum(amount for _, amount in settlement.payouts)


def farm_share(settlement: Settlement) -> float:
    return dict(settlement.payouts).get("farm", 0) / paid(settlement)


def pool(settlement: Settlement) -> int:
    return settlement.total - sum(amount for _, amount in settlement.parts)


def test_clipping_per_record_pays_a_farm_of_noise_and_netting_does_not() -> None:
    worlds = [farm_scores(seed) for seed in SEEDS]
    clipped = [farm_share(printed(world)) for world in worlds]
    ungated = [farm_share(netted(world, UNGATED)) for world in worlds]
    gated = [farm_share(netted(world, NET)) for world in worlds]
    assert min(clipped) > 0.4
    assert max(ungated) < 0.12
    assert np.mean(ungated) < 0.03
    assert np.mean(gated) < 0.005


def test_netting_still_pays_those_who_help() -> None:
    for seed in SEEDS:
        payouts = dict(netted(farm_scores(seed), NET).payouts)
        assert sum(name.startswith("honest") for name in payouts) == 10


def test_pure_noise_is_paid_all_by_the_printed_rule_and_almost_nothing_by_the_gated_one() -> None:
    worlds = [placebo_scores(seed) for seed in SEEDS]
    whole = [paid(printed(world)) / pool(printed(world)) for world in worlds]
    gated = [paid(settlement) / pool(settlement) for settlement in (netted(world, NET) for world in worlds)]
    ungated = [paid(settlement) / pool(settlement) for settlement in (netted(world, UNGATED) for world in worlds)]
    assert min(whole) == 1.0
    assert np.mean(gated) < 0.004
    assert np.mean(gated) < np.mean(ungated)


def test_a_placebo_epoch_settles_to_residuals() -> None:
    settlement = netted(placebo_scores(0), NET)
    assert sum(amount for _, amount in settlement.residuals) > 0.99 * pool(settlement)
