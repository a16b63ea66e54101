"""Which records are trained on and which are held out, without a near-copy on both sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from poa.datanets.clusters import components
from poa.errors import PoaError
from poa.pipeline.settings import Select
from poa.records import Corpus


@dataclass(frozen=True)
class Chosen:
    """train, and two held-out parts: `queries` are measured against retraining, `responses` are paid for."""

    train: Corpus
    queries: Corpus
    responses: Corpus


def choose(corpus: Corpus, select: Select) -> Chosen:
    """Draw per contributor, seeded; a held-out record is connected to no other drawn record by copying."""
    eligible = corpus.where(lambda record: select.shortest <= len(record.text) <= select.longest)
    names = _contributors(eligible, select)
    wanted = select.records + select.queries + select.responses
    drawn: list[int] = []
    for name in names:
        own = [i for i, record in enumerate(eligible) if record.contributor == name]
        if len(own) < wanted:
            raise PoaError(
                f"contributor {name!r} has {len(own)} texts of {select.shortest}-{select.longest} characters; "
                f"select asks for {wanted}"
            )
        generator = np.random.default_rng([select.seed, *name.encode()])
        # Some to spare: copies cannot be held out.
        drawn += [own[i] for i in generator.permutation(len(own))[: wanted + wanted // 3]]
    pool = eligible.take(drawn)
    size = Counter(labels := components(pool))
    parts: dict[str, list[int]] = {"queries": [], "responses": [], "train": []}
    for name in names:
        rows = [i for i, record in enumerate(pool) if record.contributor == name]
        single = [i for i in rows if size[labels[i]] == 1]
        if len(single) < select.queries + select.responses:
            raise PoaError(f"contributor {name!r} has only {len(single)} texts that are nobody's copy; hold out fewer")
        held = single[: select.queries + select.responses]
        parts["queries"] += held[: select.queries]
        parts["responses"] += held[select.queries :]
        parts["train"] += [i for i in rows if i not in set(held)][: select.records]
    return Chosen(*(pool.take(sorted(parts[part])) for part in ("train", "queries", "responses")))


def _contributors(eligible: Corpus, select: Select) -> tuple[str, ...]:
    counts = Counter(eligible.contributors)
    if isinstance(select.contributors, int):
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        return tuple(sorted(ranked[: select.contributors]))
    for name in select.contributors:
        if name not in counts:
            raise PoaError(f"select.contributors names {name!r}, who has no text in this datanet")
    return select.contributors
