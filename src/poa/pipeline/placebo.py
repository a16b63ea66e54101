"""Controls: responses of words drawn at random, from texts that nobody trained on or from the manifest's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from poa.records import Corpus, Record

WORDS = 50


def placebo(texts: Sequence[str], count: int, seed: int, name: str = "placebo") -> Corpus:
    """`count` responses of 50 words each, drawn independently from the word frequencies of `texts`; ids `name`-i."""
    counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z]+", text.lower()))
    words = sorted(counts)
    weights = np.asarray([counts[word] for word in words], float)
    generator = np.random.default_rng([seed, 0x91ACEB0])
    draws = generator.choice(len(words), (count, WORDS), p=weights / weights.sum())
    return Corpus(Record(f"{name}-{i}", " ".join(words[j] for j in row), "Answer:") for i, row in enumerate(draws))
