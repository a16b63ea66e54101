"""One step of a LoRA fine-tune after another: what training, resuming and replaying share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poa.factory import adapters, optimizers
from poa.factory.bases import Base
from poa.factory.causal import CausalLM
from poa.factory.recipe import LoRARecipe
from poa.protocols import Moments, Optimizer
from poa.records import Record
from poa.steplog import StepLog


@dataclass(frozen=True, eq=False)
class Descent:
    """A model under training: its LoRA factors by name and the optimizer that moves them."""

    task: CausalLM
    model: Any
    trained: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    rule: Optimizer

    @staticmethod
    def start(parent: Base, recipe: LoRARecipe) -> Descent:
        """Before the first step. Eval mode: dropout is 0 in the recipe, and base modules stay deterministic too."""
        model = adapters.attach(parent.model(recipe.quantise), recipe).eval()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = optimizers.made(recipe.rule, trained, recipe.rate)
        return Descent(parent.task(), model, trained, optimizer, recipe.rule)

    def step(self, records: Sequence[Record], log: StepLog, number: int) -> float:
        """Take step `number` of `log` on `records`; returns the loss before it (nats per supervised token)."""
        batch = self.task.batch(records, whole=False)
        for group in self.optimizer.param_groups:
            group["lr"] = float(log.rate[number])
        with torch.enable_grad():  # whatever whoever reads a replay has switched off
            loss = self.task.loss(self.model, batch).sum() / float(log.denominator[number])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def moments(self, steps: int) -> Moments:
        """AdamW's own tensors after `steps` updates."""
        found = optimizers.moments_of(self.rule, self.optimizer, self.trained, steps)
        assert found is not None
        return found

    def restore(self, weights: Mapping[str, Tensor], moments: Moments) -> None:
        """Continue from published `weights` (named as PEFT files name them) and `moments`."""
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(weights[published(name)])
        optimizers.restore(self.optimizer, self.trained, moments)


def published(name: str) -> str:
    """The name under which PEFT publishes the parameter `name` of a model in memory."""
    return name.replace(".default.", ".")
