"""What the body of each event type must hold: the table of LEDGER's events, as far as this version goes."""

from __future__ import annotations

from collections.abc import Mapping

from poa.ledger.form import (
    Form,
    anything,
    count,
    digest,
    event_id,
    label,
    money,
    one_of,
    record,
    record_id,
    rows,
    share,
    text,
    token,
)

ROLES = ("contributor", "operator", "owner", "payer")
MOST_PAYEES = 512
MOST_SCORES = 100

_POLICY = record({"id": token, "version": count(1)})
_MONEY_ROWS = rows(record({"id": token, "amount": money()}), "id", least=1, most=100)
_PAYEES = rows(record({"id": digest, "fraction": share(zero=False)}), "id", most=MOST_PAYEES)

# Unknown fields are refused; a trailing ? marks a field that may be absent.
BODIES: Mapping[str, Form] = {
    "actor.register": record(
        {"key": digest, "next": digest, "roles": rows(one_of(*ROLES), least=1), "label?": label},
    ),
    "datanet.create": record(
        {
            "owner": digest,
            "name": label,
            "modality": token,
            "licence": text,
            "licence_digest": digest,
            "intake": digest,
            "duplicates": token,
            "withdrawal": token,
        }
    ),
    "data.commit": record({"datanet": event_id, "c": digest}),
    "data.reveal": record(
        {
            "commit": event_id,
            "salt": digest,
            "row_root": digest,
            "rows": count(1),
            "bytes": count(1),
            "media": token,
            "licence": text,
            "store": text,
        }
    ),
    "data.snapshot": record(
        {
            "datanet": event_id,
            "version": count(1),
            "row_root": digest,
            "rows": count(1),
            "clusters": rows(record({"id": digest, "weight": count(1)}), "id", least=1),
        }
    ),
    "train.run": record(
        {
            "manifest": digest,
            "snapshots": rows(event_id, least=1, most=100),
            "base": digest,
            "recipe": digest,
            "code": digest,
            "environment": digest,
            "seed": count(),
            "determinism": one_of("bit-exact", "tolerance"),
            "tolerance?": share(1),
            "adapter": digest,
            "evaluation?": digest,
        }
    ),
    "adapter.publish": record(
        {"adapter": digest, "run": event_id, "base": digest, "parents": rows(event_id, most=100), "bytes?": count(1)}
    ),
    "method.card": record(
        {
            "method": label,
            "version": token,
            "spec": digest,
            "adapter": digest,
            "truth": token,
            "queries": count(1),
            "seeds": count(1),
            "agreement": record({"mean": share(), "low": share(), "high": share()}),
            "bias?": share(),
            "coverage?": share(0),
        }
    ),
    "policy.publish": record({"policy": anything, "digest": digest}),
    "fund.deposit": record({"account": digest, "amount": money(1), "reference": text}),
    "inference.receipt": record(
        {
            "served": digest,
            "base": digest,
            "adapter": digest,
            "index": digest,
            "config": digest,
            "method": digest,
            "card?": event_id,
            "query": digest,
            "output": digest,
            "tokens": record({"prompt": count(), "output": count()}),
            "payer": digest,
            "fee": money(),
            "policy": _POLICY,
            "parts": _MONEY_ROWS,
            "scores": rows(record({"record": record_id, "nats": share()}), "record", most=MOST_SCORES),
            "payees": _PAYEES,
            "residuals": record({"base": share(0), "below_threshold": share(0), "unattributed": share(0)}),
            "vector_root": digest,
            "nonce": digest,
        }
    ),
    "epoch.close": record({"epoch": count(1), "first": count(), "last": count()}),
    "epoch.settle": record(
        {
            "epoch": count(1),
            "last": count(),
            "policy": _POLICY,
            "totals": _MONEY_ROWS,
            "payout_root": digest,
            "payout_rows": count(),
        }
    ),
}
