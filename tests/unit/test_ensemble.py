"""Ensembles: means over members, and errors of groups that know what members have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.ensemble import Ensemble, pooled
from poa.errors import Mismatch, PoaError
from poa.records import Corpus, Record
from poa.scores import Scores

QUERIES = Corpus([Record("q0", text="one"), Record("q1", text="two")])
GROUPS = {"contributor": ("a",) * 5 + ("b",) * 5}


@dataclass(frozen=True)
class Fixed:
    """An index whose answers are given."""

    values: Any
    run_digest: str = "r"

    def attribute(self, queries: Corpus) -> Scores:
        return Scores(self.values, queries.ids, tuple(f"t{i}" for i in range(10)), GROUPS)

    def save(self, folder: str | Path) -> None:
        raise NotImplementedError


def lucky(members: int) -> Ensemble:
    """Members whose luck all records share."""
    rng = np.random.default_rng(0)
    return Ensemble([Fixed(1.0 + rng.normal(size=(2, 1)) + 0.01 * rng.normal(size=(2, 10))) for _ in range(members)])


def test_errors_of_groups_are_those_of_the_members_sums() -> None:
    ensemble = lucky(6)
    found = ensemble.attribute(QUERIES, by="contributor")
    sums = np.stack([member.attribute(QUERIES).by("contributor").values for member in ensemble.members])
    np.testing.assert_allclose(found.values, sums.mean(0))
    assert found.stderr is not None
    np.testing.assert_allclose(found.stderr, sums.std(0, ddof=1) / np.sqrt(6))
    apart = ensemble.attribute(QUERIES).by("contributor")
    assert apart.stderr is not None
    assert (found.stderr > 2 * apart.stderr).all()  # five records that move together: sqrt(5) times


def test_members_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(PoaError, match="no scores to take the mean of"):
        pooled([])
    one = Fixed(np.ones((2, 10))).attribute(QUERIES)
    with pytest.raises(Mismatch, match="the same queries"):
        pooled([one, replace(one, query_ids=("q1", "q0"))])
