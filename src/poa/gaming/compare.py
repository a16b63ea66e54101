"""The same attacks under different payment rules: the attacker's share before and after."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poa.errors import PoaError
from poa.gaming.view import Attack, World, look
from poa.progress import track
from poa.records import Corpus, Record
from poa.rewards.apportion import integer

if TYPE_CHECKING:
    from poa.factory.recipe import LoRARecipe
    from poa.gaming.payday import Earnings, Rule


@dataclass(frozen=True)
class Outcome:
    """What one attack did to one contributor's pay under one rule.

    policy: id of the policy. Shares are fractions of the contributors' pool, which is the same before and after.
    paid, all_paid, pool: micro-credits to the attacker, to all contributors, and at stake; a rule that pays nobody
    resists every attack, so a share says little without all_paid. rows: uploaded by the attack; dropped_rows: those
    of them that never reached training.
    """

    policy: str
    attack: str
    attacker: str
    share_before: float
    share_after: float
    paid_before: int
    paid_after: int
    all_paid_before: int
    all_paid_after: int
    pool: int
    rows: int
    dropped_rows: int

    @property
    def gain(self) -> float | None:
        """AG of GAMING section 5.1: pay after over pay before, less 1; None where honesty earned nothing."""
        return self.paid_after / self.paid_before - 1 if self.paid_before else None


def compare(
    corpus: Corpus,
    queries: Corpus,
    attacks: Sequence[Attack],
    rules: Sequence[Rule],
    base: str | Path,
    recipe: LoRARecipe,
    fee: int,
    attacker: str = "",
    seed: int = 0,
    pool: Executor | None = None,
) -> list[Outcome]:
    """Every attack under every rule, paired worlds: the attacker honest, and the attacker attacking.

    fee: micro-credits per query. attacker: a contributor of `corpus`; without one, `seed` draws one of those who have
    records, before anything is paid. The attacker keeps its own records (own + X) and sees the payouts of the honest
    epoch under the rule in question. Worlds are independent of each other: `pool` may run them side by side,
    with the same result (rules then have to be picklable). Runs are cached by content: a world whose attack rows are
    all dropped is the honest world. Raises `PoaError` for a fee below 1, an attacker without records, a corpus or a
    list that is empty.
    """
    integer(fee, "fee", 1)
    for what, items in (("corpus", corpus), ("queries", queries), ("attacks", attacks), ("rules", rules)):
        if not len(items):
            raise PoaError(f"compare needs at least one of: {what}")
    who = attacker or drawn(corpus, seed)
    fees = [fee] * len(queries)
    told = [repeat(value) for value in (queries, base, recipe, fees)]

    def paydays(cases: Sequence[tuple[Rule, Corpus]]) -> list[Earnings]:
        found = (map if pool is None else pool.map)(_payday, *zip(*cases, strict=True), *told)
        return list(track(found, "worlds", len(cases)))

    honest = paydays([(rule, corpus) for rule in rules])
    cases: list[tuple[Rule, Earnings, Attack, tuple[Record, ...]]] = []
    for rule, before in zip(rules, honest, strict=True):
        world = World(corpus, rule.policy, before.earned)
        cases += [(rule, before, attack, attack.rows(look(world, who, attack.knowledge))) for attack in attacks]
    after = paydays([(rule, corpus + Corpus(added)) for rule, _, _, added in cases])
    return [
        _outcome(rule, attack, who, before, found, {record.id for record in added})
        for (rule, before, attack, added), found in zip(cases, after, strict=True)
    ]


def _payday(
    rule: Rule, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: list[int]
) -> Earnings:
    return rule.shares(corpus, queries, base, recipe, fees)


def drawn(corpus: Corpus, seed: int) -> str:
    """One contributor of `corpus`, each with equal chance."""
    names = sorted(set(corpus.contributors))
    return names[int(np.random.default_rng([seed, 0xA77AC6]).integers(len(names)))]


def _outcome(rule: Rule, attack: Attack, who: str, before: Earnings, after: Earnings, added: set[str]) -> Outcome:
    return Outcome(
        policy=rule.policy.id,
        attack=attack.name,
        attacker=who,
        share_before=float(before.share(who)),
        share_after=float(after.share(who)),
        paid_before=before.earned.get(who, 0),
        paid_after=after.earned.get(who, 0),
        all_paid_before=sum(before.earned.values()),
        all_paid_after=sum(after.earned.values()),
        pool=before.pool,
        rows=len(added),
        dropped_rows=len(added & set(after.dropped)),
    )
