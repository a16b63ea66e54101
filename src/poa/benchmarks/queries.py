"""Queries against a store of 100,000 x 4,096 features: over reading it, over a product of matrices, and by bytes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import sleep

import numpy as np
import numpy.typing as npt

from poa.benchmarks import Figures, interleave, wall
from poa.digests import file_digest
from poa.gradients.capture import Block
from poa.gradients.encodings import Plain, encoding
from poa.gradients.search import scores, top
from poa.gradients.shards import MANIFEST, Store, seal
from poa.progress import track

ROWS, WIDTH, SHARD, QUERIES = 100_000, 4096, 4096, 64
Features = npt.NDArray[np.float32]


def run(rows: int = ROWS, width: int = WIDTH, rounds: int = 25) -> Figures:
    """Ratios on all cores, the same number of threads on both sides of each.

    Features are normal numbers with a spectrum that falls as a power law, turned at random: gradients are neither
    isotropic nor sorted. Pages are in memory when anything is timed.
    """
    with tempfile.TemporaryDirectory(prefix="poa-queries-") as folder:
        plain, small, asked = _stores(Path(folder), rows, width)
        ways = {
            "query1_over_read": (lambda: scores(plain, asked[:1]), _reading(plain)),
            "query64_over_gemm": (_product(plain, asked), lambda: scores(plain, asked)),
            "compact_speedup": (lambda: top(plain, asked[0], 10), lambda: top(small, asked[0], 10)),
        }
        ratios = {name: interleave(a, b, rounds, _rested) for name, (a, b) in ways.items()}
        recall = [_recall(plain, small, query) for query in asked]
        found = median(_rested(lambda query=query: top(small, query, 10)) for query in asked)
        others = {
            "compact_recall10": float(np.mean(recall)),
            "compact_bytes": small.bytes / plain.bytes,
            "compact_p50_ms": 1000 * found,
        }
    named = {f"queries.{name}": ratio for name, ratio in ratios.items()}
    return Figures(
        {name: ratio.median for name, ratio in named.items()} | {f"queries.{k}": v for k, v in others.items()},
        {name: (ratio.low, ratio.high) for name, ratio in named.items()},
    )


def _rested(call: Callable[[], object]) -> float:
    """Seconds of a call that finds the cores idle: threads of a BLAS spin for some 20 ms after the last product."""
    sleep(0.1)
    return wall(call)


def _stores(folder: Path, rows: int, width: int) -> tuple[Store, Store, Features]:
    """The same features as float32 and as bytes, and queries of the same distribution."""
    blocks = (Block("features", 0, width, (1, width)),)
    rng = np.random.default_rng(0)
    spectrum = (1 + np.arange(width)) ** -0.5
    turned = np.linalg.qr(rng.standard_normal((width, width)))[0] * spectrum
    mixing: Features = np.ascontiguousarray(turned.T, np.float32) * np.float32(np.sqrt(width))
    stores = {name: folder / name for name in ("float32", "int8")}
    for number, start in enumerate(track(range(0, rows, SHARD), "features", -(-rows // SHARD))):
        part = _drawn(rng, min(SHARD, rows - start), mixing)
        for name, place in stores.items():
            _write(place / f"shard-{number:05d}", encoding(name, blocks).encode(part))
    asked = _drawn(rng, QUERIES, mixing)
    opened = [_sealed(place, name, rows, blocks) for name, place in stores.items()]
    return opened[0], opened[1], asked


def _drawn(rng: np.random.Generator, count: int, mixing: Features) -> Features:
    return np.asarray(rng.standard_normal((count, len(mixing)), dtype=np.float32) @ mixing, np.float32)


def _write(place: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    place.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
    files = {path.name: file_digest(path) for path in sorted(place.glob("*.npy"))}
    (place / MANIFEST).write_text(json.dumps({"identity": "benchmark", "files": files}))


def _sealed(place: Path, name: str, rows: int, blocks: tuple[Block, ...]) -> Store:
    digests = [file_digest(path / MANIFEST) for path in sorted(place.glob("shard-*"))]
    told = [[b.name, b.start, b.stop, list(b.shape)] for b in blocks]
    seal(place, {"run": "benchmark", "encoding": name, "count": rows, "shards": len(digests), "blocks": told}, digests)
    return Store.open(place)


def _reading(store: Store) -> Callable[[], object]:
    """Reads every byte of the store's files once, as a program would that does nothing else with them."""
    paths = sorted(store.folder.glob("shard-*/*.npy"))
    buffer = memoryview(bytearray(8 << 20))

    def read() -> int:
        total = 0
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    total += count
        return total

    return read


def _product(store: Store, queries: Features) -> Callable[[], object]:
    """The same product from memory, shard by shard."""
    assert isinstance(store.encoding, Plain)
    parts = [np.array(shard["rows"]) for shard in store.shards]
    out = np.empty((len(queries), max(map(len, parts))), np.float32)

    def multiply() -> None:
        for part in parts:
            np.matmul(queries, part.T, out=out[:, : len(part)])

    return multiply


def _recall(exact: Store, other: Store, query: Features) -> float:
    """Share of the ten best that are found."""
    return len(set(top(exact, query, 10).places) & set(top(other, query, 10).places)) / 10
