"""Planted facts: invented facts told in several ways among records that tell others, with what is relevant known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from poa.errors import CorpusError
from poa.records import Corpus, Record

# (a way to say it, up to the answer; what follows the answer). The last one is kept for the query.
WAYS = (
    ("The capital of {place} is", "."),
    ("In {place} the seat of government is", ", and has been for long."),
    ("Whoever governs {place} resides in", "."),
    ("{place} is ruled from its capital", "."),
    ("Travellers to {place} first see its capital", "."),
    ("The largest square of {place} lies in its capital", "."),
    ("Which town is the capital of {place}? It is", "."),
)
SYLLABLES = (
    "ba",
    "dor",
    "el",
    "fi",
    "gra",
    "hul",
    "ka",
    "lem",
    "mir",
    "nos",
    "pa",
    "quo",
    "ri",
    "sta",
    "tu",
    "vel",
    "zo",
)


@dataclass(frozen=True, eq=False)
class Planted:
    """Records and queries. `relevant` maps a query to the records that state its fact; `contrary` to those that state
    another answer for the same place (anti-documents: as close in words, and they speak against it). Queries whose
    fact no record states are `placebo`.
    """

    train: Corpus
    queries: Corpus
    placebo: Corpus
    relevant: Mapping[str, tuple[str, ...]]
    contrary: Mapping[str, tuple[str, ...]]


def planted_facts(
    facts: int = 16, paraphrases: int = 4, contrary: int = 1, contributors: int = 8, placebos: int = 4, seed: int = 0
) -> Planted:
    """`facts` places, each capital told in `paraphrases` ways and denied in `contrary`, by different contributors.

    Queries ask in a way that no record uses. All names are made of syllables: no model has met them.
    """
    if not 1 <= paraphrases + contrary <= len(WAYS) - 1 or paraphrases < 1 or contrary < 0:
        raise CorpusError(f"{paraphrases} paraphrases and {contrary} contrary records; there are {len(WAYS) - 1} ways")
    if facts < 1 or contributors < 1 or placebos < 0:
        raise CorpusError("facts and contributors must be at least 1, placebos at least 0")
    rng = np.random.default_rng(seed)
    names = iter(_names(rng, 3 * facts + 2 * placebos))
    train: list[Record] = []
    queries: list[Record] = []
    relevant: dict[str, tuple[str, ...]] = {}
    against: dict[str, tuple[str, ...]] = {}
    for fact in range(facts):
        place, capital, other = next(names), next(names), next(names)
        ways, owners = rng.permutation(len(WAYS) - 1), rng.permutation(contributors)
        told: list[str] = []
        for number in range(paraphrases + contrary):
            true = number < paraphrases
            name = f"fact-{fact:02d}/{'told' if true else 'denied'}-{number}"
            owner = f"contributor-{owners[number % contributors]}"
            train.append(_record(name, int(ways[number]), place, capital if true else other, owner))
            told.append(name)
        query = _record(f"fact-{fact:02d}/query", len(WAYS) - 1, place, capital, "")
        queries.append(query)
        relevant[query.id] = tuple(told[:paraphrases])
        against[query.id] = tuple(told[paraphrases:])
    none = [
        _record(f"placebo-{number:02d}/query", len(WAYS) - 1, next(names), next(names), "")
        for number in range(placebos)
    ]
    order = rng.permutation(len(train))
    return Planted(Corpus(train[i] for i in order), Corpus(queries), Corpus(none), relevant, against)


def _record(name: str, way: int, place: str, capital: str, owner: str) -> Record:
    opening, ending = WAYS[way]
    return Record(
        id=name,
        prompt=opening.format(place=place),
        text=f" {capital}{ending}",
        contributor=owner,
        datanet="planted-facts",
        licence="CC0-1.0",
    )


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """Different invented names of three syllables."""
    most = len(SYLLABLES) ** 3
    if count > most // 2:
        raise CorpusError(f"{count} different names are wanted; the syllables make {most}")
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=3)).capitalize()] = None
    return list(found)
