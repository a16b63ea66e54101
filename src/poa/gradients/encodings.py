"""How rows of features are written to disk: as they are, in half precision, as bytes, or by rank one a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.gradients.capture import Block

Rows = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]
SCALE_BITS = 16


class Encoding(Protocol):
    """Rows [n, k] to arrays of first axis n and back; a row's bytes depend on that row alone."""

    @property
    def name(self) -> str: ...

    def encode(self, rows: Rows) -> Arrays: ...

    def decode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows: ...


@dataclass(frozen=True)
class Plain:
    """float32 or float16. Half precision refuses what it cannot hold."""

    name: str

    def encode(self, rows: Rows) -> Arrays:
        with np.errstate(over="ignore"):
            out = rows.astype(self.name)
        if not np.isfinite(out).all():
            raise PoaError(f"a feature of {np.abs(rows).max():.3g} does not fit {self.name}: use float32 or int8")
        return {"rows": out}

    def decode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
        return np.asarray(arrays["rows"], np.float32)


@dataclass(frozen=True)
class Int8:
    """A byte a feature, in two arrays of half bytes: feature = scale x byte, scale = largest magnitude / 127.

    high: [n, b] the upper halves plus 8, which a first look reads alone; low: [n, b] the lower halves; b = k / 2
    rounded up to an even number. Byte j of either holds features j (bits 0 to 3) and j + b. The row's scale, a bfloat16
    rounded up, lies in the lowest bits of the first 16 features, so that a row takes a quarter of its float32 bytes and
    not more.
    """

    width: int
    name: str = "int8"

    def __post_init__(self) -> None:
        if self.width < 2 * SCALE_BITS:
            raise PoaError(f"{self.width} features a record are too few for int8: use float32")

    def encode(self, rows: Rows) -> Arrays:
        if not np.isfinite(rows).all():
            raise PoaError("a feature is not finite: it has no byte")
        words = _rounded_up((np.abs(rows).max(1) / 127).astype(np.float32))
        exact = rows / np.maximum(_widened(words), np.finfo(np.float32).tiny)[:, None]
        whole = np.rint(exact).clip(-127, 127)
        bits = (words[:, None] >> np.arange(SCALE_BITS, dtype=np.uint16)) & 1
        marked = bits + 2 * np.rint((exact[:, :SCALE_BITS] - bits) / 2)  # the nearest whole number with that bit
        whole[:, :SCALE_BITS] = marked.clip(-126 - bits.astype(int), 126 + bits)
        bytes_ = whole.astype(np.int8)
        return {"high": _packed(((bytes_ >> 4) + 8).astype(np.uint8)), "low": _packed((bytes_ & 15).astype(np.uint8))}

    def decode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
        whole = np.concatenate(_joined(arrays["high"], arrays["low"]), 1).view(np.int8)
        return whole[:, : self.width].astype(np.float32) * self.scales(arrays["low"])[:, None]

    def scales(self, low: npt.NDArray[np.uint8]) -> Rows:
        """[n] of rows whose lower halves are `low`."""
        bits = (low[:, :SCALE_BITS] & 1).astype(np.uint16) << np.arange(SCALE_BITS, dtype=np.uint16)
        return _widened(bits.sum(1, dtype=np.uint16))


def _rounded_up(values: Rows) -> npt.NDArray[np.uint16]:
    """The upper halves of the smallest bfloat16 numbers that are not below `values` >= 0."""
    return ((values.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)).astype(np.uint16)


def _widened(words: npt.NDArray[np.uint16]) -> Rows:
    return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _packed(halves: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[n, k] numbers of 4 bits to [n, b] bytes, b even: a first look reads them two by two."""
    half = (halves.shape[1] + 3) // 4 * 2
    out = halves[:, :half].copy()
    out[:, : halves.shape[1] - half] |= halves[:, half:] << 4
    return out


def _joined(high: npt.NDArray[np.uint8], low: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], ...]:
    """The bytes of the first and of the second half of the features; 16 (h - 8) + l is h and l, highest bit flipped."""
    four, flip = np.uint8(4), np.uint8(128)
    return ((high << four) | (low & np.uint8(15))) ^ flip, ((high & np.uint8(240)) | (low >> four)) ^ flip


@dataclass(frozen=True)
class RankOne:
    """Each layer's matrix of features [out, in] as u v^T, its leading singular pair, in half precision (LoRIF).

    Exact for records of one token. `shapes`: (out, in) per layer, in order. |u| = |v|, so that both fit.
    """

    shapes: tuple[tuple[int, int], ...]
    name: str = "rank1"

    def encode(self, rows: Rows) -> Arrays:
        if rows.shape[1] != sum(a * b for a, b in self.shapes):
            raise PoaError(f"rows of {rows.shape[1]} features are not layers of shapes {self.shapes}")
        pairs = [leading(part) for part in self._layers(rows)]
        with np.errstate(over="ignore"):
            left = np.concatenate([u for u, _ in pairs], 1).astype(np.float16)
            right = np.concatenate([v for _, v in pairs], 1).astype(np.float16)
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise PoaError("features are too large for half precision: use int8")
        return {"left": left, "right": right}

    def decode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
        left, right = arrays["left"].astype(np.float32), arrays["right"].astype(np.float32)
        parts: list[Rows] = []
        i = j = 0
        for out, into in self.shapes:
            parts.append(np.einsum("na,nb->nab", left[:, i : i + out], right[:, j : j + into]).reshape(len(left), -1))
            i, j = i + out, j + into
        return np.concatenate(parts, 1)

    def _layers(self, rows: Rows) -> list[Rows]:
        ends = np.cumsum([a * b for a, b in self.shapes])
        parts = np.split(rows, ends[:-1], axis=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]


def leading(matrices: Rows) -> tuple[Rows, Rows]:
    """(u [n, a], v [n, b]) with u v^T nearest to each of `matrices` [n, a, b].

    |u| = |v|; the sign makes the largest entry of u positive. Each matrix is decomposed by itself.
    """
    lefts, values, rights = np.linalg.svd(matrices.astype(np.float64), full_matrices=False)
    root = np.sqrt(values[:, :1])
    u, v = lefts[:, :, 0] * root, rights[:, 0] * root
    largest = np.take_along_axis(u, np.abs(u).argmax(1)[:, None], 1)
    sign = np.where(largest < 0, -1.0, 1.0)
    with np.errstate(over="ignore"):
        return (sign * u).astype(np.float32), (sign * v).astype(np.float32)


def encoding(name: str, blocks: Sequence[Block]) -> Encoding:
    """The encoding `name` for features laid out as `blocks`."""
    if name in ("float32", "float16"):
        return Plain(name)
    if name == "int8":
        return Int8(blocks[-1].stop)
    if name == "rank1":
        return RankOne(tuple(block.shape for block in blocks))
    raise PoaError(f"encoding is {name!r}, must be float32, float16, int8 or rank1")
