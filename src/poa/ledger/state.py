"""What a log's entries so far mean: who is registered, what was published, which receipts wait."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from poa.ledger.money import Balances
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt


class Actor(NamedTuple):
    key: bytes
    roles: frozenset[str]
    label: str


@dataclass
class Datanet:
    """`version`: of the newest snapshot; `rows`: revealed rows per contributor."""

    owner: str
    version: int = 0
    rows: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))


@dataclass
class Commit:
    actor: str
    datanet: str
    c: str
    revealed: bool = False


class Snapshot(NamedTuple):
    """`weights`: integer payee weights per actor id."""

    datanet: str
    weights: dict[str, int]


class Run(NamedTuple):
    adapter: str
    base: str
    weights: dict[str, int]


class Adapter(NamedTuple):
    base: str
    weights: dict[str, int]


class Card(NamedTuple):
    adapter: str
    spec: str


class Charged(NamedTuple):
    """A receipt that waits for settlement. `scored`: a live card vouches for its method."""

    adapter: str
    scored: bool
    receipt: ScoredReceipt


@dataclass
class Epoch:
    """Receipts with first <= seq <= last. The first receipt fixes the policy for all of them."""

    number: int
    first: int
    last: int = -1
    policy: tuple[str, int] | None = None
    receipts: list[Charged] = field(default_factory=list[Charged])


# (payee, micro-credits) rows of an epoch's payout table, payees ascending.
Payouts = tuple[tuple[str, int], ...]


@dataclass
class State:
    """Everything that judging the next entry needs. `size`: entries applied; the next one has that seq."""

    origin: str
    size: int = 0
    operator: str = ""
    ids: dict[str, int] = field(default_factory=dict[str, int])
    actors: dict[str, Actor] = field(default_factory=dict[str, Actor])
    datanets: dict[str, Datanet] = field(default_factory=dict[str, Datanet])
    commits: dict[str, Commit] = field(default_factory=dict[str, Commit])
    snapshots: dict[str, Snapshot] = field(default_factory=dict[str, Snapshot])
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    adapters: dict[str, Adapter] = field(default_factory=dict[str, Adapter])
    published: set[str] = field(default_factory=set[str])
    cards: dict[str, Card] = field(default_factory=dict[str, Card])
    policies: dict[tuple[str, int], Policy] = field(default_factory=dict[tuple[str, int], Policy])
    served: set[str] = field(default_factory=set[str])
    epoch: Epoch = field(default_factory=lambda: Epoch(1, 0))
    closed: dict[int, Epoch] = field(default_factory=dict[int, Epoch])
    payouts: dict[int, Payouts] = field(default_factory=dict[int, Payouts])
    balances: Balances = field(default_factory=Balances)
