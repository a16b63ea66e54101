"""Which records enter which step, at which rate: fixed before the first step, shared by training and retraining."""

from __future__ import annotations

import numpy as np

from poa.factory.recipe import LoRARecipe
from poa.steplog import StepLog


def schedule(lengths: list[int], recipe: LoRARecipe) -> StepLog:
    """The plan of a run over records with `lengths` supervised tokens each.

    One shuffled pass per epoch, drawn from `recipe.seed`; the last batch of an epoch may be short (-1 marks empty
    places). The denominator of a step is its number of supervised tokens, whatever weights retraining gives them.
    `loss` is zero until training fills it.
    """
    count = len(lengths)
    generator = np.random.default_rng([recipe.seed, 0x706F61])
    width = min(recipe.batch, count)
    per_epoch = -(-count // width)
    places = np.full((recipe.epochs, per_epoch * width), -1, np.int64)
    for epoch in range(recipe.epochs):
        places[epoch, :count] = generator.permutation(count)
    records = places.reshape(-1, width)
    steps = len(records)
    tokens = np.asarray([*lengths, 0], np.float64)
    return StepLog(
        records,
        np.asarray([recipe.rate_at(step, steps) for step in range(steps)]),
        tokens[records].sum(1),
        np.zeros(steps),
    )
