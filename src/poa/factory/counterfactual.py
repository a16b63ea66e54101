"""Counterfactual retraining: many subset models of one run, each measured on the same queries, none trained twice.

Classifiers are programs of arrays (`poa.gradients.program`), all models of a stack in one call; LoRA fine-tunes are
torch stacks (`poa.factory.stacked`), shared out among processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import torch

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Unsupported
from poa.factory.classifier import ClassifierRun
from poa.factory.programs import classifier_program, feature_arrays
from poa.factory.run import LoRARun
from poa.factory.stacked import measure_stack, train_stack
from poa.factory.versions import library_versions
from poa.factory.workers import one_thread
from poa.factory.workers import workers as processes
from poa.files import cache_home, write_atomic
from poa.progress import track
from poa.records import Corpus

Array = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating[Any]]
# Models that are trained together and kept in one file. LoRA: activations grow with it, and stacks are what processes
# share out.
STACK, CLASSIFIERS = 16, 128


class Job(NamedTuple):
    """One stack: `train` makes it from the rest, `key` names the result by all that determines it."""

    key: str
    train: Callable[[Any, Any, Corpus, Weights, Corpus], Array]
    parent: Any
    recipe: Any
    corpus: Corpus
    weights: Weights
    queries: Corpus

    def run(self) -> None:
        """Train, measure and keep."""
        values = self.train(self.parent, self.recipe, self.corpus, self.weights, self.queries)
        body = np.ascontiguousarray(values, "<f8").tobytes()
        header = f"{values.shape[0]} {values.shape[1]} {sha256(body)}\n".encode()
        write_atomic(_path(self.key), header + body)


def retrain(
    run: LoRARun | ClassifierRun, weights: Weights, queries: Corpus, seeds: Sequence[int], workers: int = 0
) -> Array:
    """[S, M, Q] measurements (nats) after running `run`'s recipe with record weights [M, N] and each seed.

    Weight 0 is *masked* removal: same start, order, rates and denominators as with the record. LoRA: one process per
    core (`workers=0`), one thread each, so results do not depend on the number of cores. Every stack is cached under
    the digest of all that determines it; an interrupted call continues where it stopped.
    """
    if not isinstance(run, LoRARun | ClassifierRun):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Unsupported(f"a {type(run).__name__} cannot be trained again: poa did not train it")
    size = STACK if isinstance(run, LoRARun) else CLASSIFIERS
    starts = range(0, len(weights), size)
    jobs = [_job(run, seed, weights[start : start + size], queries) for seed in seeds for start in starts]
    todo = [job for job in jobs if not _path(job.key).is_file()]
    count = min(len(todo), workers or os.cpu_count() or 1) if isinstance(run, LoRARun) else 1
    label = f"retrain {len(weights)} x {len(seeds)}"
    if count > 1:
        with processes(count) as pool:
            list(track(pool.map(Job.run, todo), label, len(todo)))
    else:
        for job in track(todo, label, len(todo)):
            job.run()
    rows = [_read(job.key) for job in jobs]
    return np.stack([np.concatenate(rows[s * len(starts) : (s + 1) * len(starts)]) for s in range(len(seeds))])


def _job(run: LoRARun | ClassifierRun, seed: int, weights: Weights, queries: Corpus) -> Job:
    recipe: Any = replace(run.recipe, seed=seed)
    if isinstance(run, LoRARun):
        train, parent, told = _adapters, run.parent, ["retrain/3", run.parent.digest]
    else:
        train, parent, told = _classifiers, run.task, ["retrain-classifier/2", asdict(run.task)]
    exact = sha256(np.ascontiguousarray(weights, "<f8").tobytes())
    body = [*told, recipe.plain(), run.corpus.digest, exact, queries.digest, library_versions()]
    return Job(plain_digest(body)[:32], train, parent, recipe, run.corpus, weights, queries)


def _adapters(parent: Any, recipe: Any, corpus: Corpus, weights: Weights, queries: Corpus) -> Array:
    with one_thread():
        stack = train_stack(corpus, recipe, parent, torch.from_numpy(np.asarray(weights, np.float32)))
        return measure_stack(stack, parent.task(), queries).numpy()


def _classifiers(task: Any, recipe: Any, corpus: Corpus, weights: Weights, queries: Corpus) -> Array:
    """In as many calls as memory asks for; their sizes are powers of two, so that few shapes are compiled."""
    program, asked = classifier_program(corpus, task, recipe), feature_arrays(task, queries)
    widths = task.features + sum(recipe.hidden) + task.classes
    numbers = sum(value.size for value in program.start.values()) * 8 + 6 * widths * min(recipe.batch, len(corpus))
    room = max(1, psutil.virtual_memory().available // 4 // (numbers * 8))
    size = 1 << min(room.bit_length() - 1, (len(weights) - 1).bit_length())
    parts: list[Array] = []
    for start in range(0, len(weights), size):
        part = np.asarray(weights[start : start + size], np.float64)
        filled = np.concatenate([part, np.ones((size - len(part), len(corpus)))])
        parts.append(program.measured(filled, asked)[: len(part)])
    return np.concatenate(parts)


def _path(key: str) -> Path:
    return cache_home() / "retrained" / f"{key}.npy"


def _read(key: str) -> Array:
    header, _, body = _path(key).read_bytes().partition(b"\n")
    fields = header.split()
    if len(fields) != 3 or sha256(body) != fields[2].decode("latin-1"):
        raise Corrupt(f"{_path(key)} does not have the digest that it promises; delete it")
    return np.frombuffer(body, "<f8").reshape(int(fields[0]), int(fields[1]))
