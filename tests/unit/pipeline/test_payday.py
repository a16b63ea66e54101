"""Money of one epoch: integers, conserved, signed sums per contributor, and the printed rule apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.pipeline.instances import made
from poa.pipeline.journal import actor
from poa.pipeline.payday import net_payday, printed_payday
from poa.rewards.policy import Policy
from poa.scores import Scores

NAMES = ("ann", "bob", "cyd")
FEE = 1_000_000


def scores(values: np.ndarray) -> Scores:
    people = tuple(NAMES[i % 3] for i in range(values.shape[1]))
    ids = tuple(f"r{i}" for i in range(values.shape[1]))
    groups = {"payee": people, "contributor": people}
    return Scores(values, tuple(f"q{i}" for i in range(len(values))), ids, groups, unit="nats")


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 5), st.integers(3, 9), st.integers(0, 99))
def test_money_is_conserved(asked: int, records: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(asked, records))
    base = -generator.uniform(20, 40, asked)
    tuned = base + generator.uniform(-2, 8, asked)
    actors = {name: actor(name) for name in NAMES}
    policy = Policy.preset("net-epoch")
    clusters = {actor(name): 2 for name in NAMES}
    day = net_payday(scores(values), tuned, base, actors, policy, FEE, clusters)
    assert 0 <= day.paid <= FEE * asked == day.settlement.total
    assert all(isinstance(amount, int) and amount >= 0 for _, amount in day.settlement.earned)
    assert {payee for payee, _ in day.settlement.earned} <= set(actors.values())
    printed = printed_payday(scores(values), Policy.preset("openledger-printed"), FEE)
    assert 0 <= printed.paid <= FEE * asked
    assert {payee for payee, _ in printed.settlement.earned} <= set(NAMES)


def test_who_harms_earns_no_more_than_who_helps() -> None:
    values = np.asarray([[3.0, -0.9, 0.0]] * 4)
    actors = {name: actor(name) for name in NAMES}
    day = net_payday(
        scores(values),
        np.full(4, -20.0),
        np.full(4, -24.0),
        actors,
        Policy.preset("net-epoch"),
        FEE,
        {actor(name): 1 for name in NAMES},
    )
    earned = dict(day.settlement.earned)
    assert earned[actor("ann")] > earned.get(actor("bob"), 0)
    assert earned.get(actor("bob"), 0) == earned.get(actor("cyd"), 0)


def test_an_error_of_what_is_made_arrives_as_itself() -> None:
    with pytest.raises(PoaError, match=r"recipe\.rank is 0") as caught:
        made({"_target_": "poa.factory.recipe.LoRARecipe", "rank": 0})
    assert type(caught.value) is PoaError
    with pytest.raises(PoaError, match=r"LoRARecipe has no option 'ranc'; it has rank, "):
        made({"_target_": "poa.factory.recipe.LoRARecipe", "ranc": 1})
    with pytest.raises(PoaError, match=r"recipe\.rate is 'fast', must be a number"):
        made({"_target_": "poa.factory.recipe.LoRARecipe", "rate": "fast"}, "recipe")
    assert made({"_target_": "poa.factory.recipe.LoRARecipe", "rank": 3}).rank == 3
