"""An ensemble of indexes: the mean of their scores, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poa.digests import plain_digest
from poa.errors import Mismatch, PoaError
from poa.protocols import Index
from poa.records import Corpus
from poa.scores import Scores


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Indexes of runs on the same records (other seeds, for example), asked together.

    Scores are the mean over members, with the standard error of that mean. What happens on average over seeds is what
    a contributor should be paid for; the scores of one run pay partly for its luck.
    """

    members: tuple[Index, ...]

    def __init__(self, members: Sequence[Index]) -> None:
        if not members:
            raise PoaError("an ensemble needs at least one index")
        object.__setattr__(self, "members", tuple(members))

    @property
    def run_digest(self) -> str:
        """Of all members' runs, in order."""
        return plain_digest([member.run_digest for member in self.members])

    def attribute(self, queries: Corpus, by: str | None = None) -> Scores:
        """Mean scores, of single records or of the groups `by` ("contributor", ...).

        Standard errors of groups are those of the members' sums. `Scores.by` cannot know them: the records of a group
        move together from one member to the next, and it adds their errors as if they did not. Raises `Mismatch`
        where members differ in training records or unit.
        """
        found = [member.attribute(queries) for member in self.members]
        found = found if by is None else [scores.by(by) for scores in found]
        meta = {"run": self.run_digest, "members": [dict(scores.meta) for scores in found]}
        return replace(pooled(found), meta=meta)


def pooled(found: Sequence[Scores]) -> Scores:
    """Mean of several tables with its standard error (none of a single one), without their notes.

    Raises `Mismatch` where tables differ in training records or unit.
    """
    if not found:
        raise PoaError("there are no scores to take the mean of")
    first = found[0]
    for other in found[1:]:
        if other.query_ids != first.query_ids:
            raise Mismatch("the members of an ensemble must score the same queries in the same order")
        if other.train_ids != first.train_ids:
            raise Mismatch("the members of an ensemble must score the same training records in the same order")
        if other.unit != first.unit:
            raise Mismatch(f"members of an ensemble score in {first.unit} and {other.unit}: calibrate them first")
    values = np.stack([scores.values for scores in found]).astype(np.float64)
    count = len(found)
    stderr = values.std(0, ddof=1) / np.sqrt(count) if count > 1 else None
    method = f"Ensemble({', '.join(sorted({scores.method for scores in found}))}, members={count})"
    return replace(first, values=values.mean(0), stderr=stderr, method=method, meta={})
