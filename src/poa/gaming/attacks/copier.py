"""Copier: the best paid contributor's records once more, disguised a little."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from poa.errors import PoaError
from poa.gaming.attacks.upload import budget, check_budget, public_texts, upload
from poa.gaming.view import Knowledge, View
from poa.records import Corpus, Record
from poa.rewards.apportion import integer

_PUNCTUATION = ".,;:!?"


@dataclass(frozen=True)
class Copier:
    """Own records + `times` as many near-duplicates of the best paid victim's records (A4 by the means of A2).

    Each copy changes spacing, case and punctuation and exchanges every `every`-th word with its neighbour: a swap
    that needs no synonyms and no model. Where the budget exceeds the victim's records, it goes round again with
    other disguises. The smaller `every`, the farther the copies lie from the originals: one exchange removes up to 6
    of a text's n - 4 five-word shingles, so at the default tau of 0.25 a copy passes as new once it has about one
    exchange for every 46 words. That is a limit of lexical fingerprints, not of this attack.
    """

    times: int = 4
    every: int = 50
    seed: int = 0

    name: ClassVar[str] = "copier"
    family: ClassVar[str] = "A2"
    layer: ClassVar[str] = "L2"
    knowledge: ClassVar[Knowledge] = "K1"

    def __post_init__(self) -> None:
        check_budget(self.name, self.times, self.seed)
        integer(self.every, f"{self.name}.every", 2)

    def rows(self, view: View) -> tuple[Record, ...]:
        stolen = _best_paid(view, public_texts(view, self.name))
        generator = np.random.default_rng([self.seed, 0xA2])
        models = [stolen[i % len(stolen)] for i in range(budget(view, self.times))]
        return upload(view, self.name, self.seed, [(m, disguised(m.text, self.every, generator)) for m in models])


def disguised(text: str, every: int, generator: np.random.Generator) -> str:
    """`text` with every `every`-th word exchanged with the next one, and other spacing, case and punctuation.

    The first exchange falls on a random place of the first `every` words. The last punctuation mark always changes,
    so that no copy has the canonical form of its original.
    """
    words = text.split()
    for i in range(int(generator.integers(every)), len(words) - 1, every):
        words[i], words[i + 1] = words[i + 1], words[i]
    place = int(generator.integers(len(words)))
    words[place] = words[place].swapcase() if words[place].islower() else words[place].lower()
    place = int(generator.integers(len(words)))
    words[place] = words[place].rstrip(_PUNCTUATION) + ","
    place = int(generator.integers(len(words)))
    words[place] += " "
    ending = text.rstrip()[-1]
    closing = str(generator.choice([mark for mark in ".;!" if mark != ending]))
    return " ".join(words).rstrip(_PUNCTUATION + string.whitespace) + closing


def _best_paid(view: View, public: Corpus) -> Corpus:
    """Records of the best paid other contributor; without public pay that of the one with most records."""
    counts = Counter(name for name in public.contributors if name != view.attacker)
    if not counts:
        raise PoaError(f"copier needs a victim: {view.attacker!r} is the only contributor of this corpus")
    victim = min(counts, key=lambda name: (-view.paid.get(name, 0), -counts[name], name))
    return public.where(lambda record: record.contributor == victim)
