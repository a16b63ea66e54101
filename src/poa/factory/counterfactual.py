"""Counterfactual retraining: many subset models of one run, in parallel, each measured on the same queries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt
from poa.factory.bases import Base
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun
from poa.factory.stacked import measure_stack, train_stack
from poa.factory.versions import library_versions
from poa.factory.workers import workers as processes
from poa.files import cache_home, write_atomic
from poa.progress import track
from poa.records import Corpus

Array = npt.NDArray[np.float64]
# Models a stack: activations grow with it, and stacks are what processes share out.
STACK = 8


def retrain(
    run: LoRARun, weights: npt.NDArray[np.floating[Any]], queries: Corpus, seeds: Sequence[int], workers: int = 0
) -> Array:
    """[S, M, Q] measurements (nats) after running `run`'s recipe with record weights [M, N] and each seed.

    Weight 0 is *masked* removal: same start, order, rates and denominators as with the record. One process per core
    (`workers=0`), one thread each, so results do not depend on the number of cores. Every stack is cached under the
    digest of all that determines it; an interrupted call continues where it stopped.
    """
    jobs = [
        (run.parent, replace(run.recipe, seed=seed), run.corpus, weights[start : start + STACK], queries)
        for seed in seeds
        for start in range(0, len(weights), STACK)
    ]
    keys = [_key(*job) for job in jobs]
    todo = [i for i, key in enumerate(keys) if not _path(key).is_file()]
    count = min(len(todo), workers or os.cpu_count() or 1)
    label = f"retrain {len(weights)} x {len(seeds)}"
    if count > 1:
        with processes(count) as pool:
            list(track(pool.map(_job, [jobs[i] for i in todo], [keys[i] for i in todo]), label, len(todo)))
    else:
        for i in track(todo, label, len(todo)):
            _job(jobs[i], keys[i])
    stacks = -(-len(weights) // STACK)
    rows = [_read(key) for key in keys]
    return np.stack([np.concatenate(rows[s * stacks : (s + 1) * stacks]) for s in range(len(seeds))])


def _key(
    parent: Base, recipe: LoRARecipe, corpus: Corpus, weights: npt.NDArray[np.floating[Any]], queries: Corpus
) -> str:
    exact = np.ascontiguousarray(weights, "<f8").tobytes()
    body = [parent.digest, recipe.plain(), corpus.digest, sha256(exact), queries.digest, library_versions()]
    return plain_digest(["retrain/2", *body])[:32]


def _path(key: str) -> Path:
    return cache_home() / "retrained" / f"{key}.npy"


def _job(job: tuple[Base, LoRARecipe, Corpus, npt.NDArray[np.floating[Any]], Corpus], key: str) -> None:
    parent, recipe, corpus, weights, queries = job
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stack = train_stack(corpus, recipe, parent, torch.from_numpy(np.asarray(weights, np.float32)))
        values = measure_stack(stack, parent.task(), queries).numpy()
    finally:
        torch.set_num_threads(before)
    body = np.ascontiguousarray(values, "<f8").tobytes()
    header = f"{values.shape[0]} {values.shape[1]} {sha256(body)}\n".encode()
    write_atomic(_path(key), header + body)


def _read(key: str) -> Array:
    header, _, body = _path(key).read_bytes().partition(b"\n")
    fields = header.split()
    if len(fields) != 3 or sha256(body) != fields[2].decode("latin-1"):
        raise Corrupt(f"{_path(key)} does not have the digest that it promises; delete it")
    return np.frombuffer(body, "<f8").reshape(int(fields[0]), int(fields[1]))
