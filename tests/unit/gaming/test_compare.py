"""Paired worlds: every attack under every rule, and what the table says about it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from poa.datanets.snapshot import Snapshot
from poa.errors import PoaError
from poa.factory.recipe import LoRARecipe
from poa.files import cache_home
from poa.gaming import Attack, BoilerplateFarm, Copier, Earnings, NetRule, NoiseFarm, Outcome, PrintedRule, compare
from poa.gaming.compare import drawn
from poa.methods.graddot import GradDot
from poa.records import Corpus, Record
from poa.rewards.policy import Policy
from poa.rewards.settlement import Settlement

RECIPE = LoRARecipe(rank=2, epochs=2, batch=4, checkpoints=1, rate=1e-2)
OPEN = replace(Policy.preset("net-epoch"), z2=(0, 1))
NET = NetRule(GradDot(), 0.05, "a test's slope", OPEN)


@dataclass(frozen=True)
class ByRows:
    """A rule that needs no model: the pool goes by kept rows, so that every number can be counted by hand."""

    policy: Policy = field(default_factory=lambda: OPEN)

    def shares(
        self, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: Sequence[int]
    ) -> Earnings:
        snapshot = Snapshot.of(corpus, "drop")
        kept = snapshot.corpus.contributors
        total = sum(fees)
        payouts = tuple((name, total * kept.count(name) // len(kept)) for name in sorted(set(kept)))
        left = total - sum(amount for _, amount in payouts)
        return Earnings(
            Settlement("by-rows", (), payouts, (), left, (), total), tuple(row.id for row in snapshot.dropped)
        )


def counted(corpus: Corpus, queries: Corpus, attacks: Sequence[Attack], attacker: str = "cy") -> list[Outcome]:
    return compare(corpus, queries, attacks, [ByRows()], "none", RECIPE, 600, attacker=attacker)


def test_outcomes_are_counted_right(corpus: Corpus, queries: Corpus) -> None:
    """12 rows of three; cy adds 8 rows of noise and holds 12 of 20. Fees: 6 x 600, all of it the pool."""
    (found,) = counted(corpus, queries, [NoiseFarm(times=2)])
    assert found == Outcome(
        policy="net-epoch",
        attack="noise_farm",
        attacker="cy",
        share_before=1 / 3,
        share_after=0.6,
        paid_before=1200,
        paid_after=2160,
        all_paid_before=3600,
        all_paid_after=3600,
        pool=3600,
        rows=8,
        dropped_rows=0,
    )
    assert found.gain == pytest.approx(0.8)
    assert replace(found, paid_before=0).gain is None


def test_dropped_rows_are_the_attacks_own(corpus: Corpus, queries: Corpus) -> None:
    """An honest duplicate is dropped too, in both worlds, and is not counted."""
    twin = replace(corpus[0], id="honest-twin", registered=99)
    (found,) = counted(corpus + Corpus([twin]), queries, [Copier(times=1, every=1000)])
    assert (found.rows, found.dropped_rows) == (4, 4)
    assert found.share_after == found.share_before == pytest.approx(1 / 3)


def test_the_victim_is_the_best_paid_under_the_rule_in_question(corpus: Corpus, queries: Corpus) -> None:
    """Ada has most records, but two of her five are copies: bob, with four kept ones, is the best paid."""
    market = corpus.where(lambda record: record.id != "ada-0-0")
    ada = next(record for record in market if record.contributor == "ada")
    market += Corpus(replace(ada, id=f"ada-again-{i}", registered=90 + i) for i in range(2))
    uploaded = Corpus(_copies(market, queries))
    gone = Snapshot.of(market + uploaded, "drop").dropped
    victims = {row.cluster.split("-")[0] for row in gone if row.id in set(uploaded.ids)}
    assert victims == {"bob"}


def _copies(market: Corpus, queries: Corpus) -> list[Record]:
    """What the copier uploads inside `compare`, seen by a rule that looks on."""
    seen: list[Corpus] = []

    @dataclass(frozen=True)
    class Watching(ByRows):
        def shares(
            self, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: Sequence[int]
        ) -> Earnings:
            seen.append(corpus)
            return ByRows().shares(corpus, queries, base, recipe, fees)

    compare(market, queries, [Copier(times=1, every=1000)], [Watching()], "none", RECIPE, 600, attacker="cy")
    clean, attacked = seen
    return [record for record in attacked if record.id not in set(clean.ids)]


def test_without_an_attacker_one_is_drawn_by_the_seed(corpus: Corpus, queries: Corpus) -> None:
    names = {drawn(corpus, seed) for seed in range(30)}
    assert names == {"ada", "bob", "cy"}
    found = compare(corpus, queries, [NoiseFarm(times=1)], [ByRows()], "none", RECIPE, 600, seed=3)
    assert found[0].attacker == drawn(corpus, 3)


def test_bad_calls_are_refused(corpus: Corpus, queries: Corpus) -> None:
    attacks: list[Attack] = [NoiseFarm(times=1)]
    with pytest.raises(PoaError, match="fee is 0, must be an integer, 1 or more"):
        compare(corpus, queries, attacks, [ByRows()], "none", RECIPE, 0)
    with pytest.raises(PoaError, match="compare needs at least one of: attacks"):
        counted(corpus, queries, [])
    with pytest.raises(PoaError, match="compare needs at least one of: queries"):
        counted(corpus, Corpus(()), attacks)
    with pytest.raises(PoaError, match="attacker 'dora' has no record"):
        counted(corpus, queries, attacks, "dora")


def test_both_rules_against_all_three_attacks(corpus: Corpus, queries: Corpus, base: Path) -> None:
    """End to end: the copier gains under the printed rule, and under poa's its copies never enter a training run."""
    attacks: list[Attack] = [Copier(times=4, every=1000), NoiseFarm(times=2), BoilerplateFarm(times=2)]
    found = compare(corpus, queries, attacks, [PrintedRule(), NET], base, RECIPE, 1_000_000, attacker="cy")
    assert [(o.policy, o.attack) for o in found] == [
        (policy, attack)
        for policy in ("openledger-printed", "net-epoch")
        for attack in ("copier", "noise_farm", "boilerplate_farm")
    ]
    printed, net = found[:3], found[3:]
    assert all(o.pool == 3_000_000 for o in found)
    assert all(o.share_after == pytest.approx(o.paid_after / o.pool) for o in found)
    assert all(o.paid_after <= o.all_paid_after <= o.pool for o in found)
    assert all(o.all_paid_after == o.pool for o in printed)
    assert [o.dropped_rows for o in printed] == [0, 0, 0]
    assert [o.dropped_rows for o in net] == [16, 0, 0]
    assert printed[0].share_after > printed[0].share_before
    assert net[0].paid_after == net[0].paid_before
    assert net[0].all_paid_after == net[0].all_paid_before > 0


def test_a_world_whose_attack_is_dropped_is_the_honest_run(corpus: Corpus, queries: Corpus, base: Path) -> None:
    NET.shares(corpus, queries, base, RECIPE, [1] * len(queries))
    before = {path.name for path in (cache_home() / "runs").iterdir()}
    compare(corpus, queries, [Copier(times=2, every=1000)], [NET], base, RECIPE, 1, attacker="cy")
    assert {path.name for path in (cache_home() / "runs").iterdir()} == before


def test_a_pool_gives_the_same_outcomes(corpus: Corpus, queries: Corpus) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = compare(corpus, queries, [NoiseFarm(), Copier()], [ByRows()], "none", RECIPE, 600, "cy", pool=pool)
    assert found == counted(corpus, queries, [NoiseFarm(), Copier()])
