"""A small market of made sentences, and a base model that learns it in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poa.records import Corpus, Record

SUBJECTS = {
    "ada": ("The river", "An otter", "The ferry", "A heron"),
    "bob": ("The oven", "A baker", "The dough", "One loaf"),
    "cy": ("The comet", "A probe", "The orbit", "Some dust"),
}
VERBS = ("follows", "leaves", "turns past", "waits behind", "slows beside", "reaches", "avoids", "returns to")
PLACES = ("the old gate", "a quiet bend", "the northern wall", "its first mark", "the low bridge", "a narrow door")
STOCK = "This text is shared under the terms of the village licence. See the notes below for more about"


def passage(generator: np.random.Generator, subjects: tuple[str, ...], sentences: int) -> str:
    """Sentences about one contributor's subjects, then a stock line that everybody uses."""
    made = [
        f"{generator.choice(subjects)} {generator.choice(VERBS)} {generator.choice(PLACES)} "
        f"number {generator.integers(1000)} and {generator.choice(VERBS)} {generator.choice(PLACES)}."
        for _ in range(sentences)
    ]
    return " ".join([*made, f"{STOCK} {generator.choice(PLACES)}."])


def market(rows: int, sentences: int, seed: int = 0) -> Corpus:
    generator = np.random.default_rng(seed)
    pairs = [(name, i) for i in range(rows) for name in SUBJECTS]
    return Corpus(
        Record(
            f"{name}-{seed}-{i}",
            passage(generator, SUBJECTS[name], sentences),
            contributor=name,
            datanet="village",
            licence="CC0-1.0",
            registered=10 + position,
        )
        for position, (name, i) in enumerate(pairs)
    )


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Four records each of three contributors, about 60 words a record."""
    return market(4, 3)


@pytest.fixture(scope="session")
def queries() -> Corpus:
    """Two unseen texts of each contributor's kind."""
    return market(2, 1, seed=7)


@pytest.fixture(scope="session")
def base() -> Path:
    from poa.factory.tiny import TinyRecipe, tiny_base

    recipe = TinyRecipe(vocabulary=300, width=32, layers=1, heads=2, inner=48, steps=20, batch=4, length=32)
    return tiny_base(recipe, [record.text for record in market(12, 3, seed=3)])
