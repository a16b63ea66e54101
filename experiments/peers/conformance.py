"""poa's conformance kit on the peers' methods.

    .venv-peers/bin/python experiments/peers/conformance.py [--only WORD] [--write]

holds every peer method, as an adapter around the peer's own API, against the laws about values, on the runs that poa's
methods are held against (in float32, which every peer takes). --write keeps experiments/results/peers/conformance.json
and the table of docs/peers.md. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import quiet  # noqa: F401

# isort: split
import by_bergson
import by_captum
import by_dattri
import by_kronfluence
import by_trak
import numpy as np
import torch
from environment import versions
from page import keep
from subjects import is_classifier
from variants import single

from poa.conformance import Case, Law, isolated, judge, laws, text_bigram
from poa.errors import PoaError, Unsupported
from poa.indexes import Columns
from poa.protocols import TrainingRun
from poa.records import Corpus
from poa.scores import Scores

BATCH = 16  # examples in a batch of every loader that a peer is given
# Laws about poa's bookkeeping: an adapter would pass or fail them by itself, whatever the peer does.
BOOKKEEPING = {
    "protocol": "the form of a poa method",
    "unsupported": "how poa refuses a task",
    "foreign query": "how poa refuses a query",
    "conservation": "a sum that poa's Scores makes",
    "save and load": "poa's index on disk",
    "foreign run": "poa's index on disk",
    "tampering": "poa's index on disk",
}
EXACT = ("determinism", "query batching", "query permutation")
LAST_DIGITS = 1e-5


@dataclass(frozen=True)
class Peer:
    """A peer's method behind poa's protocol; everything is computed anew for every question."""

    name: str
    call: Callable[..., Any] = field(repr=False, compare=False)
    settings: tuple[tuple[str, Any], ...] = ()
    refuses: str = ""

    family: ClassVar[str] = "gradient"
    citation: ClassVar[str] = "see docs/peers.md"

    def fit(self, run: TrainingRun) -> PeerIndex:
        if self.refuses and is_classifier(run) == (self.refuses == "vectors"):
            kind = "feature vectors" if self.refuses == "vectors" else "token sequences"
            raise Unsupported(f"{self.name} takes no {kind}")
        return PeerIndex(run, self)


@dataclass(frozen=True, eq=False)
class PeerIndex:
    run: TrainingRun
    method: Peer

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def attribute(self, queries: Corpus) -> Scores:
        values: Any = []
        if len(queries):
            found = self.method.call(self.run, queries, **dict(self.method.settings))
            values = list(np.asarray(getattr(found, "values", found), np.float64))
        return Columns.of(self.run).scores(values, queries, self.method)


def peer(name: str, call: Callable[..., Any], refuses: str = "", **settings: Any) -> Peer:
    return Peer(name, call, tuple({"size": BATCH, **settings}.items()), refuses)


LAMBDA = 0.05
PEERS = (
    peer("captum TracInCP", by_captum.tracin, plain=True),
    peer("captum TracInCPFast", by_captum.tracin, plain=True, fast=True),
    peer("dattri TracIn (as shipped)", by_dattri.tracin, plain=True, projector=None),
    peer("dattri TracIn (identity)", by_dattri.tracin, plain=True),
    peer("dattri GradDot (identity)", by_dattri.graddot),
    peer("dattri GradCos (identity)", by_dattri.gradcos),
    peer("dattri explicit", by_dattri.explicit, damping=LAMBDA),
    peer("dattri CG", by_dattri.cg, damping=LAMBDA),
    peer("dattri LiSSA", by_dattri.lissa, damping=LAMBDA, steps=100, batch=BATCH),
    peer("dattri Arnoldi", by_dattri.arnoldi, damping=LAMBDA),
    peer("dattri DataInf", by_dattri.datainf, damping=LAMBDA),
    peer("dattri EK-FAC", by_dattri.ekfac, damping=LAMBDA),
    peer("dattri LoGra", by_dattri.logra, damping=0.1),
    peer("dattri TRAK", by_dattri.trak, refuses="tokens", damping=LAMBDA),
    peer("kronfluence identity", by_kronfluence.pairwise, strategy="identity"),
    peer("kronfluence diagonal", by_kronfluence.pairwise, strategy="diagonal"),
    peer("kronfluence K-FAC", by_kronfluence.pairwise, strategy="kfac"),
    peer("kronfluence EK-FAC", by_kronfluence.pairwise, strategy="ekfac"),
    peer("traker TRAK", by_trak.scores, refuses="tokens", damping=LAMBDA),
    peer("bergson products", by_bergson.products, refuses="vectors"),
    peer("bergson cosines", by_bergson.products, refuses="vectors", cosine=True),
    peer("bergson preconditioned", by_bergson.products, refuses="vectors", damping=0.1),
)


@lru_cache(maxsize=1)
def cases() -> tuple[Case, ...]:
    """poa's own cases in float32."""
    from poa.factory.classifier import train_classifier
    from poa.factory.digits import digits

    convex, minibatches = (
        digits(60, contributors=5, classes=(3, 5, 8)),
        digits(68, contributors=5, classes=(0, 1, 2, 3), seed=1),
    )
    linear = train_classifier(convex[:48], steps=200, batch=48, lr=0.5, decay=0.01, dtype="float32")
    mlp = train_classifier(minibatches[:60], hidden=(12,), steps=60, batch=16, lr=0.3, dtype="float32")
    text = text_bigram()
    return (
        Case("digits-linear", linear, convex[48:]),
        Case("digits-mlp", mlp, minibatches[60:]),
        Case("text-bigram", single(text.run), text.queries),
    )


