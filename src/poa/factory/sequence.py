"""The sequence classification task: a Hugging Face `...ForSequenceClassification` model, text with a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from poa.errors import Mismatch, PoaError
from poa.factory.forward import arguments, innermost
from poa.gradients.outputs import log_probabilities, margins
from poa.gradients.tracking import trainable
from poa.protocols import Predictions
from poa.records import Record

if TYPE_CHECKING:
    from poa.protocols import Batch

_TENSORS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class SequenceClassifier:
    """Log-odds of a record's label given its text.

    A record becomes what its tokenizer makes of `text`, or of the pair (`prompt`, `text`) where there is a prompt,
    special tokens included. A query's label is the class whose log-odds are explained. `context` is the longest
    sequence in tokens, `classes` the number of labels (0 <= label < classes), `padding` the side on which short
    sequences of a batch are filled up; results do not depend on it. Models that answer at a first token of its own
    (BERT's [CLS]) can only be padded on the right.
    """

    tokenizer_path: str
    context: int
    classes: int
    padding: Literal["right", "left"] = "right"

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise PoaError(f"a classifier needs at least 2 classes, got {self.classes}: regression is not supported")
        if self.padding not in ("right", "left"):
            raise PoaError(f"padding is {self.padding!r}, must be right or left")

    @staticmethod
    def of(folder: str | Path) -> SequenceClassifier:
        """The task of a model saved with its tokenizer by `save_pretrained`: its labels and its context."""
        from transformers import AutoConfig

        from poa.factory.bases import context_of

        config: Any = AutoConfig.from_pretrained(folder, local_files_only=Path(folder).is_dir())
        task = SequenceClassifier(str(folder), context_of(config, folder), int(config.num_labels))
        # RoBERTa's table of positions has two rows more than its longest sequence; only the tokenizer says so.
        return replace(task, context=min(task.context, int(task.tokenizer.model_max_length)))

    @property
    def name(self) -> str:
        return "sequence-classifier"

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.tokenizer_path, local_files_only=Path(self.tokenizer_path).is_dir())

    def tokens(self, record: Record) -> list[int]:
        ids: list[int] = self.tokenizer(record.text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        """Token ids, mask, positions (which count from a record's first token), segments and labels, [B, T] and [B]."""
        rows = [self._sequence(record, whole) for record in records]
        width = max(len(ids) for ids, _ in rows)
        fill = self.tokenizer.pad_token_id
        if fill is None and any(len(ids) < width for ids, _ in rows):
            raise PoaError(
                f"tokenizer {self.tokenizer_path} has no pad token, so records of unequal length cannot share a batch; "
                "set tokenizer.pad_token and the model's config.pad_token_id and save both"
            )
        first = self.tokenizer.cls_token_id
        if self.padding == "left" and any(len(ids) < width and ids[0] == first for ids, _ in rows):
            raise PoaError(
                f"tokenizer {self.tokenizer_path} starts records with {self.tokenizer.cls_token}, where the "
                "model reads its answer: padding must be right"
            )
        tokens = torch.full((len(rows), width), fill or 0)
        mask, segments = torch.zeros_like(tokens), torch.zeros_like(tokens)
        for i, (ids, kinds) in enumerate(rows):
            place = slice(0, len(ids)) if self.padding == "right" else slice(width - len(ids), width)
            tokens[i, place] = torch.tensor(ids)
            segments[i, place] = torch.tensor(kinds)
            mask[i, place] = 1
        return {
            "input_ids": tokens,
            "attention_mask": mask,
            "token_type_ids": segments,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "labels": torch.tensor([record.label for record in records]),
        }

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] cross entropy in nats."""
        return -log_probabilities(self.predictions(model, batch))

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] log p_y - log(1 - p_y)."""
        return margins(self.predictions(model, batch))

    def predictions(self, model: Callable[..., Any], batch: Batch) -> Predictions:
        """One row per record: the logits over classes."""
        logits: Tensor = self._outputs(model, batch).logits
        if logits.shape[1:] != (self.classes,):
            raise Mismatch(
                f"the model gives logits of shape {tuple(logits.shape[1:])}, the task has {self.classes} classes"
            )
        return Predictions(logits, batch["labels"], torch.arange(len(logits)))

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        last: Tensor = self._outputs(model, batch, output_hidden_states=True).hidden_states[-1]
        weights = batch["attention_mask"].unsqueeze(-1).to(last.dtype)
        return (last * weights).sum(1) / weights.sum(1)

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        """Every module that was trained: linear layers, embeddings and norms, or adapters and the head beside them."""
        return trainable(model)

    def _sequence(self, record: Record, whole: bool) -> tuple[list[int], list[int]]:
        """Token ids and their segments."""
        if not 0 <= record.label < self.classes:
            raise PoaError(f"record {record.id!r} has label {record.label}, must be 0 to {self.classes - 1}")
        if not record.text:
            raise PoaError(f"record {record.id!r} has no text; a sequence classifier reads text")
        said = (record.prompt, record.text) if record.prompt else (record.text,)
        options = {"return_token_type_ids": True, "return_attention_mask": False, "verbose": False}
        if not whole:
            options |= {"truncation": True, "max_length": self.context}
        found = self.tokenizer(*said, **options)
        if not found["input_ids"]:
            raise PoaError(f"record {record.id!r} has no token in the vocabulary of {self.tokenizer_path}")
        if len(found["input_ids"]) > self.context:
            raise PoaError(
                f"record {record.id!r} has {len(found['input_ids'])} tokens; the model's context is {self.context}: "
                "shorten its prompt or text"
            )
        return found["input_ids"], found["token_type_ids"]

    def _outputs(self, model: Callable[..., Any], batch: Batch, **options: Any) -> Any:
        return model(**arguments(model, batch, self._wanted(model, batch)), **options)

    def _wanted(self, model: Callable[..., Any], batch: Batch) -> tuple[str, ...]:
        """What the model is told; refuses one that would look for the last token of a padded record elsewhere."""
        if not isinstance(model, nn.Module):
            return _TENSORS
        config = innermost(model).config
        padded = not bool(batch["attention_mask"].all())
        if padded and config.pad_token_id != self.tokenizer.pad_token_id:
            raise Mismatch(
                f"the model's config.pad_token_id is {config.pad_token_id}, the tokenizer pads with "
                f"{self.tokenizer.pad_token_id}: set both to the same token"
            )
        if config.pad_token_id is None and len(batch["labels"]) > 1:
            raise PoaError("the model's config.pad_token_id is not set: it reads one record at a time")
        # GPT-2 takes segments as further tokens and has no table of them; RoBERTa counts positions in its own way.
        wanted = [name for name in _TENSORS if name != "token_type_ids" or getattr(config, "type_vocab_size", 0)]
        return tuple(name for name in wanted if name != "position_ids" or not _counts_itself(model))


def _counts_itself(model: nn.Module) -> bool:
    """Whether positions start behind the pad token's own row (RoBERTa and its relatives)."""
    return any(
        "position" in name and isinstance(module, nn.Embedding) and module.padding_idx is not None
        for name, module in model.named_modules()
    )
