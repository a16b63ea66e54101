"""The smallest text model: hashed words, one hidden layer, next word from this word."""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.digests import plain_digest, sha256
from poa.errors import Mismatch
from poa.protocols import Moments, Optimizer, Predictions, Step
from poa.records import Corpus, Record
from poa.steplog import StepLog

if TYPE_CHECKING:
    from poa.protocols import Batch

_IGNORE = -100


@dataclass(frozen=True)
class Bigram:
    """Log-probability of a text's words given the word before each; words are hashed into `vocabulary` buckets."""

    vocabulary: int = 32

    @property
    def name(self) -> str:
        return "bigram"

    def tokens(self, record: Record) -> list[int]:
        return [zlib.crc32(w.encode()) % (self.vocabulary - 1) + 1 for w in re.findall(r"\w+", record.text.lower())]

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        """{"input_ids", "labels"} [B, T] padded on the right; token 0 starts a text, label -100 is not supervised."""
        rows = [self.tokens(record) for record in records]
        width = max([1, *map(len, rows)])
        inputs = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), width), _IGNORE)
        for i, row in enumerate(rows):
            inputs[i, 1 : len(row)] = torch.tensor(row[:-1], dtype=torch.long)
            labels[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        return {"input_ids": inputs, "labels": labels}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(batch["input_ids"])
        return F.cross_entropy(logits.transpose(1, 2), batch["labels"], ignore_index=_IGNORE, reduction="none").sum(1)

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        return -self.loss(model, batch)

    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        owners, places = torch.nonzero(batch["labels"] != _IGNORE, as_tuple=True)
        logits: Tensor = model(batch["input_ids"])
        return Predictions(logits[owners, places], batch["labels"][owners, places], owners)

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        states: Tensor = _sequential(model)[:-1](batch["input_ids"])
        valid = (batch["labels"] != _IGNORE).unsqueeze(-1).to(states.dtype)
        return (states * valid).sum(1) / valid.sum(1).clamp(min=1)

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@dataclass(frozen=True, eq=False)
class BigramRun:
    """A finished bigram training in memory; satisfies `poa.protocols.TrainingRun`."""

    corpus: Corpus
    task: Bigram
    steps: StepLog
    checkpoints: tuple[int, ...]
    states: tuple[Mapping[str, Tensor], ...]
    initial: Mapping[str, Tensor]

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        return {"contributor": self.corpus.contributors, "datanet": self.corpus.datanets}

    @property
    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        weights = [[k, sha256(v.numpy().tobytes())] for state in self.states for k, v in state.items()]
        return plain_digest([self.corpus.digest, self.task.vocabulary, self.steps.digest, weights])

    @property
    def cache(self) -> Path:
        return Path(tempfile.gettempdir()) / f"poa-bigram-{self.digest[:16]}"

    def model(self, checkpoint: int = -1) -> nn.Module:
        return _loaded(self.task, self.states[checkpoint])

    def base(self) -> nn.Module:
        return _loaded(self.task, self.initial)

    @property
    def optimizer(self) -> Optimizer:
        return Optimizer("sgd")

    def moments(self, checkpoint: int = -1) -> Moments | None:
        return None

    def replay(self) -> Iterator[Step]:
        """The training once more; raises `Mismatch` at the end where it does not come to the same weights."""
        model = self.base()
        yield from _descent(self.task, self.corpus, model, self.steps)
        for name, value in model.state_dict().items():
            if not torch.equal(value, self.states[-1][name]):
                raise Mismatch(f"the replay does not come to the stored weights: {name} differs")


def bigram_corpus(count: int, seed: int = 0) -> Corpus:
    """`count` texts of 3 to 12 words from a Zipf vocabulary, three contributors; record 1 repeats record 0's text."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"w{word}" for word in rng.zipf(1.6, size=rng.integers(3, 13)) % 40) for _ in range(count)]
    texts[1:2] = texts[:1] if count > 1 else []
    return Corpus(
        Record(f"text-{i:03d}", text, contributor=f"contributor-{i % 3}", datanet="zipf")
        for i, text in enumerate(texts)
    )


def train_bigram(corpus: Corpus, steps: int = 24, batch: int = 7, rate: float = 0.2, seed: int = 0) -> BigramRun:
    """Plain SGD in float64 on the batch's summed loss over its supervised words; three checkpoints."""
    task = Bigram()
    model = _blank(task)
    generator = torch.Generator().manual_seed(seed)
    for values in model.parameters():
        values.data.copy_(torch.randn(values.shape, generator=generator, dtype=torch.float64) / 3)
    initial = _copy(model)
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(len(corpus))[: min(batch, len(corpus))] for _ in range(steps)])
    kept = tuple(sorted({max(1, steps * part // 3) for part in (1, 2, 3)}))
    log = StepLog(order, np.full(steps, rate), np.zeros(steps), np.zeros(steps))
    for step, row in enumerate(order):
        rows = task.batch([corpus[int(i)] for i in row], whole=False)
        log.denominator[step] = int((rows["labels"] != _IGNORE).sum())
    states = [_copy(step.model) for step in _descent(task, corpus, model, log) if step.number in kept]
    return BigramRun(corpus, task, log, kept, (*states, _copy(model)), initial)


def _descent(task: Bigram, corpus: Corpus, model: nn.Module, log: StepLog) -> Generator[Step]:
    """Every step of `log` before its update; notes the losses."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for number, row in enumerate(log.records):
        rate, denominator = float(log.rate[number]), float(log.denominator[number])
        yield Step(number, model, row, np.ones(len(row)), rate, denominator, None)
        with torch.enable_grad():
            loss = task.loss(model, task.batch([corpus[int(i)] for i in row], whole=False)).sum() / denominator
            slopes = torch.autograd.grad(loss, trained)
        log.loss[number] = loss.item()
        for parameter, slope in zip(trained, slopes, strict=True):
            parameter.data.sub_(slope, alpha=rate)


def _blank(task: Bigram, width: int = 8) -> nn.Sequential:
    skip, double = nn.utils.skip_init, torch.float64
    table = skip(nn.Embedding, task.vocabulary, width, dtype=double)
    table.requires_grad_(False)
    return nn.Sequential(
        table,
        skip(nn.Linear, width, width, dtype=double),
        nn.Tanh(),
        skip(nn.Linear, width, task.vocabulary, dtype=double),
    )


def _loaded(task: Bigram, state: Mapping[str, Tensor]) -> nn.Module:
    model = _blank(task)
    model.load_state_dict(dict(state))
    return model.eval()


def _copy(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _sequential(model: nn.Module) -> nn.Sequential:
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"a bigram model is an nn.Sequential, not {type(model).__name__}")
    return model
