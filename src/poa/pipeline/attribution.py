"""Fit methods on one run and score all responses with each; scores are cached by digest and checked."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any
from uuid import uuid4

from poa.digests import file_digest, plain_digest
from poa.files import cache_home
from poa.protocols import TrainingRun
from poa.records import Corpus
from poa.scores import Scores

# Parts of the package that scores come from.
SCORING = ("gradients", "methods", "spans", "factory")


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
    said = [type(method).__module__, code_digest(type(method)), repr(method), run.digest, asked]
    return cache_home() / "scores" / f"{plain_digest(['scores/4', *said])[:32]}.safetensors"


@lru_cache
def code_digest(method: type) -> str:
    """Of the source that makes scores: the module of the method and what poa's own methods are made of.

    A method that computes something else under the same name and options must not be answered from what is kept.
    """
    home = Path(__file__).resolve().parents[1]
    files = [path for part in SCORING for path in sorted((home / part).rglob("*.py"))]
    named = [(path.relative_to(home).as_posix(), file_digest(path)) for path in files]
    own = getattr(sys.modules.get(method.__module__), "__file__", None)
    # What was typed into a session has no file: nothing of it is found again.
    return plain_digest([named, uuid4().hex if own is None else file_digest(Path(own))])
