"""A callback that records a `transformers.Trainer` training, so that trajectory methods can be fitted on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from poa.errors import PoaError, Unsupported
from poa.factory.brought import TorchRun
from poa.factory.optimizers import copied, moments_of
from poa.protocols import Moments, Optimizer, Task
from poa.records import Corpus
from poa.steplog import StepLog

COLUMN = "poa_record"
Features = Sequence[Mapping[str, Any]]


def carrying(collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[[Features], dict[str, Any]]:
    """`collate`, with the column `poa_record` (position in the corpus) of each feature carried into the batch."""

    def collated(features: Features) -> dict[str, Any]:
        batch = collate([{key: value for key, value in row.items() if key != COLUMN} for row in features])
        return {**batch, COLUMN: torch.tensor([int(row[COLUMN]) for row in features])}

    return collated


class AttributionRecorder(TrainerCallback):
    """Which records entered which optimizer step at which rate; weights and optimizer state every `every` steps.

    The batch is read where the model is called, because the data loader fetches ahead. The rate is read before the
    optimizer's step. The denominator is the number of supervised tokens by which the Trainer divides the summed loss
    of all accumulated batches. Copies are kept in memory on the CPU. One process; no clipping, no loss scaling.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise PoaError(f"every is {every}; checkpoints are kept every 1 or more steps")
        self.every = every
        self._clear()

    def _clear(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}
        self.moments: list[Moments] = []
        self.initial: dict[str, Tensor] = {}
        self.rule: Optimizer | None = None
        self._pending: list[int] = []
        self._tokens, self._loss = 0.0, 0.0
        self._rows: list[tuple[list[int], float, float, float]] = []
        self._hooks: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        _check(args, state)
        self._clear()
        model: nn.Module = given["model"]
        self.rule = _rule(given["optimizer"])
        self.initial = _copy(model)
        self._hooks = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave),
        ]

    def _enter(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        rest = {key: value for key, value in kwargs.items() if key != COLUMN}
        if model.training:
            if COLUMN not in kwargs:
                raise PoaError(f"a training batch has no {COLUMN!r}: give the Trainer data_collator=carrying(...)")
            if kwargs.get("num_items_in_batch") is None:
                raise Unsupported("the model takes no num_items_in_batch, so its losses have no common denominator")
            self._pending += kwargs[COLUMN].tolist()
            self._tokens = float(kwargs["num_items_in_batch"])
        return args, rest

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        if model.training:
            self._loss += float(output["loss"].detach())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        rates = {float(group["lr"]) for group in given["optimizer"].param_groups if group["params"]}
        if len(rates) != 1:
            raise Unsupported(f"parameter groups have different rates {sorted(rates)}; a step log has one rate a step")
        self._rows.append((self._pending, rates.pop(), self._tokens, self._loss))
        self._pending, self._loss = [], 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            model: nn.Module = given["model"]
            self.states[state.global_step] = _copy(model)
            assert self.rule is not None
            trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
            found = moments_of(self.rule, given["optimizer"], trained, state.global_step)
            if found is not None:
                kept = {n: (m.detach().cpu(), v.detach().cpu()) for n, (m, v) in copied(found).state.items()}
                self.moments.append(found._replace(state=kept))

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def steps(self) -> StepLog:
        """The step log so far; raises `PoaError` before the first step."""
        if not self._rows:
            raise PoaError("nothing was recorded: give the recorder to Trainer(callbacks=[...]) and train")
        records = np.full((len(self._rows), max(len(row[0]) for row in self._rows)), -1, dtype=np.int64)
        for number, (positions, *_) in enumerate(self._rows):
            records[number, : len(positions)] = positions
        rate, denominator, loss = (np.array([row[k] for row in self._rows], dtype=np.float64) for k in (1, 2, 3))
        return StepLog(records, rate, denominator, loss)

    def run(self, model: nn.Module, corpus: Corpus, task: Task) -> TorchRun:
        """The training as a run. `task` must make the same tokens and labels of a record as the Trainer was given."""
        told = {"initial": self.initial, "optimizer": self.rule, "moments": self.moments}
        return TorchRun.of(model, self.states, corpus, task, steps=self.steps, **told)  # pyright: ignore[reportArgumentType]


def _check(args: Any, state: Any) -> None:
    wrong = {
        "max_grad_norm must be 0: clipping scales a step by a factor that callbacks do not see": args.max_grad_norm,
        "remove_unused_columns must be False: it drops the record's position": args.remove_unused_columns,
        "fp16 must be False: a scaled loss may skip steps": args.fp16,
        "bf16 must be False: gradients are taken again in float32, which are not those that trained": args.bf16,
        "label_smoothing_factor must be 0: the loss is no log-probability": args.label_smoothing_factor,
        "one process and one device: a step log of one process lacks the others' records": max(
            args.world_size - 1, args.n_gpu - 1, 0
        ),
        "start from step 0: a resumed training lacks its first steps": state.global_step,
    }
    for reason, found in wrong.items():
        if found:
            raise Unsupported(reason)


def _rule(optimizer: Any) -> Optimizer:
    inner: Any = getattr(optimizer, "optimizer", optimizer)
    groups = [group for group in inner.param_groups if group["params"]]
    if len({group["weight_decay"] for group in groups}) != 1:
        raise Unsupported("weight_decay differs between parameter groups (the Trainer spares biases and norms): use 0")
    first = groups[0]
    if type(inner) is torch.optim.AdamW and not first["amsgrad"]:
        betas = (float(first["betas"][0]), float(first["betas"][1]))
        return Optimizer("adamw", decay=first["weight_decay"], betas=betas, eps=first["eps"])
    if type(inner) is torch.optim.SGD and not first["nesterov"] and not first["dampening"]:
        return Optimizer("sgd", momentum=first["momentum"], decay=first["weight_decay"])
    raise Unsupported(f"{type(inner).__name__} is not recorded; use optim='adamw_torch' or 'sgd'")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
