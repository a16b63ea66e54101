"""Fit methods on one run and score all responses with each; scores are cached by digest and checked."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poa.digests import plain_digest
from poa.factory.run import LoRARun
from poa.files import cache_home
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


def attribute(name: str, method: Any, run: LoRARun, responses: Corpus) -> Attribution:
    """Scores of `responses`, from the cache where this method, run and list have been scored before."""
    path = _path(method, run, responses)
    if not path.is_file():
        start = time.perf_counter()
        scores: Scores = method.fit(run).attribute(responses)
        seconds = round(time.perf_counter() - start, 3)
        replace(scores, meta=dict(scores.meta) | {"seconds": seconds}).save(path)
    scores = Scores.load(path)
    return Attribution(name, method, scores, float(scores.meta["seconds"]))


def _path(method: Any, run: LoRARun, responses: Corpus) -> Path:
    key = plain_digest(["scores/1", type(method).__module__, repr(method), run.digest, responses.digest])
    return cache_home() / "scores" / f"{key[:32]}.safetensors"
