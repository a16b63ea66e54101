"""The report's document: plain data gathered from a finished route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import poa
from poa.evaluation.correlation import spearman_rows
from poa.factory.measuring import tuned_and_base
from poa.gradients.heat import token_heat
from poa.gradients.linear import LinearIndex
from poa.pipeline.verbatim import spans_of
from poa.records import Corpus, Record
from poa.report import write

if TYPE_CHECKING:
    from poa.methods.spans import SpansIndex
    from poa.pipeline.attribution import Attribution
    from poa.pipeline.job import Route

LIMITS = (
    "Contributors are a simulation: sub-packages of installed libraries stand for people; the texts, their licences "
    "and their copies are real.",
    "The model has about one million parameters. Its text imitates documentation and is not fluent.",
    "Retraining truth comes from two seeds per removal; its own noise limits how well any method can agree with it.",
    "The method that pays was calibrated on held-out queries of the same contributors.",
    "A verbatim match shows that the words stand in the corpus, not that the model took them from there.",
    "The ledger proves that payouts follow from logged scores, not that the scores are right.",
    "Actor keys and the log key of this demonstration are derived, not secret.",
)


def write_report(route: Route, summary: dict[str, Any]) -> None:
    """`report.html` beside the summary."""
    write(document(route, summary), route.out / "report.html")


def document(route: Route, summary: dict[str, Any]) -> dict[str, Any]:
    """Plain data in the schema of `poa.report`."""
    out: dict[str, Any] = {
        "title": "Whose data shaped these answers?",
        "command": f"poa run experiment={route.config['choices'].get('experiment')}",
        "version": poa.__version__,
        "seconds": route.clock.seconds,
        "intake": _intake(route),
        "model": _model(route),
        "methods": {name: _method(found, summary) for name, found in route.attributions.items()},
        "answers": _answers(route),
        "shares": {name: _sums(found.scores.select(_paid(route, found))) for name, found in route.attributions.items()},
        "agreement": _agreement(route),
        "limits": list(LIMITS),
    }
    if route.truth is not None:
        out["truth"] = _truth(route)
    for key in ("placebo", "own_words"):
        if summary.get(key):
            out[key] = summary[key]
    if "payout" in summary:
        out["payout"] = {
            "fee": next(iter(summary["payout"].values()))["fee"],
            "currency": "micro-credits",
            "policies": {
                name: {key: value for key, value in policy.items() if key != "fee"}
                for name, policy in summary["payout"].items()
            },
        }
    if "attacks" in summary:
        out["attacks"] = [
            {"policy": policy, "attack": attack, **shares}
            for policy, attacks in summary["attacks"].items()
            for attack, shares in attacks.items()
        ]
    if "ledger" in summary:
        out["ledger"] = summary["ledger"] | {
            "origin": "poa.example/poa/quickstart",
            "checkpoint": (route.out / "ledger" / "export" / "checkpoint").read_text(),
            "receipt_id": summary["_receipt"],
        }
    return out


def _intake(route: Route) -> dict[str, Any]:
    snapshot, task = route.snapshot, route.run.task
    report = snapshot.report
    lengths = [len(task.tokens(record)) for record in snapshot.corpus]
    rows: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for name in sorted(set(snapshot.corpus.datanets)):
        inside = [i for i, record in enumerate(snapshot.corpus) if record.datanet == name]
        gone = [d for d in snapshot.dropped if _datanet_of(route, d.contributor) == name]
        rows.append(
            {
                "name": name,
                "records": len(inside) + len(gone),
                "contributors": len({snapshot.corpus[i].contributor for i in inside}),
                "licences": sorted({snapshot.corpus[i].licence for i in inside}),
                "tokens": sum(lengths[i] for i in inside),
                "exact_duplicates": sum(d.reason.kind == "exact" for d in gone),
                "near_duplicates": sum(d.reason.kind != "exact" for d in gone),
                "clusters": len({snapshot.groups["cluster"][i] for i in inside}),
            }
        )
    for name in sorted(set(snapshot.corpus.contributors)):
        inside = [i for i, record in enumerate(snapshot.corpus) if record.contributor == name]
        people.append(
            {
                "id": name,
                "datanet": snapshot.corpus[inside[0]].datanet,
                "records": len(inside),
                "tokens": sum(lengths[i] for i in inside),
            }
        )
    return {
        "datanets": rows,
        "contributors": people,
        "snapshot": {
            "root": snapshot.root,
            "digest": snapshot.digest,
            "records": len(snapshot.corpus),
            "heldout": len(route.chosen.queries) + len(route.chosen.responses),
        },
        "examples": [
            {
                "kept": e.cluster,
                "dropped": e.copy,
                "reason": f"{e.reason.kind}, distance {e.reason.distance:.2f}: {e.excerpt}",
            }
            for e in report.examples[:4]
        ],
    }


def _datanet_of(route: Route, contributor: str) -> str:
    return next(record.datanet for record in route.chosen.train if record.contributor == contributor)


def _model(route: Route) -> dict[str, Any]:
    model = route.run.model()
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": route.run.parent.name if "/" not in route.run.parent.name else "tiny (made here)",
        "parameters": sum(p.numel() for p in model.parameters()) - adapter,
        "adapter_parameters": adapter,
        "base_digest": route.run.parent.digest,
        "adapter_digest": route.run.adapter_digest,
        "heldout_nll": route.heldout,
        "loss": [[step + 1, float(loss)] for step, loss in enumerate(route.run.steps.loss)],
    }


def _method(found: Attribution, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "family": found.family,
        "unit": found.scores.unit,
        "seconds": found.seconds,
        "spearman_vs_truth": summary["methods"][found.name]["spearman_vs_truth"],
        "identity": repr(found.method),
        "citation": type(found.method).citation,
    }


def _paid(route: Route, found: Attribution) -> list[int]:
    return [found.scores.query_ids.index(name) for name in route.responses.paid.ids]


def _sums(scores: Any) -> dict[str, float]:
    rolled = scores.by("payee")
    return {name: float(value) for name, value in zip(rolled.train_ids, rolled.values.sum(0), strict=True)}


def _agreement(route: Route) -> dict[str, Any]:
    """Mean Spearman per paid response between the payee sums of every two methods."""
    names = list(route.attributions)
    sums = [f.scores.select(_paid(route, f)).by("payee").values.astype(float) for f in route.attributions.values()]
    table = [[float(spearman_rows(a, b).mean()) for b in sums] for a in sums]
    return {"methods": names, "spearman": table}


def _truth(route: Route) -> dict[str, Any]:
    truth = route.truth
    assert truth is not None
    per_seed = truth.effects.sum(1)
    error = per_seed.std(0, ddof=1) / np.sqrt(len(truth.seeds)) if len(truth.seeds) > 1 else np.zeros(len(per_seed[0]))
    predicted: dict[str, dict[str, float]] = {}
    for name, found in route.attributions.items():
        slope = truth.slope(found.scores)
        sums = truth.aligned(found.scores).sum(0) * slope
        predicted[name] = dict(zip(truth.contributors, map(float, sums), strict=True))
    return {
        "seeds": len(truth.seeds),
        "queries": len(truth.query_ids),
        "contributors": list(truth.contributors),
        "effect": dict(zip(truth.contributors, map(float, truth.mean.sum(0)), strict=True)),
        "stderr": dict(zip(truth.contributors, map(float, error), strict=True)),
        "predicted": predicted,
        "ceiling": truth.ceiling if len(truth.seeds) > 1 else None,
    }


def _answers(route: Route) -> list[dict[str, Any]]:
    shown = _shown(route)
    tuned, base = tuned_and_base(route.run, shown)
    heats = {
        name: token_heat(index, route.run.task, shown)
        for name, found in route.attributions.items()
        if found.family == "gradient" and isinstance(index := found.method.fit(route.run), LinearIndex)
    }
    traced = route.attributions.get("spans")
    spans = None if traced is None else traced.method.fit(route.run)
    return [
        _answer(
            route,
            record,
            {"tuned": float(tuned[i]), "base": float(base[i])},
            {name: rows[i][:-1].tolist() for name, rows in heats.items()},
            spans,
        )
        for i, record in enumerate(shown)
    ]


def _shown(route: Route) -> Corpus:
    """The user's and generated texts, one placebo, then held-out ones of different contributors."""
    kinds = route.responses.kinds
    everything = [*route.responses.paid, *route.responses.placebo]
    picked = [r for r in everything if kinds[r.id] in ("user", "generated")]
    picked += [r for r in everything if kinds[r.id] == "placebo"][:1]
    owners: set[str] = set()
    for record in everything:
        if kinds[record.id] == "held-out" and record.contributor not in owners:
            owners.add(record.contributor)
            picked.insert(len(owners) - 1, record)
        if len(picked) >= max(route.answers.shown, 4):
            break
    return Corpus(picked)


def _answer(
    route: Route,
    record: Record,
    measured: dict[str, float],
    heat: dict[str, list[float]],
    spans: SpansIndex | None,
) -> dict[str, Any]:
    offsets = route.run.task.offsets(record.text)
    records: dict[str, Any] = {}
    shares: dict[str, Any] = {}
    for name, found in route.attributions.items():
        row = found.scores.query_ids.index(record.id)
        records[name] = [
            {
                "record_id": hit.train_id,
                "contributor": owner.contributor,
                "datanet": owner.datanet,
                "score": hit.score,
                "text": owner.text,
            }
            for hit in found.scores.select([row]).top(3)[0]
            for owner in [route.run.corpus[route.run.corpus.ids.index(hit.train_id)]]
        ]
        shares[name] = _sums(found.scores.select([row]))
    return {
        "id": record.id,
        "kind": route.responses.kinds[record.id],
        "prompt": record.prompt,
        "text": record.text,
        "contributor": record.contributor,
        "measurement": measured,
        "tokens": [list(pair) for pair in offsets],
        "heat": heat,
        "spans": [] if spans is None else spans_of(spans, route.run, record, offsets),
        "records": records,
        "shares": shares,
    }
