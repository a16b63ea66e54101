"""Held-out splits that keep copies together, so that no query is a near copy of a training record."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from poa.datanets.clusters import Tau, components
from poa.errors import CorpusError
from poa.records import Corpus


def split(corpus: Corpus, heldout: float | int, seed: int, tau: Tau | None = None) -> tuple[Corpus, Corpus]:
    """(train, held-out), both in corpus order, drawn without replacement over groups of connected copies.

    heldout: a share below 1 or a number of records. Groups are drawn in a seeded order and taken while they fit, so
    the held-out part has at most that many records. Raises `CorpusError` where either part would be empty.
    """
    wanted = round(heldout * len(corpus)) if isinstance(heldout, float) else heldout
    if not 0 < wanted < len(corpus):
        raise CorpusError(f"heldout is {heldout}: of {len(corpus)} records at least 1 must be held out and 1 kept")
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i, component in enumerate(components(corpus, tau)):
        groups[component].append(i)
    members = sorted(groups.values(), key=lambda rows: min(corpus[i].id for i in rows))
    held: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(members)):
        if len(held) + len(members[place]) <= wanted:
            held.update(members[place])
    if not held:
        raise CorpusError(f"heldout is {heldout}: every group of copies is larger than that; hold out more")
    rows = range(len(corpus))
    return corpus.take(i for i in rows if i not in held), corpus.take(i for i in rows if i in held)
