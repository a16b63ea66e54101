"""Laws of invariance: what must not matter to a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from poa.conformance.law import require, require_close, require_same_bytes, rounding
from poa.conformance.views import duplicated, isolated, permuted

if TYPE_CHECKING:
    from poa.protocols import Attributor, TrainingRun
    from poa.records import Corpus
    from poa.scores import Scores

_SEED = 20_240_229


def _scores(method: Attributor, run: TrainingRun, queries: Corpus) -> Scores:
    with isolated(run) as view:
        return method.fit(view).attribute(queries)


def determinism(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Fitting and attributing twice, each from an empty cache, gives the same bytes; so does asking an index twice."""
    first = _scores(method, run, queries)
    require_same_bytes(_scores(method, run, queries), first, "second fit")
    with isolated(run) as view:
        warm = method.fit(view)
        require_same_bytes(warm.attribute(queries), first, "third fit")
        require_same_bytes(warm.attribute(queries), first, "same index asked again")
        require_same_bytes(method.fit(view).attribute(queries), first, "fit from a warm cache")


def query_batching(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A query's row does not depend on the queries asked with it."""
    with isolated(run) as view:
        index = method.fit(view)
        whole = index.attribute(queries)
        cut = len(queries) // 2
        for first, last in ((0, cut), (cut, len(queries)), (0, 1), (len(queries) - 1, len(queries))):
            part = index.attribute(queries[first:last])
            require_same_bytes(part, whole.select(range(first, last)), f"queries {first}:{last} asked alone")


def query_permutation(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Permuting the queries permutes the rows and nothing else."""
    order = np.random.default_rng(_SEED).permutation(len(queries))
    with isolated(run) as view:
        index = method.fit(view)
        require_same_bytes(
            index.attribute(queries.take(order)), index.attribute(queries).select(order.tolist()), "permuted queries"
        )


def train_permutation(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Permuting the manifest under the same weights and steps permutes the columns and nothing else."""
    order = np.random.default_rng(_SEED).permutation(len(run.corpus))
    with isolated(run) as view:
        # One cache for both, so that an entry which does not name its run is found out.
        expected = method.fit(view).attribute(queries)
        found = method.fit(permuted(view, order)).attribute(queries)
    require(found.train_ids == tuple(expected.train_ids[i] for i in order), "train ids are not in the new order")
    require_close(found.values, expected.values[:, order], rounding(run), "permuted manifest")


def duplicates(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A record that is in the manifest twice, in the same steps, has the same score both times."""
    for position in sorted({0, len(run.corpus) // 2}):
        with isolated(run) as view:
            found = method.fit(duplicated(view, position, "conformance-duplicate")).attribute(queries)
        copy, original = found.values[:, -1:], found.values[:, position : position + 1]
        # The row's largest score is the scale: a duplicate of a tiny score may differ by the rounding of large ones.
        scale = np.abs(found.values).max(axis=1, keepdims=True)
        far = ~(np.abs(copy - original) <= rounding(run) * scale)
        at = int(far.argmax())
        require(
            not bool(far.any()),
            f"record {found.train_ids[position]!r} scores {float(original[at, 0])!r}, its duplicate "
            f"{float(copy[at, 0])!r} for query {found.query_ids[at]!r}",
        )


def conservation(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Summing records into contributors neither makes nor loses score."""
    scores = _scores(method, run, queries)
    total = scores.values.astype(np.float64).sum(axis=1)
    for group in run.groups:
        summed = scores.by(group).values.sum(axis=1)
        scale = np.abs(scores.values.astype(np.float64)).sum(axis=1)
        far = ~(np.abs(summed - total) <= 1e-9 * scale)
        at = int(far.argmax())
        require(not bool(far.any()), f"by({group!r}) sums to {float(summed[at])!r}, records to {float(total[at])!r}")
