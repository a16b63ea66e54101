"""Money as balanced transfers between named accounts, in integer micro-credits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from poa.ledger.encoding import MAX_AMOUNT
from poa.ledger.refusal import demand
from poa.rewards.settlement import Settlement

DEPOSITS = "ext:deposits"


class Transfer(NamedTuple):
    """`amount` > 0 micro-credits from account `debit` to account `credit`."""

    debit: str
    credit: str
    amount: int


@dataclass
class Balances:
    """What every account holds. Only accounts beginning with `ext:` (the world outside) may be negative."""

    accounts: dict[str, int] = field(default_factory=dict[str, int])

    def __getitem__(self, account: str) -> int:
        return self.accounts.get(account, 0)

    def post(self, transfers: Iterable[Transfer]) -> None:
        """Book the transfers of one event; raises `Refusal` where an account would go below zero or beyond 2^63-1."""
        touched: set[str] = set()
        for transfer in transfers:
            demand(0 < transfer.amount <= MAX_AMOUNT, "money", f"a transfer of {transfer.amount} micro-credits")
            self.accounts[transfer.debit] = self[transfer.debit] - transfer.amount
            self.accounts[transfer.credit] = self[transfer.credit] + transfer.amount
            touched |= {transfer.debit, transfer.credit}
        for account in sorted(touched):
            balance = self[account]
            demand(
                balance >= 0 or account.startswith("ext:"),
                "money",
                f"account {account} would hold {balance} micro-credits, must not go below zero",
            )
            demand(abs(balance) <= MAX_AMOUNT, "money", f"account {account} would exceed 2^63-1 micro-credits")

    def by_kind(self) -> tuple[tuple[str, int], ...]:
        """Sums per kind of account (what stands before the colon; parts and residuals one by one), kinds ascending."""
        sums: defaultdict[str, int] = defaultdict(int)
        for account, balance in self.accounts.items():
            kind = account.partition(":")[0]
            sums[account if kind in ("ext", "part", "residual") else kind] += balance
        return tuple(sorted(sums.items()))


def deposit(payer: str, amount: int) -> tuple[Transfer, ...]:
    """Credits arise only here."""
    return (Transfer(DEPOSITS, f"avail:{payer}", amount),)


def fee(payer: str, epoch: int, amount: int) -> tuple[Transfer, ...]:
    """A response's fee waits in its epoch's escrow; a free response moves nothing."""
    return (Transfer(f"avail:{payer}", f"escrow:{epoch}", amount),) if amount else ()


def payout(epoch: int, settlements: Iterable[tuple[str, int, Settlement]]) -> tuple[Transfer, ...]:
    """From an epoch's escrow to everybody: one (adapter, carry taken in, settlement) per group of receipts."""
    escrow = f"escrow:{epoch}"
    transfers: list[Transfer] = []
    for adapter, carry_in, settlement in settlements:
        transfers.append(Transfer(f"carry:{adapter}", escrow, carry_in))
        transfers += [Transfer(escrow, f"part:{name}", amount) for name, amount in settlement.parts]
        transfers += [Transfer(escrow, f"payable:{name}", amount) for name, amount in settlement.earned]
        transfers += [Transfer(escrow, f"residual:{name}", amount) for name, amount in settlement.residuals]
        transfers.append(Transfer(escrow, f"carry:{adapter}", settlement.carry))
    return tuple(transfer for transfer in transfers if transfer.amount)


def totals(settlements: Iterable[Settlement]) -> Mapping[str, int]:
    """Micro-credits per kind over settlements: parts, payouts, licence, residuals, carry."""
    sums: defaultdict[str, int] = defaultdict(int)
    for settlement in settlements:
        sums["carry"] += settlement.carry
        sums["licence"] += sum(amount for _, amount in settlement.licence)
        sums["payouts"] += sum(amount for _, amount in settlement.payouts)
        for name, amount in settlement.parts:
            sums[f"part.{name}"] += amount
        for name, amount in settlement.residuals:
            sums[f"residual.{name}"] += amount
    return dict(sorted(sums.items()))
