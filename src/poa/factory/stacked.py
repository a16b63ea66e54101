"""Many LoRA fine-tunes of one frozen base trained at once: stacked factors, one batch order, weights per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.factory import adapters
from poa.factory.bases import Base
from poa.factory.causal import CausalLM
from poa.factory.recipe import LoRARecipe
from poa.factory.schedule import schedule
from poa.progress import track
from poa.records import Corpus

# Sequences that go through the network together, over all models of a stack.
ROWS = 16


class StackedLoRA(nn.Module):
    """A frozen linear layer plus M adapters: rows [m*B, (m+1)*B) of the input go through adapter m.

    A: [M, d_in, r], B: [M, r, d_out]; the layout of bmm, transposed against PEFT's.
    """

    def __init__(self, frozen: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.frozen = frozen
        self.turned = isinstance(frozen, Conv1D)
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        weight = self.frozen.weight.T if self.turned else self.frozen.weight
        out: Tensor = _Adapted.apply(x, self.a, self.b, weight, self.frozen.bias, self.scale)
        return out


class _Adapted(torch.autograd.Function):
    """x W^T + c + s (x A) B per model, with the few products its derivative needs and nothing copied in between."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        models = a.shape[0]
        rows = x.reshape(models, -1, x.shape[-1])
        inner = torch.bmm(rows, a)
        out = F.linear(rows, weight, bias)
        out.baddbmm_(inner, b, alpha=scale)
        ctx.save_for_backward(rows, inner, a, b, weight)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, inner, a, b, weight = ctx.saved_tensors
        given = grads[0].reshape(rows.shape[0], rows.shape[1], -1)
        core = torch.bmm(given, b.transpose(1, 2)).mul_(ctx.scale)
        to_b = torch.bmm(inner.transpose(1, 2), given).mul_(ctx.scale)
        to_a = torch.bmm(rows.transpose(1, 2), core)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (given @ weight).baddbmm_(core, a.transpose(1, 2)).view(ctx.shape)
        return to_x, to_a, to_b, None, None, None


@dataclass(frozen=True, eq=False)
class Stack:
    """M models that share `network`'s frozen base."""

    network: Any
    models: int

    def token_log_probabilities(self, task: CausalLM, batch: Any) -> Tensor:
        """[M, B, T-1]: every model reads the same batch."""
        copies = {name: value.repeat(self.models, 1) for name, value in batch.items()}
        out = task.token_log_probabilities(self.network, copies)
        return out.view(self.models, -1, out.shape[-1])


def new_stack(parent: Base, recipe: LoRARecipe, models: int) -> Stack:
    """M copies of the adapter that `attach` draws for `recipe.seed`."""
    template = adapters.attach(parent.model(), recipe)
    starts = {
        name: (module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach(), module)
        for name, module in template.named_modules()
        if "lora_A" in dict(module.named_children())
    }
    network = parent.model()
    network.requires_grad_(False)
    for name, (a, b, wrapped) in starts.items():
        path = name.removeprefix("base_model.model.")
        owner, _, leaf = path.rpartition(".")
        stacked = StackedLoRA(
            network.get_submodule(path),
            a.T.repeat(models, 1, 1).contiguous(),
            b.T.repeat(models, 1, 1).contiguous(),
            float(wrapped.scaling["default"]),
        )
        setattr(network.get_submodule(owner), leaf, stacked)
    return Stack(network.eval(), models)


def train_stack(corpus: Corpus, recipe: LoRARecipe, parent: Base, weights: Tensor) -> Stack:
    """Train M = weights.shape[0] models with record weights [M, N] (0 removes a record, *masked* removal).

    Same start, order, rates and denominators for all models and for the run that they stand for, so a row of ones
    repeats `finetune`. AdamW is element-wise, hence independent per model; the recipe has no gradient clipping.
    """
    task = parent.task()
    lengths = [int(task.supervised(task.batch([record], whole=False))) for record in corpus]
    plan = schedule(lengths, recipe)
    stack = new_stack(parent, recipe, weights.shape[0])
    trained = [p for p in stack.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=recipe.betas, eps=recipe.eps, weight_decay=0.0)
    for step in track(range(plan.steps), f"retrain {stack.models} models", plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = float(plan.rate[step])
        for places in _alike(plan.records[step], lengths, stack.models):
            batch = task.batch([corpus[i] for i in places], whole=False)
            losses = -stack.token_log_probabilities(task, batch).sum(2)
            loss = (losses * weights[:, places]).sum() / float(plan.denominator[step])
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return stack


def _alike(records: npt.NDArray[np.int64], lengths: list[int], models: int) -> list[list[int]]:
    """The records of one step in parts of similar length: gradients add up to the same, with less padding.

    A part times the number of models is about `ROWS` sequences, enough to keep matrix products busy.
    """
    places = sorted((int(i) for i in records if i >= 0), key=lambda i: (lengths[i], i))
    size = max(1, ROWS // models)
    return [places[start : start + size] for start in range(0, len(places), size)]


@torch.no_grad()
def measure_stack(stack: Stack, task: CausalLM, queries: Corpus) -> Tensor:
    """[M, Q] measurements (total log-probability of each query's response, nats)."""
    columns = [
        stack.token_log_probabilities(task, task.batch([query])).to(torch.float64).sum(2)[:, 0]
        for query in track(queries, "measure", len(queries))
    ]
    return torch.stack(columns, 1)
