"""StepLog: which records entered which training step, with which effective rate and denominator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class StepLog:
    """One row per optimizer step.

    records: [steps, batch] manifest positions, -1 where a batch was short. rate: [steps] learning rate after the
    schedule. denominator: [steps] by which the summed loss (nats) was divided, so that a stored per-example
    gradient of the *sum* loss can be turned into the one that the optimizer saw. loss: [steps] mean nats per
    supervised token of the batch before the step.
    """

    records: Ints
    rate: Floats
    denominator: Floats
    loss: Floats

    @property
    def steps(self) -> int:
        return int(self.records.shape[0])

    @property
    def digest(self) -> str:
        arrays = (self.records.astype("<i8"), self.rate.astype("<f8"), self.denominator.astype("<f8"))
        return plain_digest([[list(a.shape), sha256(np.ascontiguousarray(a).tobytes())] for a in arrays])

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        save_file(
            {"records": self.records, "rate": self.rate, "denominator": self.denominator, "loss": self.loss}, path
        )

    @staticmethod
    def load(path: Path) -> StepLog:
        from safetensors.numpy import load_file

        return StepLog(**load_file(path))
