"""The size of a projection, chosen from the training gradients: no retraining, no look at the queries.

A projection to k features adds noise of variance |x|^2 |y|^2 / k to the inner product of gradients x and y. What it may
add follows from what is there: c, the mean squared cosine between records' gradients once the curvature at the chosen
damping has taken its part (`poa.gradients.damping`). k = 8 / c leaves noise of an eighth of the signal's variance or
less: of a rank correlation with retraining it takes up to a twentieth. Never fewer than 16 features for each of the
2.5 sqrt(N) directions that damped influence leaves to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.gradients.damping import ROOT, chosen
from poa.gradients.store import gradients

if TYPE_CHECKING:
    from poa.gradients.capture import Block
    from poa.protocols import TrainingRun
    from poa.records import Corpus

RULE = "whitened-cosines/1"
# Features for each squared cosine and for each direction.
SIGNAL, MARGIN = 8, 16
# Records between which cosines are taken, and columns of their gradients that are read at a time.
SAMPLE, COLUMNS = 256, 1 << 16
# Copies of a record have a cosine of 1 and say nothing about others: the largest hundredth of the pairs is left out.
COPIES = 0.01
Matrix = npt.NDArray[np.float64]


def sized(size: int | None, run: TrainingRun, side: str = "train", coordinates: str = "adapter") -> tuple[int, Any]:
    """(features, evidence): `size` if given, else the power of two next above what the rule asks for.

    side, coordinates: of the gradients at the final checkpoint, see `poa.gradients.store.gradients`.
    """
    if size is not None:
        _require_count("projection", size)
        return size, {"rule": "given", "size": size}
    wanted, evidence = _wanted(run, side, coordinates)
    found = 1 << int(np.ceil(np.log2(wanted)))
    return found, evidence | {"size": found}


def sided(
    width: int | None, blocks: Sequence[Block], run: TrainingRun, coordinates: str = "adapter"
) -> tuple[int, dict[str, Any]]:
    """(columns a side, evidence): `width` if given, else the least that leaves no more noise than `sized` does.

    Where a layer's inputs or output gradients point the same way in all records, projecting the other side to `width`
    columns has noise of 1/width, whatever the product of both: a layer counts for 1 / (sum of 1/width over the sides
    that are projected), one that is not projected for any number.
    """
    if width is not None:
        _require_count("width", width)
        return width, {"rule": "given", "width": width}
    wanted, evidence = _wanted(run, "train", coordinates)
    whole = max(max(block.shape) for block in blocks)

    def enough(side: int) -> bool:
        projected = [sum(side < wide for wide in block.shape) for block in blocks]
        return sum(side / sides for sides in projected if sides) >= wanted

    found = next((side for side in range(1, whole) if enough(side)), whole)
    size = sum(min(found, block.shape[0]) * min(found, block.shape[1]) for block in blocks)
    return found, evidence | {"width": found, "size": size}


def _require_count(name: str, given: object) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise PoaError(f"{name} is {given!r}, must be 1 or more and a whole number (or none, to have it chosen)")


def _wanted(run: TrainingRun, side: str, coordinates: str) -> tuple[float, dict[str, Any]]:
    records = len(run.corpus)
    cosine = whitened_cosine(run, side, coordinates)
    wanted = max(MARGIN * ROOT * np.sqrt(max(records, 1)), SIGNAL / cosine if cosine else 0.0)
    return wanted, {"rule": RULE, "records": records, "squared_cosine": cosine}


def whitened_cosine(run: TrainingRun, side: str, coordinates: str) -> float:
    """Mean squared cosine of two records' gradients under (F + lambda)^-1, F their Fisher; 0 where there are none."""
    rows = gradients(run, len(run.checkpoints) - 1, run.corpus, side, coordinates).values[_sample(run.corpus)]
    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], COLUMNS):
        part = np.asarray(rows[:, start : start + COLUMNS], np.float64)
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    values = np.clip(values, 0.0, None)
    if len(rows) < 2 or not values.any():
        return 0.0
    lam = chosen(values, len(rows))[0] * values.mean()
    return _trimmed((vectors * (values / (values + lam))) @ vectors.T)


def _sample(corpus: Corpus) -> list[int]:
    """Places of up to `SAMPLE` records, the same ones in the same order whatever the order of the corpus."""
    return sorted(range(len(corpus)), key=lambda place: (corpus[place].digest, corpus[place].id))[:SAMPLE]


def _trimmed(products: Matrix) -> float:
    """Mean squared cosine of pairs, of inner products, without the largest."""
    lengths = np.sqrt(np.clip(np.diag(products), 0.0, None))
    there = lengths > 0
    cosines = products[np.ix_(there, there)] / np.outer(lengths[there], lengths[there])
    pairs = np.sort(cosines[np.triu_indices(len(cosines), 1)] ** 2)
    kept = pairs[: int(np.ceil(len(pairs) * (1 - COPIES)))]
    return float(kept.mean()) if len(kept) else 0.0
