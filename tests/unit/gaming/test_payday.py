"""The two payment rules from records to money, on a base model of a few thousand weights."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from poa.errors import PoaError
from poa.factory.finetune import finetune
from poa.factory.recipe import LoRARecipe
from poa.gaming import Copier, Earnings, NetRule, PrintedRule, Rule, World, look
from poa.methods.datainf import DataInf
from poa.methods.graddot import GradDot
from poa.records import Corpus
from poa.rewards.policy import Policy
from poa.rewards.settlement import Settlement

RECIPE = LoRARecipe(rank=2, epochs=2, batch=4, checkpoints=1, rate=1e-2)
# Without the gate, or a handful of queries would pay nobody and every comparison would hold trivially.
OPEN = replace(Policy.preset("net-epoch"), z2=(0, 1))
PRINTED = PrintedRule()
NET = NetRule(GradDot(), 0.05, "a test's slope", OPEN)
FEES = [1_000_003, 7, 1, 999, 12_345, 0]


@pytest.fixture(scope="session")
def copies(corpus: Corpus) -> Corpus:
    """Exact and disguised copies of bob's records under cy's name."""
    view = look(World(corpus, OPEN, {"bob": 1}), "cy", "K1")
    stolen = [r for r in corpus if r.contributor == "bob"]
    exact = [replace(r, id=f"again-{r.id}", contributor="cy", registered=view.now) for r in stolen]
    return Corpus((*exact, *Copier(times=1, every=1000).rows(view)))


@pytest.mark.parametrize("rule", [PRINTED, NET], ids=["printed", "net"])
def test_money_adds_up_to_the_fees_exactly(rule: Rule, corpus: Corpus, queries: Corpus, base: Path) -> None:
    earnings = rule.shares(corpus, queries, base, RECIPE, FEES)
    settled = earnings.settlement
    assert settled.total == sum(FEES)
    assert all(type(amount) is int and amount > 0 for amount in earnings.earned.values())
    assert earnings.earned
    assert sum(earnings.earned.values()) + sum(dict(settled.residuals).values()) + settled.carry == earnings.pool
    assert earnings.pool + sum(dict(settled.parts).values()) == sum(FEES)
    people = set(corpus.contributors)
    assert set(earnings.earned) <= people
    left = Fraction(sum(dict(settled.residuals).values()) + settled.carry, earnings.pool)
    assert sum(earnings.share(name) for name in people) + left == 1


@pytest.mark.parametrize("rule", [PRINTED, NET], ids=["printed", "net"])
def test_the_same_market_pays_the_same(rule: Rule, corpus: Corpus, queries: Corpus, base: Path) -> None:
    first, second = (rule.shares(c, queries, base, RECIPE, FEES) for c in (corpus, Corpus(reversed(corpus))))
    assert first == second


def test_the_printed_rule_drops_exact_copies_only(corpus: Corpus, copies: Corpus, queries: Corpus, base: Path) -> None:
    earnings = PRINTED.shares(corpus + copies, queries, base, RECIPE, FEES)
    assert set(earnings.dropped) == {name for name in copies.ids if name.startswith("again-")}


def test_the_net_rule_drops_all_copies_and_pays_as_if_they_were_not_there(
    corpus: Corpus, copies: Corpus, queries: Corpus, base: Path
) -> None:
    clean, attacked = (NET.shares(c, queries, base, RECIPE, FEES) for c in (corpus, corpus + copies))
    assert clean.dropped == ()
    assert set(attacked.dropped) == set(copies.ids)
    assert attacked.settlement == clean.settlement


def test_the_printed_rule_is_clipped_datainf_normalised_per_query(corpus: Corpus, queries: Corpus, base: Path) -> None:
    """Against the same arithmetic in floats, written apart: shares of each fee's contributor half."""
    fees = [10**9] * len(queries)
    earnings = PRINTED.shares(corpus, queries, base, RECIPE, fees)
    scores = DataInf(damping=0.1).fit(finetune(corpus, base=base, recipe=RECIPE)).attribute(queries)
    positive = np.maximum(scores.values.astype(float), 0)
    weights = positive / positive.sum(1, keepdims=True)
    for name in sorted(set(corpus.contributors)):
        mine = np.array([owner == name for owner in scores.groups["contributor"]])
        expected = float(weights[:, mine].sum()) / len(queries)
        assert float(earnings.share(name)) == pytest.approx(expected, abs=1e-6)


def test_the_net_rule_is_netted_before_it_is_clipped(corpus: Corpus, queries: Corpus, base: Path) -> None:
    """Against floats: signed fractions of each response, capped by what tuning moved, netted over all responses."""
    fees = [10**9] * len(queries)
    earnings = NET.shares(corpus, queries, base, RECIPE, fees)
    run = finetune(corpus, base=base, recipe=RECIPE)
    scores = NET.method.fit(run).attribute(queries)
    owners = np.asarray(scores.groups["payee"])
    names = sorted(set(owners))
    nats = 0.05 * np.stack([scores.values[:, owners == name].astype(float).sum(1) for name in names], 1)
    batches = [run.task.batch([query]) for query in queries]
    tuned, before = (
        np.array([float(run.task.measurement(model, batch).detach()) for batch in batches])
        for model in (run.model(), run.base())
    )
    claimed, moved = np.abs(nats).sum(1) / -before, np.minimum(np.abs(tuned - before) / -before, 1)
    fractions = nats / -before[:, None] * np.minimum(1, moved / claimed)[:, None]
    net = fractions.sum(0)
    pool = max(0.0, min(net[net > 0].sum(), net.sum())) / len(queries)
    for name, total in zip(names, net, strict=True):
        expected = pool * max(total, 0) / net[net > 0].sum()
        assert float(earnings.share(name)) == pytest.approx(expected, abs=1e-6)


def test_the_gate_and_the_flat_licence_share_of_the_policy_apply(corpus: Corpus, queries: Corpus, base: Path) -> None:
    closed = replace(NET, policy=replace(OPEN, z2=(10**9, 1)))
    assert closed.shares(corpus, queries, base, RECIPE, FEES).earned == {}
    flat = replace(NET, policy=replace(OPEN, licence_share=1_000_000))
    earnings = flat.shares(corpus, queries, base, RECIPE, [6_000] * len(queries))
    assert earnings.earned == dict.fromkeys(("ada", "bob", "cy"), len(queries) * 1_000)


def test_an_empty_pool_gives_empty_shares() -> None:
    nothing = Settlement("p", (), (), (), 0, (), 0)
    assert Earnings(nothing, ()).share("ada") == 0


@pytest.mark.parametrize("slope", [0.0, -1.0, float("nan"), float("inf")])
def test_a_method_that_does_not_rise_with_the_truth_must_not_pay(slope: float) -> None:
    with pytest.raises(PoaError, match="must not pay"):
        NetRule(GradDot(), slope, "none")


def test_the_net_rule_refuses_another_rules_policy() -> None:
    with pytest.raises(PoaError, match="NetRule pays by 'net-epoch/1'"):
        NetRule(GradDot(), 1.0, "none", Policy.preset("openledger-printed"))


def test_the_rules_default_policies_are_the_presets() -> None:
    assert NetRule(GradDot(), 1.0, "none").policy == Policy.preset("net-epoch")
    assert PRINTED.policy == Policy.preset("openledger-printed")
    assert not PRINTED.policy.payable
