"""Noise farm: rows of random words, many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from poa.gaming.attacks.upload import budget, check_budget, public_texts, upload
from poa.gaming.view import Knowledge, View
from poa.records import Record


@dataclass(frozen=True)
class NoiseFarm:
    """Own records + `times` as many rows of words drawn uniformly from the public vocabulary (A10).

    Each row has as many words as one of the own records; its prompt, if any, stays. Nothing can be learnt from the
    order of the words, and no two rows are near-duplicates, so fingerprints cannot help against it.
    """

    times: int = 4
    seed: int = 0

    name: ClassVar[str] = "noise_farm"
    family: ClassVar[str] = "A10"
    layer: ClassVar[str] = "L1"
    knowledge: ClassVar[Knowledge] = "K1"

    def __post_init__(self) -> None:
        check_budget(self.name, self.times, self.seed)

    def rows(self, view: View) -> tuple[Record, ...]:
        vocabulary = sorted({word for record in public_texts(view, self.name) for word in record.text.split()})
        generator = np.random.default_rng([self.seed, 0xA10])
        models = [view.own[i % len(view.own)] for i in range(budget(view, self.times))]
        draws = [generator.integers(len(vocabulary), size=len(model.text.split())) for model in models]
        texts = [" ".join(vocabulary[i] for i in draw.tolist()) for draw in draws]
        return upload(view, self.name, self.seed, zip(models, texts, strict=True))
