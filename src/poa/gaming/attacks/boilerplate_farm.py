"""Boilerplate farm: rows made of what everybody's texts have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from poa.gaming.attacks.upload import budget, check_budget, public_texts, upload
from poa.gaming.view import Knowledge, View
from poa.records import Corpus, Record
from poa.rewards.apportion import integer

GRAM = 8
_LICENCE = re.compile(r"licen[cs]e|copyright|warrant|permission|redistribut|all rights reserved", re.I)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class BoilerplateFarm:
    """Own records + `times` as many rows of stock phrases (A13).

    The stock is read from the public corpus at run time: the `phrases` most frequent runs of eight words, and the
    most frequent sentences that speak of licences, up to as many. Each row strings phrases of the stock together in
    random order until it is as long as one of the own records; its prompt, if any, stays.
    """

    times: int = 4
    phrases: int = 32
    seed: int = 0

    name: ClassVar[str] = "boilerplate_farm"
    family: ClassVar[str] = "A13"
    layer: ClassVar[str] = "L1"
    knowledge: ClassVar[Knowledge] = "K1"

    def __post_init__(self) -> None:
        check_budget(self.name, self.times, self.seed)
        integer(self.phrases, f"{self.name}.phrases", 1)

    def rows(self, view: View) -> tuple[Record, ...]:
        public = public_texts(view, self.name)
        stock = frequent_runs(public, self.phrases) + licence_sentences(public, self.phrases)
        generator = np.random.default_rng([self.seed, 0xA13])
        models = [view.own[i % len(view.own)] for i in range(budget(view, self.times))]
        texts = [_strung(stock, len(model.text.split()), generator) for model in models]
        return upload(view, self.name, self.seed, zip(models, texts, strict=True))


def frequent_runs(corpus: Corpus, most: int) -> list[str]:
    """At most `most` runs of eight words, those in most records first (ties in alphabetical order).

    A run that shares four words in a row with a more frequent one is left out: a long stock sentence would otherwise
    fill the list with shifts of itself. A corpus of shorter texts gives their whole texts.
    """
    runs = _by_frequency({tuple(run) for run in _windows(record.text.split(), GRAM)} for record in corpus)
    kept: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for run in runs:
        parts = set(_windows(run, GRAM // 2))
        if not parts & seen:
            kept.append(" ".join(run))
            seen |= parts
        if len(kept) == most:
            break
    return kept


def licence_sentences(corpus: Corpus, most: int) -> list[str]:
    """At most `most` sentences about licences, copyright or warranty, those in most records first."""
    found = _by_frequency(
        {(sentence.strip(),) for sentence in _SENTENCE.split(record.text) if _LICENCE.search(sentence)}
        for record in corpus
    )
    return [sentence for (sentence,) in found[:most]]


def _windows(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))]


def _by_frequency(found: Iterable[set[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    counts = Counter(item for items in found for item in items)
    return sorted(counts, key=lambda item: (-counts[item], item))


def _strung(stock: Sequence[str], length: int, generator: np.random.Generator) -> str:
    words: list[str] = []
    while len(words) < length:
        for i in generator.permutation(len(stock)):
            words += stock[int(i)].split()
            if len(words) >= length:
                break
    return " ".join(words[:length])
