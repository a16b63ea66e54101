"""One epoch under a payment rule: from registered records to what each contributor earns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from poa.datanets.snapshot import Duplicates, Snapshot
from poa.errors import PoaError
from poa.rewards.credit import Credit, net_credit, printed_credit
from poa.rewards.policy import Policy
from poa.rewards.settlement import Settlement, receipts_of, settle

if TYPE_CHECKING:
    from poa.factory.recipe import LoRARecipe
    from poa.factory.run import LoRARun
    from poa.protocols import Attributor
    from poa.records import Corpus

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Earnings:
    """Who earned what in one epoch, in micro-credits.

    dropped: ids of the records that were kept out of training as duplicates. The contributors' pool is what came in
    less the fixed parts of the policy; earnings, residuals and carry add up to it exactly.
    """

    settlement: Settlement
    dropped: tuple[str, ...]

    @property
    def pool(self) -> int:
        return self.settlement.total - sum(amount for _, amount in self.settlement.parts)

    @property
    def earned(self) -> Mapping[str, int]:
        """Micro-credits per contributor; who earned nothing is absent."""
        return dict(self.settlement.earned)

    def share(self, contributor: str) -> Fraction:
        """The contributor's earnings as a fraction of the contributors' pool; 0 where the pool is empty."""
        return Fraction(self.earned.get(contributor, 0), self.pool or 1)


class Rule(Protocol):
    """A payment configuration as a whole: which records are trained on, how they are scored, how that is paid."""

    @property
    def policy(self) -> Policy: ...

    def shares(
        self, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: Sequence[int]
    ) -> Earnings:
        """Train on `corpus`, answer for `queries`, pay one fee (micro-credits) each. Runs are cached by content."""
        ...


@dataclass(frozen=True)
class PrintedRule:
    """OpenLedger's rule as its public description prints it (GAMING section 3): the baseline, never payable.

    Exact duplicates are removed, DataInf scores every record, each record is clipped at 0 per query, and everything
    that remains is divided by its total.
    """

    @property
    def policy(self) -> Policy:
        return Policy.preset("openledger-printed")

    def shares(
        self, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: Sequence[int]
    ) -> Earnings:
        from poa.methods.datainf import DataInf

        snapshot, run = _trained(corpus, "drop-exact", base, recipe)
        scores = DataInf(damping=0.1).fit(run).attribute(queries)
        return _settled(snapshot, printed_credit(scores, "contributor"), self.policy, fees)


def _net_epoch() -> Policy:
    return Policy.preset("net-epoch")


@dataclass(frozen=True)
class NetRule:
    """poa's rule net-epoch/1: near-duplicates never reach the trainer, signed scores in nats are netted per payee.

    slope: nats per unit of `method`'s scores, measured against retraining as `note` says; the same slope is used
    with and without an attack, as a card measured in advance would be. Raises `PoaError` for a slope that is not
    finite and positive, or a policy with another rule.
    """

    method: Attributor
    slope: float
    note: str
    policy: Policy = field(default_factory=_net_epoch)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0):
            raise PoaError(f"slope is {self.slope}: a method whose scores do not rise with the truth must not pay")
        if self.policy.rule != "net-epoch/1":
            raise PoaError(f"policy {self.policy.id!r} has rule {self.policy.rule!r}, NetRule pays by 'net-epoch/1'")

    def shares(
        self, corpus: Corpus, queries: Corpus, base: str | Path, recipe: LoRARecipe, fees: Sequence[int]
    ) -> Earnings:
        from poa.factory.measuring import tuned_and_base

        snapshot, run = _trained(corpus, "drop", base, recipe)
        nats = self.method.fit(run).attribute(queries).scaled(self.slope, self.note)
        tuned, before = tuned_and_base(run, queries)
        return _settled(snapshot, net_credit(nats.by("payee"), tuned, before), self.policy, fees)


def _trained(corpus: Corpus, duplicates: Duplicates, base: str | Path, recipe: LoRARecipe) -> tuple[Snapshot, LoRARun]:
    from poa.factory.finetune import finetune

    snapshot = Snapshot.of(corpus, duplicates)
    return snapshot, finetune(snapshot, base=base, recipe=recipe)


def _settled(snapshot: Snapshot, credit: Credit, policy: Policy, fees: Sequence[int]) -> Earnings:
    settlement = settle(receipts_of(credit, fees), policy, clusters=snapshot.cluster_weights)
    return Earnings(settlement, tuple(row.id for row in snapshot.dropped))
