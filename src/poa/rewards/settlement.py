"""Settlement: from the scored receipts of one epoch to whole micro-credits per account, under a policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from poa.errors import PoaError
from poa.rewards.apportion import Shares, floor_and_carry, integer, largest_remainder
from poa.rewards.credit import UNIT, check_payees
from poa.rewards.policy import CONTRIBUTORS, DENOMINATOR, Policy

if TYPE_CHECKING:
    from poa.rewards.credit import Credit

MOST = 2**63 - 1
RESIDUALS: tuple[str, ...] = ("base", "below_threshold", "unattributed")


@dataclass(frozen=True)
class ScoredReceipt:
    """What settlement needs of one response.

    fee: micro-credits, 0 to 2^63 - 1. payees: (id, signed fraction in units of 1e-9), ids ascending, zero fractions
    left out. base, unattributed, below_threshold: residual fractions >= 0. Fractions and residuals add up to exactly
    10^9; absolute fractions to at most 10^9, so that a receipt moves no more than its own fee. The residuals may
    exceed 10^9 together where the evidence is net negative (see `Credit`). Raises `PoaError` naming the receipt.
    """

    id: str
    fee: int
    payees: tuple[tuple[str, int], ...]
    base: int
    unattributed: int
    below_threshold: int

    def __post_init__(self) -> None:
        where = f"of receipt {self.id!r}"
        integer(self.fee, f"fee {where}", 0, MOST)
        object.__setattr__(self, "payees", tuple((payee, fraction) for payee, fraction in self.payees))
        check_payees(tuple(payee for payee, _ in self.payees), f"receipt {self.id!r}")
        for payee, fraction in self.payees:
            if integer(fraction, f"fraction of {payee!r} {where}", -UNIT, UNIT) == 0:
                raise PoaError(f"fraction of {payee!r} {where} is 0; leave the payee out")
        for name in RESIDUALS:
            integer(getattr(self, name), f"{name} {where}")
        if (claimed := sum(abs(fraction) for _, fraction in self.payees)) > UNIT:
            raise PoaError(f"absolute fractions {where} add up to {claimed}, at most {UNIT} is possible")
        total = sum(fraction for _, fraction in self.payees) + self.base + self.unattributed + self.below_threshold
        if total != UNIT:
            raise PoaError(f"fractions and residuals {where} add up to {total}, must be {UNIT}")


@dataclass(frozen=True)
class Settlement:
    """Where the money of one epoch goes, in micro-credits; every amount >= 0.

    parts: the fixed parts of the policy (all but the contributors'). payouts: earned by score, licence: the flat
    share; payees ascending, positive amounts only. residuals: base, below_threshold, unattributed. carry: what
    rounding down left for the next epoch. total: all that came in, fees + carry_in; it equals the sum of all the
    others, and `PoaError` is raised where it does not.
    """

    policy_id: str
    parts: Shares
    payouts: Shares
    residuals: Shares
    carry: int
    licence: Shares
    total: int

    def __post_init__(self) -> None:
        accounts = (*self.parts, *self.payouts, *self.residuals, *self.licence, ("carry", self.carry))
        for name, amount in accounts:
            integer(amount, f"amount of {name!r} in the settlement")
        if (spent := sum(amount for _, amount in accounts)) != self.total:
            raise PoaError(f"settlement gives out {spent} micro-credits of {self.total}")

    @property
    def earned(self) -> Shares:
        """What each payee gets in all: payouts and licence share together, payees ascending."""
        sums: defaultdict[str, int] = defaultdict(int)
        for payee, amount in (*self.payouts, *self.licence):
            sums[payee] += amount
        return tuple(sorted(sums.items()))


def receipts_of(credit: Credit, fees: Sequence[int]) -> list[ScoredReceipt]:
    """One receipt per query of `credit`, with its query id as id; fees: micro-credits, one per query."""
    if len(fees) != len(credit.query_ids):
        raise PoaError(f"{len(fees)} fees for {len(credit.query_ids)} queries, must be one each")
    return [
        ScoredReceipt(
            name,
            fee,
            tuple((p, f) for p, f in zip(credit.payees, credit.fractions[query].tolist(), strict=True) if f),
            int(credit.base[query]),
            int(credit.unattributed[query]),
            int(credit.below_threshold[query]),
        )
        for query, (name, fee) in enumerate(zip(credit.query_ids, fees, strict=True))
    ]


def split_fee(fee: int, policy: Policy) -> Shares:
    """The policy's parts of one fee in micro-credits, by largest remainder: names ascending, sum exact."""
    return largest_remainder(integer(fee, "fee", 0, MOST), policy.parts)


def settle(
    receipts: Iterable[ScoredReceipt],
    policy: Policy,
    clusters: Mapping[str, int] | None = None,
    carry_in: int = 0,
) -> Settlement:
    """All fees of one epoch to their accounts; the order of the receipts does not matter.

    clusters: payee -> weight in the manifest's clusters (>= 0), over which the policy's flat licence share goes by
    floor and carry; the flat share of each receipt is rounded down. carry_in: micro-credits that rounding left in
    the epoch before; they join the pool where anybody is paid by score, otherwise they are carried on.
    Raises `PoaError` on a receipt id that appears twice, and on a licence share without clusters to pay it to.
    """
    integer(carry_in, "carry_in")
    fixed = {name: 0 for name, _ in policy.parts if name != CONTRIBUTORS}
    pooled: list[_Pooled] = []
    seen: set[str] = set()
    came_in = carry_in
    flat_pool = 0
    for receipt in receipts:
        if receipt.id in seen:
            raise PoaError(f"receipt {receipt.id!r} appears twice in the epoch")
        seen.add(receipt.id)
        came_in += receipt.fee
        parts = dict(split_fee(receipt.fee, policy))
        pool = parts.pop(CONTRIBUTORS)
        flat = pool * policy.licence_share // DENOMINATOR
        flat_pool += flat
        pooled.append(_Pooled(receipt, pool - flat))
        for name, amount in parts.items():
            fixed[name] += amount
    licence, licence_carry = _licence(flat_pool, policy, clusters)
    outcome = _RULES[policy.rule](pooled, policy, carry_in)
    return Settlement(
        policy_id=policy.id,
        parts=tuple(fixed.items()),
        payouts=_positive(outcome.payouts),
        residuals=tuple((name, outcome.residuals[name]) for name in RESIDUALS),
        carry=outcome.carry + licence_carry,
        licence=licence,
        total=came_in,
    )


class _Pooled(NamedTuple):
    """A receipt and its contributor pool P_r in micro-credits, after the flat licence share."""

    receipt: ScoredReceipt
    pool: int


class _Outcome(NamedTuple):
    payouts: Shares
    residuals: Mapping[str, int]
    carry: int


def _net_epoch(pooled: Sequence[_Pooled], policy: Policy, carry_in: int) -> _Outcome:
    """Rule net-epoch/1: signed evidence is netted over the epoch, gated, and clipped only then.

    With x = P_r * f per receipt and payee (units 1e-9 micro-credits), N_c = sum x and n receipts, payee c is paid if
    `_significant`. The pool is the net of *all* payees, at most that of the paid ones, so evidence against some
    lowers the pay of all; it goes over the paid N_c by floor and carry. `base` and `unattributed` take their own
    fractions, rounded down, as far as the money reaches (residuals of net-negative receipts can claim more than
    there is); `below_threshold` takes what is left and is therefore never negative.

    Paid amounts are safe against splitting a payee's fractions in proportion. They are not safe against splitting
    its records by sign over two payees, so a payee has to be a cluster, not whatever name a record carries.
    """
    net: defaultdict[str, int] = defaultdict(int)
    squares: defaultdict[str, int] = defaultdict(int)
    for receipt, pool in pooled:
        for payee, fraction in receipt.payees:
            net[payee] += pool * fraction
            squares[payee] += (pool * fraction) ** 2
    paid = [(c, total) for c, total in net.items() if _significant(total, squares[c], len(pooled), policy.z2)]
    # T * 10^9 - R of the rule is the net of all payees, because every receipt adds up to 10^9.
    explained = min(sum(total for _, total in paid), sum(net.values()))
    pool = max(0, explained) // UNIT
    payouts, carry = floor_and_carry(pool + carry_in, paid) if pool else ((), carry_in)

    left = sum(pool for _, pool in pooled) - pool
    base = min(sum(pool * receipt.base for receipt, pool in pooled) // UNIT, left)
    left -= base
    unattributed = min(sum(pool * receipt.unattributed for receipt, pool in pooled) // UNIT, left)
    left -= unattributed
    return _Outcome(payouts, {"base": base, "unattributed": unattributed, "below_threshold": left}, carry)


def _significant(net: int, squares: int, count: int, z2: tuple[int, int]) -> bool:
    """Whether the mean of `count` receipts lies more than z standard errors above 0, in integers only.

    mean > z * sd / sqrt(n) with the sample variance is N^2 (n - 1) > z^2 (n * sum x^2 - N^2) for N > 0. A lone
    receipt has 0 on both sides and fails. z^2 = 0 turns the test off and leaves N > 0.
    """
    above, below = z2
    if net <= 0 or above == 0:
        return net > 0
    return net * net * (count - 1) * below > above * (count * squares - net * net)


def _printed(pooled: Sequence[_Pooled], policy: Policy, carry_in: int) -> _Outcome:
    """Rule openledger-printed/1: every receipt's pool goes at once over its own fractions, by largest remainder."""
    payouts: defaultdict[str, int] = defaultdict(int)
    residuals = dict.fromkeys(RESIDUALS, 0)
    for receipt, pool in pooled:
        for payee, fraction in receipt.payees:
            integer(fraction, f"fraction of {payee!r} in receipt {receipt.id!r} under rule {policy.rule}")
        weights = [(f"payee:{payee}", fraction) for payee, fraction in receipt.payees]
        weights += [(f"residual:{name}", getattr(receipt, name)) for name in RESIDUALS]
        for account, amount in largest_remainder(pool, weights):
            kind, _, name = account.partition(":")
            (payouts if kind == "payee" else residuals)[name] += amount
    return _Outcome(tuple(payouts.items()), residuals, carry_in)


_RULES: Mapping[str, Callable[[Sequence[_Pooled], Policy, int], _Outcome]] = {
    "net-epoch/1": _net_epoch,
    "openledger-printed/1": _printed,
}


def _licence(pool: int, policy: Policy, clusters: Mapping[str, int] | None) -> tuple[Shares, int]:
    if pool == 0:
        return (), 0
    weights = tuple((clusters or {}).items())
    if not any(weight for _, weight in weights):
        raise PoaError(f"policy {policy.id!r} pays a flat licence share: pass the cluster weights of the manifest")
    shares, carry = floor_and_carry(pool, weights)
    return _positive(shares), carry


def _positive(shares: Shares) -> Shares:
    return tuple(sorted((name, amount) for name, amount in shares if amount))
