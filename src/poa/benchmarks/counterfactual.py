"""Models a second when many subset models are trained together, over a torch loop that trains one after another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from poa.benchmarks import Figures, interleave, wall
from poa.datanets.installed_docs import installed_docs
from poa.factory.classifier import train_classifier
from poa.factory.counterfactual import STACK, retrain
from poa.factory.descent import Descent
from poa.factory.digits import digits
from poa.factory.finetune import finetune
from poa.factory.recipe import LoRARecipe
from poa.factory.stacked import train_stack
from poa.factory.workers import one_thread

# Records, queries and subset models of the digits network.
TRAIN, QUERIES, MODELS = 1200, 100, 128
LORA_MODELS = STACK * (os.cpu_count() or 1)  # a stack for every core
# torch's operators that multiply matrices.
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def run(rounds: int = 5) -> Figures:
    """digits_speedup: 128 retrainings of a 64-32-10 network (JAX), over as many `retrained` by torch, one by one.
    lora_speedup: 16 retrainings per core of LoRA on the tiny base (torch stacks, a process each), over `finetune`'s own
    loop with torch's own threads. Both sides train and measure every query; what is trained is never read from a cache.

    lora_limit: what lora_speedup would be if the engine did nothing but the matrix products of its trainings, at the
    rate that products of that shape reach here on all cores together. lora_products_share: what part of a stack's
    processor time its matrix products take, on one thread; the rest reads and writes activations (norms, rotations,
    softmax, gates), which stacking models makes no fewer.
    """
    figures: dict[str, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    trained, queries = _adapter()
    lora = _lora(trained, queries)
    for name, (one, many, count) in {"digits": _digits(), "lora": lora}.items():
        ratio = interleave(one, many, rounds if name == "digits" else 3)
        figures[f"{name}_speedup"] = ratio.median * count
        ranges[f"{name}_speedup"] = (ratio.low * count, ratio.high * count)
    figures["lora_limit"] = _limit(trained, queries, lora[0])
    figures["lora_products_share"] = _products_share(trained)
    return Figures(figures, ranges)


def _uncached(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` with an empty cache, of which worker processes learn, too."""

    def fresh() -> Any:
        before = os.environ.get("POA_CACHE")
        with TemporaryDirectory() as folder:
            os.environ["POA_CACHE"] = folder
            try:
                return call()
            finally:
                os.environ.pop("POA_CACHE")
                os.environ.update({} if before is None else {"POA_CACHE": before})

    return fresh


def _masks(models: int, records: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (models, records)).astype(np.float64)


def _digits() -> tuple[Callable[[], Any], Callable[[], Any], float]:
    corpus = digits(TRAIN + QUERIES)
    train, queries = corpus[:TRAIN], corpus[TRAIN:]
    trained = train_classifier(train, (32,), steps=72, batch=100, lr=0.01, optimizer="adamw", dtype="float32")
    masks, few = _masks(MODELS, TRAIN), 8
    batch = trained.task.batch(list(queries))

    def one_by_one() -> Any:
        with torch.no_grad():
            return [trained.task.measurement(trained.retrained(mask).model(), batch) for mask in masks[:few]]

    return one_by_one, _uncached(lambda: retrain(trained, masks, queries, [0])), MODELS / few


def _lora(trained: Any, queries: Any) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    masks = _masks(LORA_MODELS, len(trained.corpus))

    def alone() -> Any:
        """One training as `finetune` does it, and its measurements."""
        descent, log = Descent.start(trained.parent, trained.recipe), trained.steps
        for step in range(log.steps):
            descent.step([trained.corpus[int(i)] for i in log.records[step] if i >= 0], log, step)
        with torch.no_grad():
            return [descent.task.measurement(descent.model, descent.task.batch([query])) for query in queries]

    def threaded() -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(os.cpu_count() or 1)
        try:
            return alone()
        finally:
            torch.set_num_threads(before)

    return threaded, _uncached(lambda: retrain(trained, masks, queries, [0])), LORA_MODELS


def _adapter() -> tuple[Any, Any]:
    """A LoRA run of 36 steps on 96 paragraphs, and 12 others to ask about."""
    corpus = installed_docs(["scipy"])
    fitting = [i for i, record in enumerate(corpus) if 180 <= len(record.text) <= 400][:108]
    chosen = corpus.take(fitting)
    return finetune(chosen[:96], recipe=LoRARecipe(epochs=3)), chosen[96:]


def _limit(trained: Any, queries: Any, alone: Callable[[], Any]) -> float:
    config = trained.parent.model().config
    width, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = 4 * width * width + 3 * width * inner
    body, factors = config.num_hidden_layers * layer, trained.recipe.rank * config.num_hidden_layers
    factors *= 4 * 2 * width + 3 * (width + inner)
    task = trained.task
    asked = sum(int(task.batch([query])["attention_mask"].sum()) for query in queries)
    tokens = float(trained.steps.denominator.sum())
    # forward, and backward to activations alone where weights are frozen
    products = tokens * (4 * (body + width * vocabulary) + 6 * factors) + asked * 2 * (body + factors)
    seconds = products / (_rate(width, inner) * (os.cpu_count() or 1))
    return median(wall(alone) for _ in range(3)) / seconds


def _products_share(trained: Any) -> float:
    """Of one epoch of a stack, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    corpus, recipe = trained.corpus, replace(trained.recipe, epochs=1)
    weights = torch.from_numpy(_masks(STACK, len(corpus))).float()
    with one_thread(), profile(activities=[ProfilerActivity.CPU]) as seen:
        train_stack(corpus, recipe, trained.parent, weights)
    spent = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(spent.get(name, 0.0) for name in PRODUCTS) / sum(spent.values())


def _rate(width: int, inner: int) -> float:
    """Floating point operations a second of one thread in products as large as those of a stack."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.randn(1600, width), torch.randn(width, inner)
    try:
        seconds = median(wall(lambda: torch.mm(left, right)) for _ in range(50))
    finally:
        torch.set_num_threads(before)
    return 2 * left.numel() * inner / seconds
