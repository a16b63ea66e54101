"""Queries against a store of features: all scores, or the best few by whole numbers with a second look in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, prange

from poa.errors import PoaError
from poa.gradients.encodings import Int8, RankOne

if TYPE_CHECKING:
    from poa.gradients.shards import Store

Features = npt.NDArray[np.float32]
# Rows that are looked at again, for every one that is asked for.
AGAIN = 8
# Features whose products of two bytes cannot leave 32 bits when they are added up.
WIDEST = (2**31 - 1) // 127**2


class Best(NamedTuple):
    """places: [n] positions in the manifest, best first; scores: [n] float32."""

    places: npt.NDArray[np.int64]
    scores: Features


def scores(store: Store, queries: Features) -> Features:
    """[Q, N] inner products, a shard at a time; a byte store is multiplied as floats.

    Many queries share one pass; last digits of a score then depend on how many there are.
    """
    wide = np.ascontiguousarray(queries, np.float32)
    out = np.empty((len(wide), store.count), np.float32)
    start = 0
    for shard in store.shards:
        rows = shard["rows"] if "rows" in shard and shard["rows"].dtype == np.float32 else store.encoding.decode(shard)
        part = out[:, start : start + len(rows)]
        if len(wide) == 1:
            part[0] = rows @ wide[0]
        else:
            np.matmul(wide, rows.T, out=part)
        start += len(rows)
    return out


def top(store: Store, query: Features, count: int) -> Best:
    """The `count` records with the highest inner product with `query` [k].

    int8: products of whole numbers pick `count` x 8 candidates, the float32 query on their decoded rows orders them.
    rank1: u^T Q v layer by layer. float32 and float16: all scores.
    """
    if count < 1:
        raise PoaError(f"the best {count} of a store: must be 1 or more")
    wide = np.ascontiguousarray(query, np.float32)
    if wide.shape != (store.width,):
        raise PoaError(f"a query of shape {wide.shape} against features of {store.width}")
    if isinstance(store.encoding, Int8) and store.width <= WIDEST:
        return _by_bytes(store, wide, count)
    if isinstance(store.encoding, RankOne):
        return _best(_by_pairs(store, store.encoding, wide), count)
    return _best(scores(store, wide[None])[0], count)


def _best(values: Features, count: int) -> Best:
    kept = min(count, len(values))
    near = np.argpartition(-values, kept - 1)[:kept]
    order = near[np.lexsort((near, -values[near]))]
    return Best(order.astype(np.int64), values[order])


def _by_bytes(store: Store, query: Features, count: int) -> Best:
    largest = float(np.abs(query).max())
    small = np.rint(query * (127 / largest if largest else 1.0)).astype(np.int16)
    coarse = np.empty(store.count, np.float32)
    start = 0
    for shard in store.shards:
        part = coarse[start : start + len(shard["rows"])]
        byte_products(shard["rows"], small, shard["scales"], part)
        start += len(part)
    near = np.sort(_best(coarse, AGAIN * count).places)
    fine = np.concatenate([row @ query for row in _decoded(store, near)])
    order = np.lexsort((near, -fine))[:count]
    return Best(near[order], fine[order])


def _decoded(store: Store, places: npt.NDArray[np.int64]) -> list[Features]:
    """Rows [n_s, k] at ascending `places`, per shard."""
    out: list[Features] = []
    start = 0
    for shard in store.shards:
        size = len(shard["rows"])
        here = places[(places >= start) & (places < start + size)] - start
        out.append(store.encoding.decode({name: array[here] for name, array in shard.items()}))
        start += size
    return out


def _by_pairs(store: Store, pairs: RankOne, query: Features) -> Features:
    out = np.zeros(store.count, np.float32)
    start = 0
    for shard in store.shards:
        part = out[start : start + len(shard["left"])]
        left, right = shard["left"].astype(np.float32), shard["right"].astype(np.float32)
        a = b = at = 0
        for rows, columns in pairs.shapes:
            matrix = query[at : at + rows * columns].reshape(rows, columns)
            part += ((left[:, a : a + rows] @ matrix) * right[:, b : b + columns]).sum(1)
            a, b, at = a + rows, b + columns, at + rows * columns
        start += len(part)
    return out


@njit(cache=True, nogil=True, parallel=True)
def byte_products(rows: Any, query: Any, scales: Any, out: Any) -> None:  # pragma: no cover - compiled
    """out[i] = scales[i] sum_j rows[i, j] query[j] in 32-bit whole numbers; rows int8, query int16 within a byte.

    On as many threads as numba has; whole numbers add up to the same in any order.
    """
    for i in prange(rows.shape[0]):
        total = np.int32(0)
        for j in range(rows.shape[1]):
            # kept 32 bits wide at every step: numba would widen, and half as many fit a register
            total = np.int32(total + np.int32(np.int32(rows[i, j]) * np.int32(query[j])))
        out[i] = np.float32(total) * scales[i]
