"""The small base language model that is made on the spot: tokenizer, Llama-shaped network, pretraining."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.factory.muon import Muon
from poa.factory.versions import library_versions
from poa.files import alone, atomic_folder, cache_home
from poa.progress import track


@dataclass(frozen=True)
class TinyRecipe:
    """Everything that determines the base besides its corpus.

    Muon (orthogonalised momentum) moves the weight matrices and AdamW the rest. Everything is float32.
    """

    vocabulary: int = 2048
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 344
    context: int = 256
    length: int = 128
    batch: int = 8
    steps: int = 600
    rate: float = 0.02
    adam_rate: float = 0.003
    warmup: int = 30
    seed: int = 0


def tiny_base(recipe: TinyRecipe | None = None, texts: Sequence[str] | None = None) -> Path:
    """Folder of the base model in `save_pretrained` layout, made once per (recipe, corpus, library versions).

    Without `texts` it is pretrained on the prose of installed packages that belong to no datanet.
    """
    recipe = recipe or TinyRecipe()
    if texts is None:
        from poa.datanets.installed_docs import general_docs, general_docs_digest

        key, load = general_docs_digest(), general_docs
    else:
        given = list(texts)
        key, load = plain_digest(given), lambda: given
    digest = plain_digest({"recipe": asdict(recipe), "corpus": key, "versions": library_versions()})
    folder = cache_home() / "bases" / f"tiny-{digest[:16]}"
    with alone(folder):
        if not (folder / "poa.json").is_file():
            with atomic_folder(folder) as work, _all_cores():
                _make(recipe, load(), work, {"recipe": asdict(recipe), "corpus": key, "digest": digest})
    return folder


@contextmanager
def _all_cores() -> Generator[None]:
    """Pretraining may use every core: what was made is identified by its bytes, not by how it was made."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if "OMP_NUM_THREADS" in os.environ else os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make(recipe: TinyRecipe, texts: Sequence[str], folder: Path, note: dict[str, object]) -> None:
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.context)
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    eos = int(tokenizer.eos_token_id)
    stream = torch.tensor([token for ids in encoded for token in (*ids, eos)])
    held = max(recipe.length, len(stream) // 50)
    if len(stream) < 2 * held + 2:
        raise PoaError(f"{len(stream)} tokens are too few to pretrain on: {2 * held + 2} are needed")
    model = new_model(recipe, len(tokenizer), eos)
    losses = pretrain(model, stream[:-held], recipe)
    heldout = heldout_nats(model, stream[-held:], recipe.length)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    summary = {"heldout_nats_per_token": heldout, "first_loss": losses[0], "last_loss": losses[-1]}
    (folder / "poa.json").write_text(json.dumps(note | summary, indent=1, sort_keys=True))


def train_tokenizer(texts: Sequence[str], vocabulary: int, context: int) -> Any:
    """Byte-level BPE with `<s>` (bos), `</s>` (eos and pad); deterministic in the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    raw.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=context
    )


def new_model(recipe: TinyRecipe, vocabulary: int, eos: int) -> Any:
    """A freshly initialised Llama-shaped model; embedding and head share their weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def pretrain(model: Any, stream: Tensor, recipe: TinyRecipe) -> list[float]:
    """Train in place on random windows of `stream`; returns the loss of each step (nats per token)."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=recipe.rate),
        torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [recipe.rate, recipe.adam_rate]
    losses: list[float] = []
    model.train()
    for step, window in enumerate(track(_windows(stream, recipe), "pretrain base", recipe.steps)):
        scale = min(1.0, (step + 1) / recipe.warmup) * min(1.0, 1.25 * (1 - step / recipe.steps) + 0.02)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * scale
        loss = model(input_ids=window, labels=window).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def _windows(stream: Tensor, recipe: TinyRecipe) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(recipe.seed)
    offsets = torch.arange(recipe.length)
    for _ in range(recipe.steps):
        starts = torch.randint(len(stream) - recipe.length, (recipe.batch,), generator=generator)
        yield stream[starts[:, None] + offsets]


@torch.no_grad()
def heldout_nats(model: nn.Module, stream: Tensor, length: int, most: int = 64) -> float:
    """Mean nats per token on the first windows of `stream`."""
    count = min(most, len(stream) // length)
    windows = stream[: count * length].view(count, length)
    return float(model(input_ids=windows, labels=windows).loss)
