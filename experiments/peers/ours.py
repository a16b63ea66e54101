"""poa's side of the timings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from language import LanguageRun
from poa.conformance import isolated
from poa.methods import method
from poa.records import Corpus


class Absent(Exception):
    """This version of poa has no such thing; the message says what."""


def fit(run: LanguageRun) -> Callable[[], object]:
    """Features of every record in a store on disk, 16 columns a side and layer."""
    raise Absent("poa.gradients has no feature store")


def ekfac(run: LanguageRun, queries: Corpus) -> Callable[[], Any]:
    """Factors, eigenvalues and scores [query, train], from an empty cache."""

    def once() -> Any:
        with isolated(run) as view:
            return method("ekfac", damping=0.1).fit(view).attribute(queries).values

    return once
