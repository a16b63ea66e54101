"""One small route, from registrations to a settled epoch, that the ledger's tests write, break and verify."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from poa.ledger import ActorKey, Author, Event, Ledger, Signer, journal, rows_root, seal, vector_root
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt

settings.register_profile("exact", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("exact")

ORIGIN = "poa.example/poa/test"


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass
class Route:
    """Keys, events by nickname in log order, and the ledger's path."""

    path: Path
    signer: Signer = field(default_factory=lambda: Signer(ORIGIN, b"\x01" * 32))
    policy: Policy = field(default_factory=lambda: replace(Policy.preset("net-epoch"), licence_share=100_000))
    events: dict[str, Event] = field(default_factory=dict[str, Event])

    @property
    def vkey(self) -> str:
        return self.signer.verifier.vkey

    def author(self, name: str) -> Author:
        return Author(ActorKey.simulated(name), ORIGIN, ts=1_700_000_000)

    def id(self, name: str) -> str:
        return self.author(name).id

    def add(self, name: str, event: Event) -> Event:
        self.events[name] = event
        return event

    def list(self) -> list[Event]:
        return list(self.events.values())

    def prepare(self) -> None:
        """Everything before the first receipt."""
        for name, role in [("operator", "operator"), ("owner", "owner"), ("payer", "payer")]:
            self.add(name, journal.register(self.author(name), [role], name))
        for name in ("ada", "bob", "cyd"):
            self.add(name, journal.register(self.author(name), ["contributor"], name))
        operator, owner = self.author("operator"), self.author("owner")
        net = self.add(
            "datanet",
            journal.create_datanet(owner, "tests", licence="CC0-1.0", licence_digest=digest("l"), intake=digest("i")),
        )
        for name in ("ada", "bob", "cyd"):
            salt = hashlib.sha256(name.encode()).digest()
            root = rows_root([seal(salt, b"row one"), seal(salt, b"row two")])
            made = self.add(f"commit {name}", journal.commit(self.author(name), net.id, salt, root))
            self.add(
                f"reveal {name}",
                journal.reveal(
                    self.author(name), made.id, salt, root, rows=2, size=14, licence="CC0-1.0", store="local"
                ),
            )
        weights = {self.id("ada"): 3, self.id("bob"): 2, self.id("cyd"): 1}
        snap = self.add("snapshot", journal.snapshot(owner, net.id, 1, digest("rows"), 6, weights))
        run = self.add(
            "run",
            journal.train_run(
                operator,
                manifest=digest("manifest"),
                snapshots=[snap.id],
                base=digest("base"),
                recipe=digest("recipe"),
                code=digest("code"),
                environment=digest("environment"),
                seed=0,
                adapter=digest("adapter"),
            ),
        )
        self.add(
            "adapter",
            journal.publish_adapter(operator, adapter=digest("adapter"), run=run.id, base=digest("base")),
        )
        self.add(
            "card",
            journal.method_card(
                operator,
                method="ekfac",
                version="1",
                spec=digest("method"),
                adapter=digest("adapter"),
                truth="leave-one-contributor-out",
                queries=8,
                seeds=2,
                agreement=(0.5, 0.7, 0.9),
            ),
        )
        self.add("policy", journal.publish_policy(operator, self.policy))
        self.add("deposit", journal.deposit(operator, self.id("payer"), 1_000_000, "invoice 1"))

    def scored(self, name: str, fee: int, shares: dict[str, int], base: int = 0) -> ScoredReceipt:
        payees = tuple(sorted((self.id(payee), share) for payee, share in shares.items() if share))
        return ScoredReceipt(name, fee, payees, base, 10**9 - base - sum(shares.values()), 0)

    def receipt(self, name: str, fee: int, shares: dict[str, int], base: int = 0, **changes: Any) -> Event:
        scores = [("row/1", 0.25), ("row/2", -0.125)]
        fields: dict[str, Any] = {
            "payer": self.id("payer"),
            "served": digest(f"served {name}"),
            "base": digest("base"),
            "adapter": digest("adapter"),
            "index": digest("index"),
            "config": digest("config"),
            "method": digest("method"),
            "card": self.events["card"].id,
            "query": seal(b"q" * 32, b"a question"),
            "output": seal(b"o" * 32, b"an answer"),
            "tokens": (12, 34),
            "scores": scores,
            "vector_root": vector_root(scores),
            "nonce": digest(f"nonce {name}"),
        }
        policy = changes.pop("policy", self.policy)
        return journal.receipt(
            self.author("operator"), self.scored(name, fee, shares, base), policy, **(fields | changes)
        )

    def serve(self) -> None:
        """Two epochs of receipts, one unscored and one free; the first epoch settles, the second stays open."""
        third = 10**9 // 3
        for n in range(6):
            shares = {"ada": third + n, "bob": 10**8 * (n + 1) // 4, "cyd": (-1) ** n * 10**7}
            self.add(f"receipt {n}", self.receipt(f"receipt-{n}", 1_000 + n, shares, base=10**7))
        self.add("unscored", self.receipt("receipt-x", 77, {}, card=None))

    def write(self, *, batch: int = 5) -> None:
        """The whole route into a new ledger at `path`."""
        self.prepare()
        self.serve()
        operator = self.author("operator")
        with Ledger.init(self.path, ORIGIN, self.signer) as ledger:
            events = self.list()
            for start in range(0, len(events), batch):
                ledger.append(events[start : start + batch])
            ledger.append([self.add("close", journal.close_epoch(operator, ledger.state()))])
            ledger.append([self.add("settle", journal.settle_epoch(operator, ledger.state()))])
            ledger.append([self.add("later", self.receipt("receipt-later", 500, {"ada": 10**8}))])
            ledger.append([self.add("free", self.receipt("receipt-free", 0, {"bob": 10**8}))])


@pytest.fixture
def route(tmp_path: Path) -> Route:
    """A route that is prepared by the test itself."""
    return Route(tmp_path / "ledger.sqlite")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Route:
    """A written route; tests copy its file before they change anything."""
    made = Route(tmp_path_factory.mktemp("route") / "ledger.sqlite")
    made.write()
    return made


@pytest.fixture
def copied(written: Route, tmp_path: Path) -> Path:
    target = tmp_path / "copy.sqlite"
    target.write_bytes(written.path.read_bytes())
    return target


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The public test vectors beside the repository, or at $POA_SHARED."""
    shared = Path(os.environ.get("POA_SHARED", Path(__file__).parents[4] / "shared"))
    if not (shared / "vectors").is_dir():
        pytest.skip("test vectors are not on this machine (set POA_SHARED to the folder that holds vectors/)")
    return shared / "vectors"


@pytest.fixture(scope="session")
def hexdigest() -> Callable[[str], str]:
    return digest
