"""Pictures of scores, truth and cost: each function draws on a matplotlib Axes, returns it and shows nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.correlation import spearman_rows
from poa.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from poa.evaluation.contributors import ContributorTruth


@dataclass(frozen=True)
class Measured:
    """What a method cost and how well it agreed with retraining: seconds, mean rank correlation and its interval."""

    seconds: float
    value: float
    low: float
    high: float


def agreement(scores: Mapping[str, Scores], by: str | None = "payee") -> npt.NDArray[np.float64]:
    """[methods, methods] mean over queries of the Spearman correlation between every two methods.

    `by` rolls scores up first (signed sums per label); None compares records. A query for which a method gives
    everybody the same score counts as 0. Raises `PoaError` where queries or train columns differ.
    """
    if not scores:
        raise PoaError("agreement needs the scores of at least one method")
    rolled = {name: found if by is None else found.by(by) for name, found in scores.items()}
    first, *others = rolled
    for other in others:
        if rolled[other].query_ids != rolled[first].query_ids or rolled[other].train_ids != rolled[first].train_ids:
            raise PoaError(f"scores of {other!r} and {first!r} are about other queries or columns")
    values = [np.asarray(found.values, np.float64) for found in rolled.values()]
    return np.asarray([[spearman_rows(a, b).mean() for b in values] for a in values])


def agreement_matrix(scores: Mapping[str, Scores], by: str | None = "payee", ax: Axes | None = None) -> Axes:
    """Heat map of `agreement`, from -1 to 1, with the numbers in the cells."""
    table = agreement(scores, by)
    ax = ax or _axes(1.8 + 0.62 * len(table), 1.4 + 0.58 * len(table))
    ax.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.set_xticks(range(len(table)), list(scores), rotation=40, ha="right")
    ax.set_yticks(range(len(table)), list(scores))
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            # Both ends of the colour map are dark.
            ink = "white" if abs(value) > 0.65 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_title(f"mean rank correlation per query, {'records' if by is None else f'sums per {by}'}", fontsize=10)
    return ax


def predicted_vs_truth(scores: Scores, truth: ContributorTruth, ax: Axes | None = None) -> Axes:
    """One point per query and contributor: change after retraining (nats) over the score, and the fitted slope.

    The line is least squares through the origin, the slope by which scores become nats. Error bars are one standard
    error over seeds, left out with a single seed.
    """
    predicted, true = truth.aligned(scores).ravel(), truth.mean.ravel()
    slope, interval = truth.slope(scores), truth.agreement(scores)
    ax = ax or _axes(4.2, 3.6)
    errors = truth.stderr.ravel() if len(truth.seeds) > 1 else None
    ax.errorbar(predicted, true, errors, fmt="o", ms=3, lw=0.6, color="#2f5d8a", ecolor="#b9c7d6")
    ends = np.asarray([predicted.min(), predicted.max()])
    ax.plot(ends, slope * ends, color="#b5482f", lw=1.2, label=f"slope {slope:.3g} nats per unit")
    ax.axhline(0, color="#cccccc", lw=0.6, zorder=0)
    ax.axvline(0, color="#cccccc", lw=0.6, zorder=0)
    ax.set_xlabel(f"predicted: {scores.method.split('(')[0]} ({scores.unit})")
    ax.set_ylabel("retraining without the contributor (nats)")
    ax.set_title(f"rank correlation per query {interval}", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    return ax


def cost_vs_fidelity(methods: Mapping[str, Measured], ax: Axes | None = None) -> Axes:
    """One point per method: seconds (logarithmic) against agreement with retraining, with its interval."""
    if not methods:
        raise PoaError("cost_vs_fidelity needs at least one method")
    for name, found in methods.items():
        if not found.seconds > 0:
            raise PoaError(f"method {name!r} took {found.seconds} s; a logarithmic axis needs more than 0")
    ax = ax or _axes(5.2, 3.6)
    for name, found in methods.items():
        ends = [[found.value - found.low], [found.high - found.value]]
        ax.errorbar([found.seconds], [found.value], ends, fmt="o", ms=4, lw=0.8, color="#2f5d8a", ecolor="#b9c7d6")
        ax.annotate(name, (found.seconds, found.value), xytext=(5, 3), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    ax.axhline(0, color="#cccccc", lw=0.6, zorder=0)
    ax.set_xlabel("seconds to prepare and score")
    ax.set_ylabel("rank correlation with retraining")
    return ax


def _axes(width: float, height: float) -> Axes:
    from matplotlib import pyplot

    _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
    return ax
