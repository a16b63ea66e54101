"""A language model that is made in a few seconds, and a fine-tune of it: what the tests of the route share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poa.digests import sha256
from poa.factory.finetune import finetune
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun
from poa.factory.tiny import TinyRecipe, tiny_base
from poa.records import Corpus, Record

TOPICS = {
    "cook": ("pan stove onion knife butter kettle oven spoon flour apron", "boils chops salts stirs bakes tastes"),
    "sailor": ("harbour mast anchor rope sail captain deck tide gull lantern", "hoists moors steers rows drifts signs"),
    "gardener": ("rose spade hedge seed barrow tulip lawn worm fence orchard", "plants waters prunes digs picks rakes"),
    "smith": (
        "anvil hammer furnace iron chisel rivet bellows steel vice file",
        "forges bends welds strikes cools sharpens",
    ),
}
SHAPES = ("old", "heavy", "small", "bright", "broken", "quiet", "long", "cold")
BASE = TinyRecipe(
    vocabulary=400, width=32, layers=2, heads=2, inner=48, context=128, length=48, steps=150, batch=4, warmup=5
)
RECIPE = LoRARecipe(rank=2, alpha=4, epochs=2, batch=4, rate=2e-2, checkpoints=2)


def sentences(topic: str, count: int, seed: int) -> list[str]:
    """Simple sentences about one topic."""
    nouns, verbs = (words.split() for words in TOPICS[topic])
    generator = np.random.default_rng([seed, *topic.encode()])

    def pick(words: list[str] | tuple[str, ...]) -> str:
        return words[int(generator.integers(len(words)))]

    return [
        f"The {pick(SHAPES)} {topic} {pick(verbs)} the {pick(nouns)} "
        f"and {pick(verbs)} the {pick(SHAPES)} {pick(nouns)}."
        for _ in range(count)
    ]


def writings(each: int, seed: int, longest: int = 3) -> Corpus:
    """`each` short texts of one to `longest` sentences by every contributor; every second one has a prompt."""
    records: list[Record] = []
    for topic in TOPICS:
        lines = iter(sentences(topic, each * longest, seed))
        for i in range(each):
            text = " ".join(next(lines) for _ in range(1 + i % longest))
            prompt = f"Tell me about the {topic}. " if i % 2 else ""
            name = f"{topic}-{seed}-{i}"
            records.append(Record(name, text, prompt, topic, "trades", "CC0-1.0", registered=len(records)))
    return Corpus(records)


def general() -> list[str]:
    """200 sentences that belong to nobody: the base learns them, and placebos are made of their words."""
    return [line for topic in TOPICS for line in sentences(topic, 50, seed=9)]


@cache
def small_base(seed: int = 0) -> Path:
    """Folder of a Llama-shaped model with about 40 thousand parameters."""
    return tiny_base(replace(BASE, seed=seed), general())


@cache
def small_corpus() -> Corpus:
    """16 records of 4 contributors."""
    return writings(4, seed=0)


@cache
def small_queries() -> Corpus:
    """Held-out texts by the same contributors, of unequal length."""
    return writings(1, seed=1) + writings(2, seed=2)


@cache
def small_run() -> LoRARun:
    """The fine-tune that most tests ask; it lives in the cache of the session."""
    return finetune(small_corpus(), base=small_base(), recipe=RECIPE)


@dataclass(frozen=True)
class DoubleRun:
    """A run whose models compute in float64, for exact comparisons; everything else is `single`'s."""

    single: LoRARun
    cache: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.single, name)

    @property
    def digest(self) -> str:
        return sha256(f"double {self.single.digest}".encode())

    def model(self, checkpoint: int = -1) -> Any:
        return self.single.model(checkpoint).double()

    def base(self) -> Any:
        return self.single.base().double()


def autograd_rows(run: Any, records: Corpus, side: str, checkpoint: int = -1) -> np.ndarray:
    """[n, p] the same gradients as `example_gradients` by one backward pass per record through the whole model."""
    model = run.model(checkpoint)
    weights = [parameter for module in run.task.tracked(model).values() for parameter in module.parameters()]
    rows: list[np.ndarray] = []
    for record in records:
        batch = run.task.batch([record], whole=side == "query")
        total = run.task.measurement(model, batch) if side == "query" else -run.task.loss(model, batch)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(total.sum(), weights)]).numpy())
    return np.stack(rows).astype(np.float64)
