"""Random scores: the floor below which a method knows nothing."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.records import Corpus, require_corpus

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.scores import Scores

_UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Random:
    """Standard normal scores, independent for every (seed, query id, record id) and nothing else.

    A metric that finds signal in them leaks; a share they receive is what chance pays. Works for every task.
    """

    citation: ClassVar[str] = "none: the null hypothesis"
    family: ClassVar[str] = "baseline"
    needs: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "a hash per pair"
    exempt: ClassVar[dict[str, str]] = {"duplicates": "scores depend on the record id, not on its content"}

    seed: int = 0

    def fit(self, run: TrainingRun) -> RandomIndex:
        return RandomIndex(Columns.of(run), self)


@dataclass(frozen=True, eq=False)
class RandomIndex(Pretrained):
    """Nothing but the record ids."""

    columns: Columns
    method: Random

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] N(0, 1), uncalibrated."""
        require_corpus(queries, "queries")
        records = _keys("record", self.columns.train_ids)
        asked = _keys(f"query {self.method.seed}", queries.ids)
        return self.columns.scores([_normal(_mixed(records ^ key)) for key in asked], queries, self.method)

    def save(self, folder: Path) -> None:
        save_index(folder, "random", {}, {"columns": self.columns.plain(), "method": asdict(self.method)})

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> RandomIndex:
        """Read what `save` wrote; raises `Mismatch` for another run, `Corrupt` for changed bytes."""
        columns, _, meta = load_columns(folder, "random", run)
        return RandomIndex(columns, Random(**meta["method"]))


def _keys(salt: str, ids: tuple[str, ...]) -> _UInt64:
    """[n] the first 64 bits of SHA-256 of salt and id."""
    digests = b"".join(hashlib.sha256(f"{salt}\n{name}".encode()).digest()[:8] for name in ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _mixed(state: _UInt64) -> _UInt64:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): a bijection that scatters every input bit."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _normal(bits: _UInt64) -> npt.NDArray[np.float64]:
    """Inverse normal distribution function at (n + 1/2) / 2^52, which lies strictly between 0 and 1."""
    from scipy.special import ndtri

    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    out: npt.NDArray[np.float64] = ndtri(uniform)
    return out
