"""From scores to money: calibrate, credit, pay, compare rules and attacks, write and verify the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.factory.measuring import tuned_and_base
from poa.files import atomic_folder
from poa.gaming import Attack, NetRule, PrintedRule, attack
from poa.ledger import Verdict, export, prove, verify
from poa.pipeline.attribution import Attribution, attribute
from poa.pipeline.cheats import outcomes
from poa.pipeline.instances import made
from poa.pipeline.journal import Card, actor, write_ledger
from poa.pipeline.payday import Payday, net_payday, printed_payday
from poa.records import Corpus
from poa.rewards.policy import Policy
from poa.scores import Scores

if TYPE_CHECKING:
    from poa.pipeline.job import Route


def settle_route(route: Route) -> dict[str, Any]:
    """Everything that has to do with money; keys for `summary.json`, and `_`-keys that only the report reads."""
    policy: Policy = made(route.config["policy"], _convert_="object")
    with route.clock.stage("payout"):
        payer = route.attributions[route.config["choices"]["method"]]
        nats, card, slope = _calibrated(route, payer)
        real, _ = _net(route, nats, route.responses.paid, policy)
        controls = {
            name: _control(route, nats, part, policy, real)
            for name, part in (("placebo", route.responses.placebo), ("own_words", route.responses.own_words))
            if len(part)
        }
        printed = _printed(route, route.responses.paid)
    summary: dict[str, Any] = {
        "payout": {policy.id: _plain(route, real), printed.policy.id: _plain(route, printed)},
        "card": asdict(card) | {"slope": slope},
    }
    summary |= controls
    if attacks := _attacks(route):
        with route.clock.stage("attacks"):
            summary["attacks"] = _attacked(route, attacks, payer, slope, policy)
    with route.clock.stage("ledger"):
        verdict, receipt = _ledger(route, nats, real, card)
    summary["ledger"] = {"size": verdict.size, "root": verdict.root, "verified": verdict.ok, "message": verdict.message}
    return summary | {"_receipt": receipt}


def _calibrated(route: Route, payer: Attribution) -> tuple[Scores, Card, float]:
    """Scores in nats by the slope measured on the queries (never on the responses that are paid), and the card."""
    if (truth := route.truth) is None:
        raise PoaError("paying needs stages.truth: an unmeasured method may not pay")
    slope = truth.slope(payer.scores)
    if slope <= 0:
        raise PoaError(f"method {payer.name} has slope {slope:.3g} on the truth: it must not pay")
    interval = truth.agreement(payer.scores)
    card = Card(
        payer.name,
        repr(payer.method),
        interval.low,
        interval.value,
        interval.high,
        len(route.responses.queries),
        len(truth.seeds),
    )
    note = f"least squares on {len(route.responses.queries)} held-out queries x {len(truth.contributors)} contributors"
    return payer.scores.scaled(slope, note), card, slope


def _rows(scores: Scores, part: Corpus) -> Scores:
    return scores.select([scores.query_ids.index(name) for name in part.ids])


def _net(route: Route, nats: Scores, part: Corpus, policy: Policy) -> tuple[Payday, float]:
    """The payday of some responses, and by how many nats tuning raised them on average."""
    tuned, base = tuned_and_base(route.run, part)
    actors = {name: actor(name) for name in set(route.snapshot.groups["payee"])}
    weights = {actors[name]: weight for name, weight in route.snapshot.cluster_weights.items()}
    payday = net_payday(_rows(nats, part), tuned, base, actors, policy, route.stages.fee, weights)
    return payday, float((tuned - base).mean())


def _printed(route: Route, part: Corpus) -> Payday:
    """The printed rule on its own method (DataInf), whatever the job pays by."""
    from poa.methods.datainf import DataInf

    scores = attribute("datainf", DataInf(damping=0.1), route.run, route.responses.parts).scores
    return printed_payday(_rows(scores, part), Policy.preset("openledger-printed"), route.stages.fee)


def _plain(route: Route, payday: Payday) -> dict[str, Any]:
    names = {actor(name): name for name in set(route.snapshot.groups["payee"])}
    settled = payday.settlement
    return {
        "fee": settled.total,
        "parts": dict(settled.parts),
        "payees": {names.get(payee, payee): amount for payee, amount in settled.earned},
        "residuals": dict(settled.residuals),
        "carry": settled.carry,
        "payable": payday.policy.payable,
    }


def _control(route: Route, nats: Scores, part: Corpus, policy: Policy, real: Payday) -> dict[str, Any]:
    """What responses without any meaning would be paid, beside the real ones; `ratio` is per response."""
    payday, moved = _net(route, nats, part, policy)
    count, own = len(payday.receipts), len(real.receipts)
    ratio = payday.paid * own / (real.paid * count) if real.paid else None
    return {"queries": count, "paid": payday.paid, "real_paid": real.paid, "ratio": ratio, "moved": moved}


def _attacks(route: Route) -> list[Attack]:
    """Those of `stages.attacks`, and the one of the `attack` group where it is set."""
    named = [attack(name, times=route.stages.attack_times) for name in route.stages.attacks]
    chosen = route.config.get("attack")
    return [*named, made(chosen)] if chosen else named


def _attacked(route: Route, attacks: list[Attack], payer: Attribution, slope: float, policy: Policy) -> dict[str, Any]:
    rules = (PrintedRule(), NetRule(payer.method, slope, "the slope of the clean run", policy))
    paid, corpus = route.responses.paid, route.snapshot.corpus
    table: dict[str, Any] = {}
    for found in outcomes(route.run, corpus, paid, attacks, rules, route.stages.fee):
        table.setdefault(found.policy, {})[found.attack] = {
            "share_before": found.share_before,
            "share_after": found.share_after,
        }
    return table


def _ledger(route: Route, nats: Scores, real: Payday, card: Card) -> tuple[Verdict, str]:
    """A fresh ledger beside the results, verified from its raw rows; also an export and one proven receipt."""
    paid = route.responses.paid
    tokens = {r.id: (len(route.run.task.encode(r.prompt)), len(route.run.task.tokens(r))) for r in paid}
    secret = plain_digest([route.run.digest, paid.digest]).encode()
    with atomic_folder(route.out / "ledger") as work:
        path = work / "ledger.sqlite"
        write_ledger(path, route.snapshot, route.run, paid, _rows(nats, paid), real, card, tokens, secret)
        verdict = verify(path, vkey=(work / "vkey").read_text().strip())
        receipt = real.receipts[0].id
        export(path, work / "export")
        prove(path, receipt, work / "receipt")
        (work / "verdict.json").write_text(json.dumps({"ok": verdict.ok, "message": verdict.message}))
    return verdict, receipt
