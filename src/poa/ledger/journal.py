"""Writing the events of the whole route from plain data: one small function per event type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from poa.ledger.actors import Author
from poa.ledger.commitments import data_commitment, nats
from poa.ledger.encoding import amount, fraction
from poa.ledger.epochs import settlement_of
from poa.ledger.events import Event
from poa.ledger.state import State
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt, split_fee


def register(author: Author, roles: Iterable[str], label: str = "") -> Event:
    """The author's own registration; roles: contributor, operator, owner, payer. `label` is shown beside the id."""
    body = {
        "key": author.key.public.hex(),
        "next": author.key.successor.id,
        "roles": sorted(set(roles)),
    }
    return author.write("actor.register", body | ({"label": label} if label else {}))


def create_datanet(
    author: Author,
    name: str,
    *,
    licence: str,
    licence_digest: str,
    intake: str,
    modality: str = "text",
    duplicates: str = "first-commit",
    withdrawal: str = "next-snapshot",
) -> Event:
    """A datanet owned by the author; its id is the event's. licence_digest, intake: SHA-256 of the texts."""
    body = {
        "owner": author.id,
        "name": name,
        "modality": modality,
        "licence": licence,
        "licence_digest": licence_digest,
        "intake": intake,
        "duplicates": duplicates,
        "withdrawal": withdrawal,
    }
    return author.write("datanet.create", body)


def commit(author: Author, datanet: str, salt: bytes, row_root: str) -> Event:
    """A sealed claim to rows: its position in the log is the contributor's priority."""
    return author.write(
        "data.commit", {"datanet": datanet, "c": data_commitment(author.log, author.id, datanet, salt, row_root)}
    )


def reveal(
    author: Author,
    commit: str,
    salt: bytes,
    row_root: str,
    *,
    rows: int,
    size: int,
    licence: str,
    store: str,
    media: str = "text/plain",
) -> Event:
    """Opens the author's own `commit` (event id). size: bytes of the rows; store: where they are kept."""
    body = {
        "commit": commit,
        "salt": salt.hex(),
        "row_root": row_root,
        "rows": rows,
        "bytes": size,
        "media": media,
        "licence": licence,
        "store": store,
    }
    return author.write("data.reveal", body)


def snapshot(author: Author, datanet: str, version: int, row_root: str, rows: int, weights: Mapping[str, int]) -> Event:
    """A datanet's published version; weights: integer payee weight per actor id, at least 1 each."""
    clusters = [{"id": payee, "weight": weight} for payee, weight in sorted(weights.items())]
    body = {"datanet": datanet, "version": version, "row_root": row_root, "rows": rows, "clusters": clusters}
    return author.write("data.snapshot", body)


def train_run(
    author: Author,
    *,
    manifest: str,
    snapshots: Iterable[str],
    base: str,
    recipe: str,
    code: str,
    environment: str,
    seed: int,
    adapter: str,
    tolerance: int | None = None,
    evaluation: str | None = None,
) -> Event:
    """A training run by its digests; snapshots: event ids. tolerance (units of 1e-9): None says bit-exact."""
    body = {
        "manifest": manifest,
        "snapshots": sorted(set(snapshots)),
        "base": base,
        "recipe": recipe,
        "code": code,
        "environment": environment,
        "seed": seed,
        "determinism": "bit-exact" if tolerance is None else "tolerance",
        "adapter": adapter,
    }
    body |= {} if tolerance is None else {"tolerance": fraction(tolerance)}
    return author.write("train.run", body | ({} if evaluation is None else {"evaluation": evaluation}))


def publish_adapter(author: Author, *, adapter: str, run: str, base: str, parents: Iterable[str] = ()) -> Event:
    """The adapter that run (event id) produced; parents: event ids of adapters it was merged from."""
    return author.write(
        "adapter.publish", {"adapter": adapter, "run": run, "base": base, "parents": sorted(set(parents))}
    )


def method_card(
    author: Author,
    *,
    method: str,
    version: str,
    spec: str,
    adapter: str,
    truth: str,
    queries: int,
    seeds: int,
    agreement: tuple[float, float, float],
) -> Event:
    """A method's measured agreement with retraining as (low, mean, high); without a card a method may not pay.

    spec: digest of the method's identity; truth: what it was measured against, e.g. leave-one-contributor-out.
    """
    low, mean, high = (nats(value) for value in agreement)
    body = {
        "method": method,
        "version": version,
        "spec": spec,
        "adapter": adapter,
        "truth": truth,
        "queries": queries,
        "seeds": seeds,
        "agreement": {"low": low, "mean": mean, "high": high},
    }
    return author.write("method.card", body)


def publish_policy(author: Author, policy: Policy) -> Event:
    """A split policy as data; receipts of epochs that begin later may be under it."""
    return author.write("policy.publish", {"policy": policy.to_json(), "digest": policy.digest})


def deposit(author: Author, payer: str, micro_credits: int, reference: str) -> Event:
    """Micro-credits that arrived for a payer; the reference (unique) says where from."""
    return author.write("fund.deposit", {"account": payer, "amount": amount(micro_credits), "reference": reference})


def receipt(
    author: Author,
    scored: ScoredReceipt,
    policy: Policy,
    *,
    payer: str,
    served: str,
    base: str,
    adapter: str,
    index: str,
    config: str,
    method: str,
    card: str | None,
    query: str,
    output: str,
    tokens: tuple[int, int],
    scores: Sequence[tuple[str, float]],
    vector_root: str,
    nonce: str,
) -> Event:
    """One response and what it is worth to whom; the event's id is `scored.id`.

    Digests are hex: the signed served statement, base, adapter, index, config, method; query and output are seals
    (`poa.ledger.seal`). card: event id of the method's card, None for a response that nobody scored. tokens: (prompt,
    output). scores: top (record id, nats), at most 100.
    """
    body = {
        "served": served,
        "base": base,
        "adapter": adapter,
        "index": index,
        "config": config,
        "method": method,
        "query": query,
        "output": output,
        "tokens": {"prompt": tokens[0], "output": tokens[1]},
        "payer": payer,
        "fee": amount(scored.fee),
        "policy": {"id": policy.id, "version": policy.version},
        "parts": [{"id": name, "amount": amount(part)} for name, part in split_fee(scored.fee, policy)],
        "scores": [{"record": record, "nats": nats(score)} for record, score in sorted(scores)],
        "payees": [{"id": payee, "fraction": fraction(share)} for payee, share in scored.payees],
        "residuals": {
            "base": fraction(scored.base),
            "below_threshold": fraction(scored.below_threshold),
            "unattributed": fraction(scored.unattributed),
        },
        "vector_root": vector_root,
        "nonce": nonce,
    }
    return author.write("inference.receipt", body | ({} if card is None else {"card": card}), id=scored.id)


def close_epoch(author: Author, state: State) -> Event:
    """Closes the open epoch with everything logged so far; valid only as the very next entry."""
    epoch = state.epoch
    return author.write("epoch.close", {"epoch": epoch.number, "first": epoch.first, "last": state.size - 1})


def settle_epoch(author: Author, state: State) -> Event:
    """Settles the earliest closed epoch as its receipts say; raises `Refusal` where none is closed."""
    return author.write("epoch.settle", settlement_of(state, min(state.closed, default=0)).body)
