"""The causal language model task: tokens, loss, measurement, hidden states, tracked modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.errors import PoaError, Unsupported
from poa.factory.forward import arguments
from poa.gradients.fused import body_and_head, fused_log_probabilities
from poa.gradients.tracking import trainable
from poa.protocols import Predictions
from poa.records import Record

if TYPE_CHECKING:
    from poa.protocols import Batch

IGNORE = -100


@dataclass(frozen=True)
class CausalLM:
    """Total log-probability of `text` given `prompt`.

    A record becomes `[bos] prompt text [eos]`; only text tokens and the closing eos are supervised (with an empty
    prompt the bos conditions the first token). `context` is the longest sequence in tokens, bos and eos included.
    """

    tokenizer_path: str
    context: int

    @property
    def name(self) -> str:
        return "causal-lm"

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer_path, local_files_only=Path(self.tokenizer_path).is_dir())

    @cached_property
    def edges(self) -> tuple[int, int]:
        """Ids of bos and eos; a tokenizer with only one of them uses it for both."""
        bos: int | None = self.tokenizer.bos_token_id
        eos: int | None = self.tokenizer.eos_token_id
        first, last = (eos if bos is None else bos), (bos if eos is None else eos)
        if first is None or last is None:
            raise PoaError(f"tokenizer {self.tokenizer_path} has neither bos nor eos token; a causal task needs one")
        return first, last

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def tokens(self, record: Record) -> list[int]:
        return self.encode(record.text)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Code-point range of each token of `text` (fast tokenizers only)."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]

    def sequence(self, record: Record, whole: bool) -> tuple[list[int], int]:
        """Token ids and the number of leading unsupervised ones."""
        bos, eos = self.edges
        prompt = self.encode(record.prompt) if record.prompt else []
        ids = [bos, *prompt, *self.encode(record.text), eos]
        if len(ids) > self.context:
            if whole:
                raise PoaError(
                    f"record {record.id!r} has {len(ids)} tokens; the model's context is {self.context}: shorten its "
                    "prompt or text"
                )
            if 1 + len(prompt) >= self.context:
                raise PoaError(f"record {record.id!r}: the prompt alone fills the context of {self.context} tokens")
            ids = ids[: self.context]
        return ids, 1 + len(prompt)

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        rows = [self.sequence(record, whole) for record in records]
        width = max(len(ids) for ids, _ in rows)
        pad = self.edges[1]
        tokens = torch.full((len(rows), width), pad, dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, (ids, lead) in enumerate(rows):
            row = torch.tensor(ids)
            tokens[i, : len(ids)] = row
            labels[i, lead : len(ids)] = row[lead:]
            mask[i, : len(ids)] = 1
        places = torch.arange(width).repeat(len(rows), 1)
        return {"input_ids": tokens, "labels": labels, "attention_mask": mask, "position_ids": places}

    def token_log_probabilities(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """[B, T-1] log-probability of each supervised token (nats), 0 elsewhere; column t predicts token t+1."""
        logits = _logits(model, batch)
        # Labels move, not logits, and logits become rows of a matrix: slicing copies them, and cross_entropy over the
        # middle axis of three is four times slower on a CPU.
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
        rows = logits.reshape(-1, logits.shape[-1])
        losses = F.cross_entropy(rows, targets.reshape(-1), ignore_index=IGNORE, reduction="none")
        return -losses.view(targets.shape)[:, :-1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return -self.token_log_probabilities(model, batch).sum(1)

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.token_log_probabilities(model, batch).sum(1)

    def fused(self, model: nn.Module) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
        """(head, batch -> [B] log-probability): `measurement` for first derivatives, head and cross entropy in one.

        Raises `Unsupported` for a model that is not a body with a linear head.
        """
        body, head = body_and_head(model)

        def log_probabilities(batch: Batch) -> Tensor:
            return fused_log_probabilities(body, head, _inputs(model, batch), batch["labels"])

        return head, log_probabilities

    def predictions(self, model: Callable[..., Any], batch: Batch) -> Predictions:
        """One row per supervised token: the logits at the token before it."""
        logits = _logits(model, batch)
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
        owners, places = torch.nonzero(targets != IGNORE, as_tuple=True)
        return Predictions(logits[owners, places], targets[owners, places], owners)

    def supervised(self, batch: Batch) -> Tensor:
        """[B] number of supervised tokens."""
        return (batch["labels"][:, 1:] != IGNORE).sum(1)

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        mask = batch["attention_mask"]
        out = model(**_inputs(model, batch), output_hidden_states=True)
        last: Tensor = out.hidden_states[-1]
        weights = mask.unsqueeze(-1).to(last.dtype)
        return (last * weights).sum(1) / weights.sum(1)

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        """All that was trained: LoRA factors, or every layer with its embeddings and norms after a full fine-tune."""
        return trainable(model)


def _logits(model: Callable[..., Any], batch: Batch) -> Tensor:
    """[b, L, vocabulary]; raises `Unsupported` for a model that answers at positions which its input does not have."""
    logits: Tensor = model(**_inputs(model, batch)).logits
    given, found = batch["input_ids"].shape[1], logits.shape[1]
    if given != found:
        raise Unsupported(
            f"the model answers at {found} positions where {given} tokens were given: prompt tuning and other methods "
            "that put tokens of their own in front are not supported"
        )
    return logits


def _inputs(model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
    """Token ids and mask; positions too where a table of them is trained.

    Left to itself a model looks its positions up once for a whole batch, and the records' shares cannot be told apart.
    """
    names = ["input_ids", "attention_mask"]
    if isinstance(model, nn.Module) and _trains_positions(model):
        names.append("position_ids")
    return arguments(model, batch, names)


def _trains_positions(model: nn.Module) -> bool:
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight.requires_grad]
    return len(tables) > 1
