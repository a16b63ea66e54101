"""Exact values of contributors by training on every coalition: Shapley and Banzhaf, and shares of a pool."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.evaluation.contributors import ContributorTruth
from poa.factory.counterfactual import retrain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poa.factory.classifier import ClassifierRun
    from poa.factory.run import LoRARun
    from poa.records import Corpus

Array = npt.NDArray[np.floating[Any]]
MOST = 12


def coalitions(players: int) -> npt.NDArray[np.bool_]:
    """[2^n, n] in the order of binary numbers, player 0 the lowest bit."""
    if not 1 <= players <= MOST:
        raise PoaError(f"{players} contributors make 2^{players} trainings; group them to at most {MOST}")
    return (np.arange(1 << players)[:, None] >> np.arange(players)) % 2 == 1


def shapley(values: Array) -> Array:
    """[n, ...] Shapley value of each player; values [2^n, ...] of coalitions in the order of `coalitions`.

    phi_c = sum over S without c of |S|! (n-1-|S|)! / n! (v(S + c) - v(S)); they add up to v(all) - v(none).
    """
    players = _players(values)
    by_size = np.asarray([1 / (players * comb(players - 1, size)) for size in range(players)])
    return _marginals(values, by_size)


def banzhaf(values: Array) -> Array:
    """[n, ...] mean over the coalitions without a player of what it adds to them (Wang and Jia 2023, 2205.15466)."""
    players = _players(values)
    return _marginals(values, np.full(players, 0.5 ** (players - 1)))


def _players(values: Array) -> int:
    players = len(values).bit_length() - 1
    if len(values) != 1 << players:
        raise PoaError(f"there are {len(values)} coalitions, must be a power of two")
    return players


def _marginals(values: Array, by_size: Array) -> Array:
    """[n, ...] gains of each player, weighted by the size of the coalition that it joins."""
    inside = coalitions(_players(values))
    out: list[Array] = []
    for player, member in enumerate(inside.T):
        without = np.flatnonzero(~member)
        gains = values[without + (1 << player)] - values[without]
        out.append(np.tensordot(by_size[inside[without].sum(1)], gains, 1))
    return np.stack(out)


def exact_shapley(
    run: LoRARun | ClassifierRun, queries: Corpus, seeds: Sequence[int] = (0, 1), value: Any = shapley
) -> ContributorTruth:
    """effects[seed, query, contributor]: the Shapley value (or `value=banzhaf`) of every payee by 2^n trainings a seed.

    Coalitions are masks: records of others have weight 0. Without anybody the start itself is measured.
    """
    payees = np.asarray(run.groups["payee"])
    names = tuple(sorted(set(run.groups["payee"])))
    weights = coalitions(len(names))[:, [names.index(payee) for payee in payees]].astype(np.float64)
    measured = retrain(run, weights, queries, seeds)
    effects = np.stack([value(found) for found in measured]).transpose(0, 2, 1)
    return ContributorTruth(effects, measured[:, -1], names, queries.ids, tuple(seeds))


def shares(effects: Array) -> Array:
    """[contributor] fractions of a pool: the positive part of the sum over queries of effects [query, contributor]."""
    paid = np.maximum(effects.sum(0), 0.0)
    return paid / paid.sum() if paid.sum() > 0 else paid


def payout_error(predicted: Array, truth: Array) -> float:
    """Total variation between the shares of two [query, contributor] tables: what part of the pool goes elsewhere."""
    return float(np.abs(shares(predicted) - shares(truth)).sum() / 2)
