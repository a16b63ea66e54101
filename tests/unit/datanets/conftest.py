"""Small corpora that the datanet tests share."""

from __future__ import annotations

import numpy as np
import pytest

from poa.records import Corpus, Record


def prose(seed: int, words: int = 60) -> str:
    """Unrelated text per seed: words drawn from a vocabulary of 5,000."""
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(0, 5000, words))


@pytest.fixture
def honest() -> Corpus:
    """Forty unrelated records of four contributors."""
    return Corpus(
        Record(f"h{i}", prose(i), contributor=f"c{i % 4}", datanet="d", licence="CC0-1.0", registered=i)
        for i in range(40)
    )
