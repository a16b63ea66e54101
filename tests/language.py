"""A language model that is made in a few seconds, and a fine-tune of it: what the tests of the route share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
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
        return widened(self.single.model(checkpoint).double())

    def base(self) -> Any:
        return widened(self.single.base().double())


def widened(model: Any) -> Any:
    """A float64 language model that computes in float64 throughout.

    transformers rounds norms and attention to float32 inside whatever the dtype of the weights is: an input that moves
    by its last digits then moves the output by 1e-9 or by nothing, as the processor's rounding has it.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register("float64", _attended)
    AttentionMaskInterface.register("float64", eager_mask)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.set_attn_implementation("float64")
    for module in inner.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(_normed, module)
    return model


def _normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def _attended(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **rest: Any) -> Any:
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    chances = (scores if attention_mask is None else scores + attention_mask).softmax(-1)
    return (chances @ value).transpose(1, 2).contiguous(), chances


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
