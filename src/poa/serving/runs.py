"""Which run answers: named, the latest of the quickstart, or the run of a given adapter; and its views."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poa.digests import plain_digest
from poa.errors import Corrupt, Mismatch, PoaError
from poa.files import cache_home

if TYPE_CHECKING:
    from poa.factory.causal import CausalLM
    from poa.factory.run import LoRARun
    from poa.records import Corpus
    from poa.steplog import StepLog


def open_run(folder: Path | None, adapter: Path | None = None) -> LoRARun:
    """The run in `folder` (default: the latest quickstart), answering with `adapter` where one is given.

    Raises `PoaError` where there is no run, `Corrupt` for altered bytes, and what `with_adapter` raises.
    """
    from poa.factory.run import load_run

    run = load_run(_latest() if folder is None else folder)
    return run if adapter is None else with_adapter(run, adapter)


def with_adapter(run: LoRARun, folder: Path) -> LoRARun:
    """The run as it was when it published the adapter in `folder`.

    An adapter that another run on the same base published is answered with, and attributed to, that run's records:
    scores for records that did not train it would be invented. Raises `Mismatch` for another base and for an adapter
    whose run is unknown.
    """
    from poa.factory import adapters
    from poa.factory.run import load_run

    digest = adapters.adapter_digest(folder)
    if (named := _base_of(folder / adapters.FILES[0])) != run.parent.digest:
        raise Mismatch(
            f"adapter {folder} belongs to base {named[:16]}, not to base {run.parent.digest[:16]} of the run"
        )
    for position, step in enumerate(run.checkpoints):
        if adapters.adapter_digest(run.folder / "checkpoints" / f"step-{step:06d}") == digest:
            return _stopped(run, position)
    own = folder.resolve().parent.parent
    if own == run.folder.resolve() or not (own / "run.json").is_file():
        raise Mismatch(
            f"adapter {folder} is no checkpoint of run {run.folder} and lies in no other run: its records are unknown"
        )
    return with_adapter(load_run(own), folder)


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """A run whose cache is another folder: gradients of questions must not pile up beside the run for ever."""

    run: LoRARun
    cache: Path

    @property
    def corpus(self) -> Corpus:
        return self.run.corpus

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        return self.run.groups

    @property
    def task(self) -> CausalLM:
        return self.run.task

    @property
    def steps(self) -> StepLog:
        return self.run.steps

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return self.run.checkpoints

    @property
    def digest(self) -> str:
        return self.run.digest

    def model(self, checkpoint: int = -1) -> Any:
        return self.run.model(checkpoint)

    def base(self) -> Any:
        return self.run.base()


def _stopped(run: LoRARun, position: int) -> LoRARun:
    if position == len(run.checkpoints) - 1:
        return run
    kept = run.checkpoints[: position + 1]
    return replace(run, checkpoints=kept, digest=plain_digest(["stopped", run.digest, kept[-1]]))


def _latest() -> Path:
    path = cache_home() / "quickstart" / "latest.json"
    try:
        return Path(json.loads(path.read_text())["run"])
    except FileNotFoundError as error:
        raise PoaError(
            "there is no run to answer with: run `poa run experiment=quickstart` first, or name one with --run FOLDER"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} does not name a run; name one with --run FOLDER") from error


def _base_of(config: Path) -> str:
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{config} is not an adapter's configuration: it names no base") from error
