"""A column of strings as two arrays, so that a table of millions opens without being read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Strings:
    """data: uint8, the UTF-8 bytes of all strings one after another; ends: int64[k], where each one ends."""

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @staticmethod
    def of(values: Iterable[str]) -> Strings:
        encoded = [value.encode() for value in values]
        ends = np.cumsum([len(value) for value in encoded], dtype=np.int64)
        return Strings(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return int(self.ends.size)

    def __getitem__(self, i: int) -> str:
        start = int(self.ends[i - 1]) if i else 0
        return self.data[start : int(self.ends[i])].tobytes().decode()

    def problem(self) -> str | None:
        """The reason why these arrays are no column of strings, or None."""
        borders: npt.NDArray[Any] = np.concatenate([np.zeros(1, np.int64), self.ends])
        if borders[-1] != self.data.size or bool((np.diff(borders) < 0).any()):
            return "its ends do not cut its bytes into strings"
        try:
            for i in range(len(self)):
                _ = self[i]
        except UnicodeDecodeError:
            return "it holds bytes that are no UTF-8"
        return None
