"""Small models of every kind that capture knows, with a batch and one loss per example, for certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.records import Record

COUNT = 3
LENGTHS = (9, 5, 7)
VOCABULARY = 23


@dataclass(frozen=True)
class Fixed:
    """A task with one batch: `losses(model, batch)` is [COUNT]."""

    given: Mapping[str, Tensor]
    losses: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]

    def batch(self, records: Sequence[Record], whole: bool = True) -> Mapping[str, Tensor]:
        return self.given

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return self.losses(model, batch)

    measurement = loss

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {
            name: module
            for name, module in model.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        }


RECORDS = [Record(f"r{i}") for i in range(COUNT)]


def cast(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}


# -- losses: one number per example, a sum over what is supervised ------------------------------------------------


def squares(out: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    return out.flatten(1).pow(2).sum(1)


def cross_entropy(out: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(out, batch["y"], reduction="none")


def log_odds(out: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    own = batch["y"].unsqueeze(1)
    return out.gather(1, own).squeeze(1) - out.scatter(1, own, float("-inf")).logsumexp(1)


LOSSES = {"squares": squares, "cross-entropy": cross_entropy, "log-odds": log_odds}


# -- plain modules ----------------------------------------------------------------------------------------------


class Scale(nn.Module):
    """A module of a kind that nobody has heard of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(width))
        self.b = nn.Parameter(torch.randn(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * self.a) @ self.b @ self.b.T


class Gemma(nn.Module):
    """A norm whose gain is 1 + weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt() * (1 + self.weight)


class GemmaNorm(Gemma):
    pass


def mlp(*middle: nn.Module, bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=bias), *middle, nn.Linear(8, 4, bias=bias))


def conv(**options: Any) -> nn.Module:
    layer = nn.Conv2d(4, 8, **options)
    side = layer(torch.zeros(1, 4, 7, 6)).shape[2:]
    return nn.Sequential(layer, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * side[0] * side[1], 4))


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(nn.ReLU(inplace=True)),
    "mlp without bias": lambda: mlp(nn.Tanh(), bias=False),
    "layer norm": lambda: mlp(nn.LayerNorm(8), nn.GELU()),
    "layer norm without offset": lambda: mlp(nn.LayerNorm(8, bias=False), nn.GELU()),
    "rms norm": lambda: mlp(nn.RMSNorm(8), nn.SiLU()),
    "1 + gain norm": lambda: mlp(GemmaNorm(8), nn.SiLU()),
    "batch norm in eval": lambda: mlp(nn.BatchNorm1d(8), nn.ReLU()),
    "group norm": lambda: mlp(nn.GroupNorm(2, 8), nn.ReLU()),
    "prelu": lambda: mlp(nn.PReLU(8)),
    "unheard of": lambda: mlp(Scale(8)),
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: conv(kernel_size=3),
    "conv, stride and padding": lambda: conv(kernel_size=3, stride=2, padding=(1, 2)),
    "conv, dilation": lambda: conv(kernel_size=2, dilation=2, bias=False),
    "conv, groups": lambda: conv(kernel_size=3, groups=2),
    "conv, depthwise": lambda: conv(kernel_size=3, groups=4, padding=1),
    "conv, same": lambda: conv(kernel_size=(3, 5), padding="same"),
}


def plain_batch(images: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (COUNT, 4, 7, 6) if images else (COUNT, 6)
    return {
        "x": torch.randn(*shape, generator=generator, dtype=torch.float64),
        "y": torch.randint(4, (COUNT,), generator=generator),
    }


# -- language models --------------------------------------------------------------------------------------------


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=12, n_layer=2, n_head=2, attn_implementation="eager")
    )


def llama(tied: bool) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    )


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            num_labels=4,
            pad_token_id=0,
            attn_implementation="eager",
        )
    )


def adapted(model: nn.Module) -> nn.Module:
    """LoRA of every linear layer, with a B that training has moved away from 0."""
    from poa.factory.adapters import attach
    from poa.factory.recipe import LoRARecipe

    wrapped = attach(model, LoRARecipe(rank=2, alpha=3))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return wrapped


TEXTS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "llama, tied": lambda: llama(True),
    "llama": lambda: llama(False),
    "lora on gpt2": lambda: adapted(gpt2()),
    "lora on llama": lambda: adapted(llama(False)),
}
PADDINGS = ("none", "right", "left")


def text_batch(padding: str) -> dict[str, Tensor]:
    """Token ids with their mask, positions and labels (-100 where nothing is supervised)."""
    generator = torch.Generator().manual_seed(2)
    width = max(LENGTHS)
    ids = torch.randint(1, VOCABULARY, (COUNT, width), generator=generator)
    mask = torch.ones(COUNT, width, dtype=torch.long)
    for row, length in zip(mask, LENGTHS, strict=True):
        if padding == "right":
            row[length:] = 0
        if padding == "left":
            row[: width - length] = 0
    first = mask.cumsum(1) <= 2  # the first two tokens are a prompt
    return {
        "input_ids": ids.masked_fill(mask == 0, 0),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "labels": ids.masked_fill((mask == 0) | first, -100),
        "y": torch.randint(4, (COUNT,), generator=generator),
    }


def next_tokens(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Summed over supervised tokens."""
    told = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    logits = model(**told, use_cache=False).logits[:, :-1].transpose(1, 2)
    return F.cross_entropy(logits, batch["labels"][:, 1:], reduction="none").sum(1)


def mean_tokens(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over the supervised tokens of each example: its denominator is that example's own."""
    return next_tokens(model, batch) / (batch["labels"][:, 1:] != -100).sum(1)


def sentence_class(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    told = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    kinds = torch.zeros_like(batch["input_ids"])
    return F.cross_entropy(model(**told, token_type_ids=kinds).logits, batch["y"], reduction="none")


# -- the oracle -------------------------------------------------------------------------------------------------


def autograd(task: Fixed, model: nn.Module) -> list[Tensor]:
    """Per example the gradients of -loss, parameter by parameter: each module's weight and bias as one matrix.

    A parameter that appears in two modules stands where it appears first. The forward pass is the captured one, so
    only what is done with it differs.
    """
    modules = task.tracked(model)
    each = task.loss(model, task.given)
    rows: list[Tensor] = []
    for value in each:
        parts: list[Tensor] = []
        seen: set[int] = set()
        for name, module in modules.items():
            own = {k: p for k, p in module.named_parameters(recurse=False) if p.requires_grad and id(p) not in seen}
            seen |= {id(p) for p in own.values()}
            if own:
                grads = torch.autograd.grad(-value, list(own.values()), retain_graph=True, allow_unused=True)
                found = {
                    k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(own.items(), grads, strict=True)
                }
                parts.append(_as_rows(name, module, found))
        rows.append(torch.cat(parts))
    return rows


def _as_rows(name: str, module: nn.Module, found: dict[str, Tensor]) -> Tensor:
    kind = type(module).__name__
    if kind == "Conv2d":
        groups = module.groups  # type: ignore[attr-defined]
        out: list[Tensor] = []
        for group in range(groups):
            weight = found["weight"].chunk(groups)[group].flatten(1)
            bias = [found["bias"].chunk(groups)[group][:, None]] if "bias" in found else []
            out.append(torch.cat([weight, *bias], 1).flatten())
        return torch.cat(out)
    if kind in ("Linear", "Embedding", "Conv1D") or (kind.lower().endswith("norm") and kind not in ("GroupNorm",)):
        weight = found["weight"].T if kind == "Conv1D" else found["weight"]
        columns = [weight if weight.ndim == 2 else weight[:, None]]
        return torch.cat([*columns, *([found["bias"][:, None]] if "bias" in found else [])], 1).flatten()
    return torch.cat([value.flatten() for value in found.values()])
