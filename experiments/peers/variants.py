"""Runs seen otherwise: measured by the loss, without biases, in single precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from subjects import Subject
from torch import Tensor, nn

from poa.conformance import RunView
from poa.digests import plain_digest
from poa.factory.classifier import Classifier
from poa.protocols import TrainingRun


def seen(run: TrainingRun, word: str) -> RunView:
    return RunView(
        run, run.corpus, run.groups, run.steps, plain_digest([run.digest, word]), run.cache / f"peers-{word}"
    )


@dataclass(frozen=True)
class LossMeasured(Classifier):
    """Queries by their negated loss, for peers that have no other target."""

    def measurement(self, model: Any, batch: Any) -> Tensor:
        return -self.loss(model, batch)


@dataclass(frozen=True, eq=False)
class _Measured(RunView):
    @property
    def task(self) -> Any:
        task = self.source.task
        assert isinstance(task, Classifier)
        return LossMeasured(task.features, task.classes, task.dtype)


@dataclass(frozen=True, eq=False)
class _Unbiased(RunView):
    def model(self, checkpoint: int = -1) -> nn.Module:
        return _without_bias(self.source.model(checkpoint))

    def base(self) -> nn.Module:
        return _without_bias(self.source.base())


@dataclass(frozen=True, eq=False)
class _LogOdds(RunView):
    @property
    def task(self) -> Any:
        return replace(self.source.task, measures="log-odds")  # type: ignore[type-var]


@dataclass(frozen=True, eq=False)
class _Single(RunView):
    @property
    def task(self) -> Any:
        task = self.source.task
        return replace(task, dtype="float32") if isinstance(task, Classifier) else task

    def model(self, checkpoint: int = -1) -> nn.Module:
        return self.source.model(checkpoint).float()

    def base(self) -> nn.Module:
        return self.source.base().float()


def _without_bias(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.bias = None  # type: ignore[assignment]
    return model


def loss_measured(subject: Subject) -> Subject:
    return replace(subject, run=_Measured(**vars(seen(subject.run, "loss"))))


def unbiased(subject: Subject) -> Subject:
    """The same weights without the biases: another model, whose loss happens not to have been trained."""
    return replace(subject, run=_Unbiased(**vars(seen(subject.run, "unbiased"))))


def single(run: TrainingRun) -> TrainingRun:
    """A float64 run in float32; peers make float32 tensors of their own wherever they need one."""
    return _Single(**vars(seen(run, "single")))


def log_odds(run: TrainingRun) -> TrainingRun:
    """A classifier measured by log-odds, the output that TRAK takes."""
    return _LogOdds(**vars(seen(run, "log-odds")))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
