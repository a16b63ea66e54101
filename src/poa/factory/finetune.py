"""Deterministic LoRA fine-tuning with a step log, checkpoints, and resumption after an interruption."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from poa.datanets.snapshot import Snapshot
from poa.digests import plain_digest
from poa.errors import PoaError
from poa.factory import adapters
from poa.factory.bases import Base
from poa.factory.bases import base as open_base
from poa.factory.descent import Descent
from poa.factory.optimizers import flat, from_flat
from poa.factory.recipe import LoRARecipe, require_quantisation
from poa.factory.run import LoRARun, load_run, moments_file, note_seal, published_files, run_digest
from poa.factory.schedule import schedule
from poa.factory.versions import library_versions
from poa.files import alone, atomic_folder, cache_home, write_atomic
from poa.progress import track
from poa.records import Corpus
from poa.steplog import StepLog

OPTIMIZER = "optimizer.safetensors"


def finetune(
    data: Snapshot | Corpus,
    base: str | Path = "tiny",
    method: str = "lora",
    out: str | Path | None = None,
    recipe: LoRARecipe | None = None,
    seed: int | None = None,
) -> LoRARun:
    """Fine-tune `base` on `data` and return the finished run.

    `method` is "lora" or "qlora". Without `out` the run lives in the cache under its plan digest. If the same plan
    (manifest, recipe, base bytes, library versions) has already been run there, it is checked and returned. An
    interrupted run continues from its last kept checkpoint and ends with the same bytes.
    """
    recipe = recipe or LoRARecipe()
    if method not in ("lora", "qlora"):
        near = get_close_matches(method, ("lora", "qlora"), 1, 0.0)[0]
        raise PoaError(f"method {method!r} is unknown; did you mean {near!r}? (lora, qlora)")
    if method == "qlora":
        recipe = replace(recipe, quantise="4bit")
    if recipe.quantise == "4bit":
        require_quantisation()
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    snapshot = data if isinstance(data, Snapshot) else Snapshot.of(data)
    if len(snapshot.corpus) == 0:
        raise PoaError("the snapshot is empty: nothing to train on")
    parent = open_base(base)
    plan = plan_digest(snapshot, recipe, parent)
    folder = Path(out) if out is not None else cache_home() / "runs" / plan[:20]
    with alone(folder):
        if not (folder / "run.json").is_file():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise PoaError(f"{folder} holds something that is not a training run; choose another out=")
            _check_lengths(snapshot, parent)
            _train_into(folder, snapshot, recipe, parent, plan)
    run = load_run(folder)
    if json.loads((folder / "run.json").read_text())["plan"] != plan:
        raise PoaError(f"{folder} holds another run (other data, recipe, base or versions); choose another out=")
    return run


def plan_digest(snapshot: Snapshot, recipe: LoRARecipe, parent: Base) -> str:
    """Identity of everything that determines the run before it starts."""
    return plain_digest(
        {
            "format": 2,  # of the run folder: a run in the cache that was written otherwise is made again
            "manifest": snapshot.corpus.digest,
            "groups": {name: list(labels) for name, labels in snapshot.groups.items()},
            "recipe": recipe.plain(),
            "base": parent.digest,
            "versions": library_versions(),
        }
    )


def _check_lengths(snapshot: Snapshot, parent: Base) -> None:
    task = parent.task()
    for record in snapshot.corpus:
        if record.features:
            raise PoaError(f"record {record.id!r} has features; a language model needs text")
        task.sequence(record, whole=False)


def _train_into(folder: Path, snapshot: Snapshot, recipe: LoRARecipe, parent: Base, plan: str) -> None:
    work = folder.with_name(f".{folder.name}.{plan[:8]}.unfinished")
    try:
        work.mkdir(parents=True, exist_ok=True)
        log = train(work, snapshot.corpus, recipe, parent)
        with atomic_folder(folder) as final:
            _publish(final, work, snapshot, recipe, parent, plan, log)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in its own type
        shutil.rmtree(work, ignore_errors=True)
        raise PoaError(f"cannot write {folder}: {error}") from error
    except PoaError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)


def _publish(
    final: Path, work: Path, snapshot: Snapshot, recipe: LoRARecipe, parent: Base, plan: str, log: StepLog
) -> None:
    kept = recipe.kept_steps(log.steps)
    for step in kept:
        name = Path("checkpoints") / f"step-{step:06d}"
        shutil.copytree(work / name, final / name)
        # Beside the adapter, not in it: whoever serves or shares an adapter has no use for the optimizer's state.
        (final / name / OPTIMIZER).unlink()
        moments_file(final, step).parent.mkdir(exist_ok=True)
        state = load_file(work / name / OPTIMIZER)
        save_file({key: value for key, value in state.items() if key != "loss"}, moments_file(final, step))
    log.save(final / "steps.safetensors")
    snapshot.corpus.to_parquet(final / "manifest.parquet")
    note: dict[str, Any] = {
        "plan": plan,
        "snapshot": snapshot.root,
        "files": published_files(final),
        "groups": {name: list(labels) for name, labels in snapshot.groups.items()},
        "recipe": recipe.plain(),
        "base": {"name": parent.name, "digest": parent.digest},
        "versions": library_versions(),
        "checkpoints": list(kept),
        "digest": run_digest(plan, final, kept),
    }
    note["seal"] = note_seal(note)
    write_atomic(final / "run.json", json.dumps(note, indent=1, sort_keys=True).encode())


def train(work: Path, corpus: Corpus, recipe: LoRARecipe, parent: Base) -> StepLog:
    """Train in `work`, keeping weights and optimizer state at each checkpoint; starts from the last kept one."""
    task = parent.task()
    lengths = [int(task.supervised(task.batch([record], whole=False))) for record in corpus]
    log = schedule(lengths, recipe)
    kept = recipe.kept_steps(log.steps)
    descent = Descent.start(parent, recipe)
    done = _resume(work, kept, descent, log)
    for step in track(range(done, log.steps), "fine-tune", log.steps - done):
        log.loss[step] = descent.step([corpus[int(i)] for i in log.records[step] if i >= 0], log, step)
        if step + 1 in kept:
            _keep(work, step + 1, descent, log, parent)
    return log


def _keep(work: Path, step: int, descent: Descent, log: StepLog, parent: Base) -> None:
    state = flat(descent.moments(step)) | {"loss": torch.from_numpy(np.asarray(log.loss)[:step].copy())}
    with atomic_folder(work / "checkpoints" / f"step-{step:06d}") as folder:
        adapters.publish(descent.model, folder, parent.digest)
        save_file(state, folder / OPTIMIZER)


def _resume(work: Path, kept: tuple[int, ...], descent: Descent, log: StepLog) -> int:
    finished = [step for step in kept if (work / "checkpoints" / f"step-{step:06d}").is_dir()]
    if not finished:
        return 0
    folder = work / "checkpoints" / f"step-{finished[-1]:06d}"
    state = load_file(folder / OPTIMIZER)
    descent.restore(load_file(folder / adapters.FILES[1]), from_flat(state, finished[-1], descent.rule))
    log.loss[: finished[-1]] = state["loss"].numpy()
    return finished[-1]
