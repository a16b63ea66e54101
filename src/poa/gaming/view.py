"""What an attacker may see, and what an attack is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol, get_args

from poa.errors import PoaError
from poa.records import Corpus, Record
from poa.rewards.policy import Policy

Knowledge = Literal["K0", "K1"]


@dataclass(frozen=True)
class World:
    """One epoch before the attack: registered records, what their owners were paid (micro-credits), and the rule."""

    corpus: Corpus
    policy: Policy
    paid: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class View:
    """What one contributor knows (GAMING section 2).

    K0: the policy, `own` records, and `now`, the registration time that the next upload gets. K1: also `public`, the
    whole public corpus (own records included), and `paid`, last epoch's public payouts per contributor in
    micro-credits. What the knowledge does not cover is empty.
    """

    attacker: str
    knowledge: Knowledge
    policy: Policy
    own: Corpus
    now: int
    public: Corpus
    paid: Mapping[str, int]


class Attack(Protocol):
    """A frozen dataclass of budget and seed whose `rows` is a pure function of the view.

    name: as in the configuration. family: id in GAMING section 3. layer: where the lie is. knowledge: the least that
    the attack needs. `rows` gives what is uploaded *beside* the attacker's own records: under its name, registered
    from `view.now` on, with ids of its own; equal views and fields give equal rows.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    layer: ClassVar[str]
    knowledge: ClassVar[Knowledge]

    def rows(self, view: View) -> tuple[Record, ...]: ...


def look(world: World, attacker: str, knowledge: Knowledge) -> View:
    """The part of `world` that `attacker` sees. Raises `PoaError` for other knowledge, or no record of the attacker."""
    if knowledge not in get_args(Knowledge):
        raise PoaError(f"knowledge is {knowledge!r}, must be one of {', '.join(get_args(Knowledge))}")
    own = world.corpus.where(lambda record: record.contributor == attacker)
    if not len(own):
        known = ", ".join(sorted(set(world.corpus.contributors))[:8])
        raise PoaError(f"attacker {attacker!r} has no record in this corpus; contributors are {known}")
    public = knowledge == "K1"
    return View(
        attacker=attacker,
        knowledge=knowledge,
        policy=world.policy,
        own=own,
        now=1 + max(record.registered for record in world.corpus),
        public=world.corpus if public else Corpus(()),
        paid=MappingProxyType(dict(world.paid) if public else {}),
    )
