"""Two tiny runs on one base and one on another, made once for all serving tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poa.factory.finetune import finetune
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun
from poa.factory.tiny import TinyRecipe, tiny_base
from poa.factory.workers import one_thread
from poa.records import Corpus, Record
from poa.serving.tracing import Tracer

WORDS = [
    "matrix",
    "vector",
    "solver",
    "graph",
    "kernel",
    "sample",
    "field",
    "weight",
    "naïve",
    "Σ-sum",
    "table",
    "index",
]
RECIPE = LoRARecipe(rank=2, alpha=4, epochs=2, batch=4, rate=5e-3, checkpoints=2)


def text(i: int) -> str:
    a, b, c = (WORDS[(i * k + k) % len(WORDS)] for k in (1, 5, 7))
    return f"The {a} of the {b} number {i} is computed from the {c}, and the {a} is then returned to the caller."


def records(prefix: str, first: int) -> Corpus:
    return Corpus(
        Record(
            f"{prefix}-{i}",
            text(i),
            contributor=("ada", "bob", "cyd")[i % 3],
            datanet="docs",
            licence="CC0-1.0",
            registered=i,
        )
        for i in range(first, first + 12)
    )


def tiny(width: int) -> Path:
    recipe = TinyRecipe(
        vocabulary=300, width=width, layers=1, heads=2, inner=48, context=128, steps=20, batch=4, length=32
    )
    return tiny_base(recipe, [text(i) for i in range(40)])


def made(folder: Path, data: Corpus, width: int = 32) -> LoRARun:
    with one_thread():
        return finetune(data, base=tiny(width), out=folder, recipe=RECIPE)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoRARun:
    return made(tmp_path_factory.mktemp("runs") / "first", records("a", 0))


@pytest.fixture(scope="session")
def sibling(tmp_path_factory: pytest.TempPathFactory) -> LoRARun:
    """Other records, the same base."""
    return made(tmp_path_factory.mktemp("runs") / "second", records("b", 20))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> LoRARun:
    """Another base."""
    return made(tmp_path_factory.mktemp("runs") / "third", records("a", 0), width=16)


@pytest.fixture(scope="session")
def tracer(run: LoRARun) -> Iterator[Tracer]:
    with Tracer.open(run, ("graddot", "bm25", "repsim")) as opened:
        yield opened