def held(method: Peer, case: Case, law: Law) -> tuple[str, str]:
    """(verdict, detail); a law of exact bytes that is broken by rounding alone is told apart."""
    if law.name in BOOKKEEPING:
        return "not applicable", BOOKKEEPING[law.name]
    verdict, detail = judge(law, method, case)  # type: ignore[arg-type]
    if verdict == "fail" and law.name in EXACT and (worst := rounding(method, case, law.name)) <= LAST_DIGITS:
        return "last digits", f"differs by at most {worst:.1e} of the row's largest"
    return verdict, detail


def rounding(method: Peer, case: Case, law: str) -> float:
    """How far the scores move, relative to each row's largest, where the law says that they must not."""
    count = len(case.queries)
    with isolated(case.run) as view:
        index = method.fit(view)
        whole = index.attribute(case.queries).values
        if law == "determinism":
            other = method.fit(view).attribute(case.queries).values
        elif law == "query permutation":
            order = np.random.default_rng(0).permutation(count)
            other = np.empty_like(whole)
            other[order] = index.attribute(case.queries.take(order)).values
        else:
            parts = [case.queries[: count // 2], case.queries[count // 2 :]]
            other = np.concatenate([index.attribute(part).values for part in parts])
    gap = np.abs(other - whole) / np.abs(whole).max(1, keepdims=True)
    return float("inf") if np.isnan(gap).any() else float(gap.max())


def runs(method: Peer, case: Case) -> str:
    """Empty, or why this peer gives no scores for this run."""
    try:
        with isolated(case.run) as view:
            method.fit(view).attribute(case.queries)
    except PoaError as error:
        return str(error)
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:80]}".split("\n")[0].rstrip(": ")
    return ""


@dataclass(frozen=True)
class Row:
    peer: str
    run: str
    law: str
    verdict: str
    detail: str = ""


def judged(method: Peer) -> list[Row]:
    out: list[Row] = []
    for case in cases():
        if why := runs(method, case):
            out.append(Row(method.name, case.name, "all", "does not run", why))
            continue
        out += [Row(method.name, case.name, law.name, *held(method, case, law)) for law in laws()]
    return out


def tally(rows: list[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.verdict] = counts.get(row.verdict, 0) + 1
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="peers whose name holds this word")
    options.add_argument("--write", action="store_true", help="keep the result and the table of docs/peers.md")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for method in PEERS:
        if given.only in method.name:
            found = judged(method)
            rows += found
            for row in found:
                if row.verdict not in ("pass", "not applicable"):
                    print(
                        f"{row.peer:28} {row.run:14} {row.law:18} {row.verdict:12} {row.detail[:140]}", file=sys.stderr
                    )
            print(f"{method.name}: {tally(found)}", file=sys.stderr, flush=True)
    result = {
        "command": ".venv-peers/bin/python experiments/peers/conformance.py --write",
        "environment": versions(),
        "laws": {law.name: {"statement": law.statement, "tolerance": law.tolerance} for law in laws()},
        "not applicable": BOOKKEEPING,
        "outcomes": [asdict(row) for row in rows],
    }
    if given.write:
        keep("conformance", result)
    print(json.dumps({"outcomes": len(rows), "failures": sum(row.verdict == "fail" for row in rows)}))


if __name__ == "__main__":
    main()
