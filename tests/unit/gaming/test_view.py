"""A view holds what its knowledge allows, and nothing else."""

from __future__ import annotations

from typing import Any, cast

import pytest

from poa.errors import PoaError
from poa.gaming import ATTACKS, World, attack, look
from poa.records import Corpus
from poa.rewards.policy import Policy

POLICY = Policy.preset("net-epoch")


@pytest.fixture
def world(corpus: Corpus) -> World:
    return World(corpus, POLICY, {"ada": 5, "bob": 9})


def test_k0_sees_own_records_and_rules_only(world: World) -> None:
    view = look(world, "cy", "K0")
    assert set(view.own.contributors) == {"cy"}
    assert len(view.own) == 4
    assert len(view.public) == 0
    assert view.paid == {}
    assert view.policy == POLICY
    assert view.now == 1 + max(record.registered for record in world.corpus)


def test_k1_adds_the_public_corpus_and_pay(world: World) -> None:
    view = look(world, "cy", "K1")
    assert view.public == world.corpus
    assert view.paid == {"ada": 5, "bob": 9}


def test_public_pay_cannot_be_changed_through_a_view(world: World) -> None:
    with pytest.raises(TypeError):
        cast(dict[str, Any], look(world, "cy", "K1").paid)["cy"] = 10**6
    assert world.paid == {"ada": 5, "bob": 9}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_refuse_a_view_that_knows_too_little(world: World, name: str) -> None:
    with pytest.raises(PoaError, match=f"{name} needs knowledge K1"):
        attack(name).rows(look(world, "cy", "K0"))


def test_an_attacker_without_records_is_refused_by_name(world: World) -> None:
    with pytest.raises(PoaError, match=r"attacker 'dora' has no record .* ada, bob, cy"):
        look(world, "dora", "K1")


def test_other_knowledge_is_refused(world: World) -> None:
    with pytest.raises(PoaError, match="knowledge is 'K9', must be one of K0, K1"):
        look(world, "cy", cast(Any, "K9"))
