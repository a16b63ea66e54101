"""Credit and payout of one epoch: the payable rule on calibrated nats, the printed rule beside it, placebos apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from poa.rewards.credit import Credit, net_credit, printed_credit
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt, Settlement, receipts_of, settle
from poa.scores import Scores


@dataclass(frozen=True, eq=False)
class Payday:
    """What one rule made of some responses."""

    policy: Policy
    credit: Credit
    receipts: list[ScoredReceipt]
    settlement: Settlement

    @property
    def paid(self) -> int:
        """Micro-credits to contributors."""
        return sum(amount for _, amount in self.settlement.earned)


def net_payday(
    nats: Scores,
    tuned: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    actors: Mapping[str, str],
    policy: Policy,
    fee: int,
    clusters: Mapping[str, int],
) -> Payday:
    """Pay `nats` (scores per record, calibrated) by the signed rule; payees are the actors of the contributors."""
    sums = nats.by("payee")
    ids = [actors[name] for name in sums.train_ids]
    order = np.argsort(ids)
    ascending = tuple(ids[i] for i in order)
    by_actor = replace(sums, values=sums.values[:, order], train_ids=ascending, groups={}, stderr=None)
    credit = net_credit(by_actor, tuned, base)
    receipts = receipts_of(credit, [fee] * len(credit.query_ids))
    return Payday(policy, credit, receipts, settle(receipts, policy, clusters))


def printed_payday(scores: Scores, policy: Policy, fee: int) -> Payday:
    """Pay by the printed rule: per-record clip, everything normalised to 100 %, payees are contributor names."""
    credit = printed_credit(scores, "contributor")
    receipts = receipts_of(credit, [fee] * len(credit.query_ids))
    return Payday(policy, credit, receipts, settle(receipts, policy))
