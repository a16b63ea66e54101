"""LoRARun: a finished fine-tune on disk, satisfying the TrainingRun protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from poa.digests import file_digest, plain_digest
from poa.errors import Corrupt, PoaError, Unsupported
from poa.factory import adapters
from poa.factory.bases import Base, base
from poa.factory.causal import CausalLM
from poa.factory.optimizers import from_flat
from poa.factory.recipe import LoRARecipe
from poa.factory.replay import replayed
from poa.protocols import Moments, Optimizer, Step
from poa.records import Corpus
from poa.steplog import StepLog

if TYPE_CHECKING:
    from poa.gradients.program import Program


@dataclass(frozen=True, eq=False)
class LoRARun:
    """manifest.parquet, run.json, steps.safetensors, checkpoints/step-*/ and moments/ under `folder`."""

    # Members of the TrainingRun protocol are plain properties over cached ones: a cached_property is writable, and
    # type checkers rightly do not take it for a read-only member.

    folder: Path
    parent: Base
    recipe: LoRARecipe
    groups: Mapping[str, tuple[str, ...]]
    checkpoints: tuple[int, ...]
    digest: str
    snapshot: str

    @property
    def corpus(self) -> Corpus:
        return self._corpus

    @cached_property
    def _corpus(self) -> Corpus:
        return Corpus.from_parquet(self.folder / "manifest.parquet")

    @property
    def steps(self) -> StepLog:
        return self._steps

    @cached_property
    def _steps(self) -> StepLog:
        return StepLog.load(self.folder / "steps.safetensors")

    @property
    def task(self) -> CausalLM:
        return self._task

    @cached_property
    def _task(self) -> CausalLM:
        return self.parent.task()

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def adapter_folder(self) -> Path:
        """The published adapter: the last checkpoint."""
        return self.checkpoint_folder(-1)

    def checkpoint_folder(self, checkpoint: int) -> Path:
        return self.folder / "checkpoints" / f"step-{self.checkpoints[checkpoint]:06d}"

    @cached_property
    def adapter_digest(self) -> str:
        return adapters.adapter_digest(self.adapter_folder)

    def model(self, checkpoint: int = -1) -> Any:
        return adapters.load(
            self.parent.model(self.recipe.quantise), self.checkpoint_folder(checkpoint), self.parent.digest
        )

    def base(self) -> Any:
        return self.parent.model(self.recipe.quantise)

    @property
    def optimizer(self) -> Optimizer:
        return self.recipe.rule

    def moments(self, checkpoint: int = -1) -> Moments:
        """AdamW's state at a checkpoint; `Unsupported` for a run that was written before it was kept."""
        step = self.checkpoints[checkpoint]
        file = moments_file(self.folder, step)
        if not file.is_file():
            raise Unsupported(f"{self.folder} keeps no optimizer state (an older run): fine-tune it again")
        return from_flat(load_file(file), step, self.optimizer)

    def replay(self) -> Iterator[Step]:
        """Every step of the training once more; see `poa.factory.replay`."""
        return replayed(self)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """[records] factors on the losses: all 1."""
        return np.ones(len(self.corpus))

    def program(self) -> Program:
        """The same training as a program of arrays, for JAX; `Unsupported` for shapes that it does not know."""
        from poa.factory.programs import lora_program

        return lora_program(self.corpus, self.recipe, self.parent)

    def arrays(self, queries: Corpus) -> dict[str, npt.NDArray[Any]]:
        """`queries` as the program measures them."""
        from poa.factory.programs import token_arrays

        return token_arrays(self.task, queries, whole=True)


def moments_file(folder: Path, step: int) -> Path:
    """Where the optimizer's state after `step` steps lies in a run's folder."""
    return folder / "moments" / f"step-{step:06d}.safetensors"


def run_digest(plan: str, folder: Path, kept: tuple[int, ...]) -> str:
    """Identity of a run: its plan (manifest, recipe, base, versions), what happened (steps) and what came out."""
    results = [adapters.adapter_digest(folder / "checkpoints" / f"step-{step:06d}") for step in kept]
    return plain_digest([plan, StepLog.load(folder / "steps.safetensors").digest, results])


def published_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but run.json and the cache, by relative name."""
    named = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {n.as_posix(): file_digest(folder / n) for n in named if n.parts[0] != "cache" and n.name != "run.json"}


def note_seal(note: Mapping[str, Any]) -> str:
    """Digest over a run's note. Where the base lies is left out: only its bytes matter."""
    rest = {key: value for key, value in note.items() if key not in ("seal", "base")}
    return plain_digest([rest, note["base"]["digest"]])


def load_run(folder: str | Path) -> LoRARun:
    """Open a finished run and check its bytes; a missing, altered or truncated file is refused by name."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise PoaError(f"{folder} is no training run: it has no run.json")
    try:
        note: dict[str, Any] = json.loads((folder / "run.json").read_text())
        intact = note_seal(note) == note["seal"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{folder}/run.json is not a run's note: {error}") from error
    if not intact:
        raise Corrupt(f"{folder}/run.json does not have the digest that it promises")
    for name, digest in note["files"].items():
        if not (folder / name).is_file():
            raise Corrupt(f"{folder} has lost {name}")
        if file_digest(folder / name) != digest:
            raise Corrupt(f"{folder}/{name} does not have the digest that run.json promises")
    parent = base(note["base"]["name"])
    if parent.digest != note["base"]["digest"]:
        raise Corrupt(
            f"{folder} was trained on base {note['base']['digest'][:16]}, but {parent.name} is {parent.digest[:16]} now"
        )
    groups = {name: tuple(labels) for name, labels in note["groups"].items()}
    kept = tuple(note["checkpoints"])
    return LoRARun(folder, parent, LoRARecipe(**note["recipe"]), groups, kept, note["digest"], note["snapshot"])
