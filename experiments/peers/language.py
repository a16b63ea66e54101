"""The language models of the comparison: a small GPT-2 with HF Conv1D layers, whole or under LoRA."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from subjects import Subject
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from poa.digests import plain_digest, sha256
from poa.errors import Unsupported
from poa.gradients.fused import body_and_head, fused_log_probabilities
from poa.protocols import Predictions
from poa.records import Corpus, Record
from poa.steplog import StepLog

IGNORE = -100


@dataclass(frozen=True)
class Language:
    """Total log-probability of a record's tokens (its features), each given those before it; no tokenizer.

    `kind` names the layers that attribution reads: "conv" the Conv1D layers, "lora" the adapter's factors.
    Sequences are padded on the right and models are causal, so that no mask is needed.
    """

    kind: str = "conv"

    @property
    def name(self) -> str:
        return "causal-lm"

    def tokens(self, record: Record) -> list[int]:
        return [int(token) for token in record.features]

    def batch(self, records: Sequence[Record], whole: bool = True) -> Mapping[str, Tensor]:
        rows = [self.tokens(record) for record in records]
        if not all(rows):
            raise Unsupported("a record without token ids cannot be asked of this model")
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full_like(ids, IGNORE)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
        return {"input_ids": ids, "labels": labels}

    def _logits(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        out = model(batch["input_ids"])
        return out.logits if hasattr(out, "logits") else out

    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        logits = self._logits(model, batch)
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
        return each.view(targets.shape).sum(1)

    def measurement(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return -self.loss(model, batch)

    def fused(self, model: nn.Module) -> tuple[nn.Module, Callable[[Mapping[str, Tensor]], Tensor]]:
        """(head, batch -> [B] log-probability): `measurement` for first derivatives, head and cross entropy in one."""
        body, head = body_and_head(model)

        def log_probabilities(batch: Mapping[str, Tensor]) -> Tensor:
            return fused_log_probabilities(body, head, {"input_ids": batch["input_ids"]}, batch["labels"])

        return head, log_probabilities

    def predictions(self, model: Any, batch: Mapping[str, Tensor]) -> Predictions:
        logits = self._logits(model, batch)
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
        owners, places = torch.nonzero(targets != IGNORE, as_tuple=True)
        return Predictions(logits[owners, places], targets[owners, places], owners)

    def hidden(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        raise Unsupported("the comparison asks for no hidden states")

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        if self.kind == "conv":
            return {n: m for n, m in model.named_modules() if _is_layer(n, m)}
        return {n: m for n, m in model.named_modules() if ".lora_" in n and isinstance(m, nn.Linear)}


def _is_layer(name: str, module: nn.Module) -> bool:
    # Where a peer needs Linear layers, `linear_twin` has put them in the place of Conv1D.
    return isinstance(module, Conv1D) or (isinstance(module, nn.Linear) and name.split(".")[-1] != "lm_head")


@dataclass(frozen=True, eq=False)
class LanguageRun:
    """A short training in memory; satisfies `poa.protocols.TrainingRun`."""

    corpus: Corpus
    task: Language
    steps: StepLog
    checkpoints: tuple[int, ...]
    made: nn.Module
    states: tuple[Mapping[str, Tensor], ...]
    initial: Mapping[str, Tensor]

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        return {"contributor": self.corpus.contributors, "datanet": self.corpus.datanets}

    @cached_property
    def digest(self) -> str:
        weights = [[name, sha256(value.numpy().tobytes())] for name, value in self.states[-1].items()]
        return plain_digest([self.corpus.digest, self.task.kind, self.steps.digest, weights])

    @property
    def cache(self) -> Path:
        return Path(tempfile.gettempdir()) / f"poa-peers-{self.digest[:16]}"

    def model(self, checkpoint: int = -1) -> nn.Module:
        return self._with(self.states[checkpoint])

    def base(self) -> nn.Module:
        return self._with(self.initial)

    def _with(self, state: Mapping[str, Tensor]) -> nn.Module:
        model = copy.deepcopy(self.made)
        model.load_state_dict(dict(state))
        return model.eval()


def gpt2(layers: int, width: int, vocabulary: int, context: int) -> GPT2LMHeadModel:
    """Fresh weights from seed 0; eager attention, whose result for a record does not depend on its batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=context,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation("eager")
    return model


def token_records(count: int, vocabulary: int, longest: int, seed: int = 0) -> Corpus:
    """Random token ids of mixed lengths: from an eighth of the context to all of it."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(max(2, longest // 8), longest, count, endpoint=True)
    return Corpus(
        Record(f"r{i}", features=tuple(map(float, rng.integers(1, vocabulary, length))), contributor=f"c{i % 3}")
        for i, length in enumerate(lengths)
    )


def language_subject(
    kind: str = "conv", layers: int = 2, width: int = 32, vocabulary: int = 128, longest: int = 24, train: int = 24
) -> Subject:
    """A few steps of descent on `train` random sequences; eight others are asked about."""
    corpus = token_records(train + 8, vocabulary, longest)
    model: Any = gpt2(layers, width, vocabulary, longest)
    if kind == "lora":
        from poa.factory.adapters import attach
        from poa.factory.recipe import LoRARecipe

        model = attach(model, LoRARecipe(rank=4)).eval()
    return Subject(_descended(model, corpus[:train], Language(kind)), corpus[train:])


def _descended(model: nn.Module, corpus: Corpus, task: Language, steps: int = 6, rate: float = 0.3) -> LanguageRun:
    initial = _copy(model)
    batch = task.batch(list(corpus))
    tokens = float((batch["labels"] != IGNORE).sum())
    trained = [p for p in model.parameters() if p.requires_grad]
    states: list[Mapping[str, Tensor]] = []
    losses = np.zeros(steps)
    for step in range(steps):
        loss = task.loss(model, batch).sum() / tokens
        losses[step] = loss.item()
        for parameter, slope in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            parameter.data.sub_(slope, alpha=rate)
        if step + 1 in (steps // 2, steps):
            states.append(_copy(model))
    order = np.tile(np.arange(len(corpus)), (steps, 1))
    log = StepLog(order, np.full(steps, rate), np.full(steps, tokens), losses)
    return LanguageRun(corpus, task, log, (steps // 2, steps), model, tuple(states), initial)


def _copy(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def linear_twin(model: nn.Module) -> nn.Module:
    """The same function with nn.Linear in the place of every Conv1D, for peers that know no other layer."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                inner, outer = child.weight.shape
                layer = nn.Linear(inner, outer)
                layer.weight.data = child.weight.data.T.contiguous()
                layer.bias.data = child.bias.data
                setattr(parent, name, layer)
    return model
