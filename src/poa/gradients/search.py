"""Queries against a store of features: all scores, or the best few by whole numbers with a second look in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from poa.errors import PoaError
from poa.gradients.encodings import Int8, RankOne

if TYPE_CHECKING:
    from poa.gradients.shards import Store

Features = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
# Rows that are looked at again, for every one that is asked for.
AGAIN = 16
# Largest magnitude of a query's whole numbers, and words of four half bytes whose products with them cannot leave 16
# bits when they are added up.
LARGEST, BLOCK = 7, 64


class Best(NamedTuple):
    """places: [n] positions in the manifest, best first; scores: [n] float32."""

    places: Places
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

    int8: products of the upper halves of bytes with a query of 4 bits pick `count` x 16 candidates, the float32 query
    on their decoded rows orders them.
    rank1: u^T Q v layer by layer. float32 and float16: all scores.
    """
    if count < 1:
        raise PoaError(f"the best {count} of a store: must be 1 or more")
    wide = np.ascontiguousarray(query, np.float32)
    if wide.shape != (store.width,):
        raise PoaError(f"a query of shape {wide.shape} against features of {store.width}")
    if not np.isfinite(wide).all():
        raise PoaError("a query with nan or infinite features has no nearest records")
    if isinstance(store.encoding, Int8):
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
    """Candidates of every shard by whole numbers, on as many threads as torch has; then the best of all, in floats."""
    largest = float(np.abs(query).max())
    small = np.zeros(2 * store.shards[0]["high"].shape[1], np.int16)
    small[: len(query)] = np.rint(query * (LARGEST / largest if largest else 1.0))
    a, b, c, d = (np.ascontiguousarray(part[at::2]) for at in (0, 1) for part in np.split(small, 2))
    # a byte is 16 (upper half - 8) + a lower half, 7.5 of which is expected
    offset = np.float32(7.5 / 16 - 8) * np.float32(small.sum(dtype=np.int64))
    starts = np.cumsum([0, *(len(scales) for scales in store.scales)])

    def candidates(number: int) -> Best:
        coarse = np.empty(len(store.scales[number]), np.float32)
        half_products(store.shards[number]["high"].view(np.uint16), a, b, c, d, coarse)
        near = _best((coarse + offset) * store.scales[number], AGAIN * count)
        return Best(near.places + starts[number], near.scores)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = list(pool.map(candidates, range(len(store.shards))))
    places = np.concatenate([part.places for part in found])
    near = np.sort(places[_best(np.concatenate([part.scores for part in found]), AGAIN * count).places])
    fine = _looked_at_again(store, near, starts, query)
    order = np.lexsort((near, -fine))[:count]
    return Best(near[order], fine[order])


def _looked_at_again(store: Store, places: Places, starts: Places, query: Features) -> Features:
    """Products of `query` with the whole bytes at ascending `places`, of a store whose shards begin at `starts`."""
    halves = np.zeros(2 * store.shards[0]["high"].shape[1], np.float32)
    halves[: len(query)] = query
    first, second = np.split(halves, 2)
    out = np.empty(len(places), np.float32)
    edges = np.searchsorted(places, starts)
    for number in np.flatnonzero(np.diff(edges)):
        part = slice(edges[number], edges[number + 1])
        shard, here = store.shards[number], places[part] - starts[number]
        byte_products(shard["high"], shard["low"], here, first, second, out[part])
        out[part] *= store.scales[number][here]
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


@njit(cache=True, nogil=True)
def half_products(words: Any, a: Any, b: Any, c: Any, d: Any, out: Any) -> None:  # pragma: no cover - compiled
    """out[i] = sum_j over the four half bytes of words[i, j], lowest first, times a[j], b[j], c[j], d[j].

    words uint16, queries int16 within LARGEST. Sums of a block stay 16 bits wide, so that twice as many fit a register
    as of 32 bits. Other threads run meanwhile.
    """
    short, word, low = np.int16, np.uint16, np.uint16(15)
    count, width = words.shape
    whole = width // BLOCK * BLOCK
    for i in range(count):
        total = np.int64(0)
        for start in range(0, whole, BLOCK):
            part = short(0)
            for j in range(BLOCK):  # every step is cast: numba would widen; an index of its own is not vectorised
                four = words[i, start + j]
                first = short(short(word(four & low)) * a[start + j])
                second = short(short(word(word(four >> word(4)) & low)) * b[start + j])
                third = short(short(word(word(four >> word(8)) & low)) * c[start + j])
                fourth = short(short(word(four >> word(12))) * d[start + j])
                part = short(part + short(short(first + second) + short(third + fourth)))
            total += part
        for j in range(whole, width):
            four = np.int64(words[i, j])
            total += (four & 15) * a[j] + ((four >> 4) & 15) * b[j] + ((four >> 8) & 15) * c[j] + (four >> 12) * d[j]
        out[i] = total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def byte_products(high: Any, low: Any, places: Any, first: Any, second: Any, out: Any) -> None:  # pragma: no cover
    """out[i] = the query times the bytes of row places[i], joined from their halves (see `encodings.Int8`)."""
    for i, at in enumerate(places):
        total = np.float32(0)
        for j in range(high.shape[1]):
            above, below = np.int32(high[at, j]), np.int32(low[at, j])
            total += np.float32(np.int32(((above & 15) << 4) + (below & 15) - 128)) * first[j]
            total += np.float32(np.int32((above & 240) + (below >> 4) - 128)) * second[j]
        out[i] = total
