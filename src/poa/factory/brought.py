"""TorchRun: a training that happened elsewhere, brought as a module, its checkpoints and its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from poa.digests import plain_digest
from poa.errors import PoaError, Unsupported
from poa.factory.weights import State, check_state, load_state, read_state, state_digest
from poa.files import cache_home
from poa.protocols import Moments, Optimizer, Task
from poa.records import Corpus, require_corpus
from poa.steplog import StepLog


@dataclass(frozen=True, eq=False)
class TorchRun:
    """A finished training of any torch module, in memory; made by `TorchRun.of`, satisfies `TrainingRun`.

    What was not brought (step log, initial weights, optimizer, moments) is refused with `Unsupported` by name when a
    method asks for it; all other methods run.
    """

    template: nn.Module
    corpus: Corpus
    task: Task
    checkpoints: tuple[int, ...]
    states: tuple[State, ...]
    groups: Mapping[str, tuple[str, ...]]
    digest: str
    cache: Path
    log: StepLog | None = None
    initial: State | None = None
    rule: Optimizer | None = None
    averages: tuple[Moments, ...] = ()

    @staticmethod
    def of(
        model: nn.Module | Callable[[], nn.Module],
        checkpoints: Mapping[int, State | str | Path] | Sequence[State | str | Path],
        corpus: Corpus,
        task: Task,
        *,
        steps: StepLog | None = None,
        initial: State | str | Path | None = None,
        optimizer: Optimizer | None = None,
        moments: Sequence[Moments] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        cache: Path | None = None,
    ) -> TorchRun:
        """Bring a training.

        model: a module of the right architecture or a function that makes one; it is copied and never changed. Its
        weights matter only where they are frozen and no checkpoint holds them; its `requires_grad` flags say what was
        trained. checkpoints: {step count: state dict or .safetensors file}, or a list in the order of training (with a
        step log only a list of one, the final weights). corpus: exactly the records trained on, in the order that the
        step log numbers them. steps: rates, batches and denominators, for TracIn and its relatives. initial: weights
        before the first step. moments: AdamW's state at each checkpoint. cache: where gradients are kept.

        Raises `Mismatch` naming every tensor that does not fit, and `PoaError` for repeated or disordered checkpoints
        and for a log that speaks of other records.
        """
        if not callable(model):
            raise PoaError(f"model must be a torch module or a function that makes one, got {type(model).__name__}")
        require_corpus(corpus, "corpus")
        template = deepcopy(model if isinstance(model, nn.Module) else model()).eval()
        if len(corpus) == 0:
            raise PoaError("the corpus is empty; a run needs the records that it was trained on")
        states = {step: read_state(source) for step, source in _at(checkpoints, steps).items()}
        first = None if initial is None else read_state(initial)
        for step, state in states.items():
            check_state(template, state, f"checkpoint {step}")
        if first is not None:
            check_state(template, first, "initial")
        digests = {step: state_digest(state) for step, state in states.items()}
        _distinct(digests)
        if steps is not None:
            check_log(steps, corpus, max(states))
        if moments and len(moments) != len(states):
            raise PoaError(f"there are {len(moments)} moments for {len(states)} checkpoints; give one each")
        labels = groups_of(corpus) if groups is None else {name: tuple(given) for name, given in groups.items()}
        for name, given in labels.items():
            if len(given) != len(corpus):
                raise PoaError(f"group {name!r} has {len(given)} labels for {len(corpus)} records")
        digest = plain_digest(
            {
                "manifest": corpus.digest,
                "groups": {name: list(given) for name, given in labels.items()},
                "task": repr(task) if is_dataclass(task) else task.name,
                "model": _architecture(template),
                "frozen": state_digest({n: p for n, p in template.named_parameters() if not p.requires_grad}),
                "states": [[step, digests[step]] for step in states],
                "initial": None if first is None else state_digest(first),
                "steps": None if steps is None else steps.digest,
                "optimizer": None if optimizer is None else list(optimizer),
                "moments": [[state_digest(_flat(m)), m.steps, list(m.betas), m.eps] for m in moments],
            }
        )
        home = cache_home() / "runs" / digest[:16] if cache is None else cache
        kept, weights = tuple(states), tuple(states.values())
        told = (steps, first, optimizer, tuple(moments))
        return TorchRun(template, corpus, task, kept, weights, labels, digest, home, *told)

    @property
    def steps(self) -> StepLog:
        if self.log is None:
            raise Unsupported(
                "this run was brought without a step log, and the method needs to know which record entered which step "
                "at which rate: TorchRun.of(..., steps=poa.StepLog(...))"
            )
        return self.log

    @property
    def optimizer(self) -> Optimizer:
        if self.rule is None:
            raise Unsupported("the run does not say by which optimizer it was trained: TorchRun.of(..., optimizer=...)")
        return self.rule

    def moments(self, checkpoint: int = -1) -> Moments | None:
        """The optimizer's state at a checkpoint, None for SGD; `Unsupported` where it was not brought."""
        if self.optimizer.kind == "sgd":
            return None
        if not self.averages:
            raise Unsupported("this run was brought without the optimizer's state: TorchRun.of(..., moments=[...])")
        return self.averages[checkpoint]

    def model(self, checkpoint: int = -1) -> nn.Module:
        return self._loaded(self.states[checkpoint])

    def base(self) -> nn.Module:
        if self.initial is None:
            raise Unsupported("this run was brought without its initial weights: TorchRun.of(..., initial=...)")
        return self._loaded(self.initial)

    def _loaded(self, state: State) -> nn.Module:
        model = deepcopy(self.template)
        load_state(model, state)
        return model.eval()


