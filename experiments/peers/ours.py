"""poa's side of the timings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
from fits import kept

from language import LanguageRun
from poa.conformance import isolated
from poa.gradients.projection import TwoSided
from poa.gradients.shards import Plan, Store, build
from poa.methods import method
from poa.records import Corpus, Record


def fit(run: LanguageRun) -> Callable[[], object]:
    """Token ids from a file to a sealed float32 store on disk, 16 columns a side and layer."""
    source = kept(run.corpus, Path(mkdtemp(prefix="peers-")))
    plan = Plan(projection=TwoSided(16), fast=True)

    def once() -> object:
        with TemporaryDirectory(prefix="peers-") as folder, isolated(replace(run, corpus=_records(source))) as view:
            return Store.open(build(view, Path(folder) / "store", plan), check=False).count

    return once


def _records(source: Path) -> Corpus:
    found = np.load(source)
    rows = np.split(found["ids"], found["starts"][1:-1])
    return Corpus(Record(f"r{i}", features=tuple(row.astype(float).tolist())) for i, row in enumerate(rows))


def ekfac(run: LanguageRun, queries: Corpus) -> Callable[[], Any]:
    """Factors, eigenvalues and `Scores`, from an empty cache."""

    def once() -> Any:
        with isolated(run) as view:
            return method("ekfac").fit(view).attribute(queries)

    return once
