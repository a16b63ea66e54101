"""Fit methods on one run and score all responses with each; scores are cached by digest and checked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from poa.digests import plain_digest
from poa.files import cache_home
from poa.protocols import TrainingRun
from poa.records import Corpus
from poa.scores import Scores


@dataclass(frozen=True, eq=False)
class Attribution:
    """One method's scores for one list of responses; `seconds` is what fitting and scoring took when it was done."""

    name: str
    method: Any
    scores: Scores
    seconds: float

    @property
    def family(self) -> str:
        return str(type(self.method).family)


def attribute(name: str, method: Any, run: TrainingRun, parts: Sequence[Corpus]) -> Attribution:
    """Scores of all `parts` together, from the cache where this method, run and parts have been scored before.

    Each part is asked for by itself, because gradients are kept per list of records: methods that share a part share
    its gradients.
    """
    path = _path(method, run, parts)
    if not path.is_file():
        start = time.perf_counter()
        index = method.fit(run)
        found: list[Scores] = [index.attribute(part) for part in parts if len(part)]
        seconds = round(time.perf_counter() - start, 3)
        scores = reduce(Scores.concat, found)
        replace(scores, meta=dict(scores.meta) | {"seconds": seconds}).save(path)
    scores = Scores.load(path)
    meta = dict(scores.meta)
    seconds = float(meta.pop("seconds"))  # of this machine; what is handed on is the same everywhere
    return Attribution(name, method, replace(scores, meta=meta), seconds)


def _path(method: Any, run: TrainingRun, parts: Sequence[Corpus]) -> Path:
    asked = [part.digest for part in parts]
    key = plain_digest(["scores/3", type(method).__module__, repr(method), run.digest, asked])
    return cache_home() / "scores" / f"{key[:32]}.safetensors"