def groups_of(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """Contributor, datanet, cluster (id of the first record with the same content) and payee (the contributor)."""
    first: dict[str, str] = {}
    clusters = tuple(first.setdefault(record.digest, record.id) for record in corpus)
    contributors = corpus.contributors
    return {"contributor": contributors, "datanet": corpus.datanets, "cluster": clusters, "payee": contributors}


def _at(
    checkpoints: Mapping[int, State | str | Path] | Sequence[State | str | Path], steps: StepLog | None
) -> dict[int, State | str | Path]:
    """Checkpoints by step count, ascending. Without a log a list is numbered 1, 2, ...: its order is all it says."""
    if isinstance(checkpoints, Mapping):
        if any(isinstance(key, str) for key in checkpoints):
            raise PoaError("checkpoints is one state dict; give a list of them, or {step count: state dict}")
        found = dict(checkpoints)
    elif steps is not None and len(checkpoints) > 1:
        raise PoaError(
            "with a step log each checkpoint needs its place in it: give checkpoints as {step count: state dict}"
        )
    else:
        found = {steps.steps if steps is not None else i + 1: state for i, state in enumerate(checkpoints)}
    if not found:
        raise PoaError("a run needs at least one checkpoint, its final weights")
    if any(a >= b for a, b in pairwise(found)) or min(found) < 1:
        raise PoaError(f"checkpoints are at steps {list(found)}; step counts must ascend from 1")
    return found


def _distinct(digests: Mapping[int, str]) -> None:
    seen: dict[str, int] = {}
    for step, digest in digests.items():
        if digest in seen:
            raise PoaError(
                f"checkpoints {seen[digest]} and {step} hold the same weights; state_dict() gives references that "
                "training goes on to change: keep clones"
            )
        seen[digest] = step


def check_log(log: StepLog, corpus: Corpus, last: int) -> None:
    if log.records.ndim != 2 or any(len(row) != log.steps for row in (log.rate, log.denominator)):
        raise PoaError("a step log needs records [steps, batch] and one rate and one denominator per step")
    if log.steps < last:
        raise PoaError(f"the step log has {log.steps} steps, the last checkpoint was taken after {last}")
    if log.records.min(initial=0) < -1 or log.records.max(initial=-1) >= len(corpus):
        raise PoaError(f"the step log speaks of records outside 0 to {len(corpus) - 1} (-1 marks an empty place)")
    if not bool(np.isfinite(log.rate).all()) or not bool((log.denominator > 0).all()):
        raise PoaError("the step log has a rate that is not finite or a denominator that is not above 0")


def _architecture(model: nn.Module) -> list[str]:
    """Which modules stand where, with their settings: what the weights alone do not say."""
    return [
        f"{name}: {type(module).__module__}.{type(module).__qualname__}({module.extra_repr()})"
        for name, module in model.named_modules()
    ]


def _flat(moments: Moments) -> dict[str, Any]:
    return {f"{place}.{name}": value for name, pair in moments.state.items() for place, value in enumerate(pair)}
