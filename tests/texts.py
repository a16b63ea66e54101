"""Tokenizers and language models of three kinds, made here from a configuration: BERT, GPT-2 and Llama."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

TEXT = "the a cook sailor stirs hoists old heavy small pan rope soup mast and is not good bad rather very"
WORDS = TEXT.split()
WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CONTEXT = 24


def bert_tokenizer() -> Any:
    """Whole words, `[CLS] a [SEP] b [SEP]`, a pad token of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=CONTEXT, **names)


def byte_tokenizer() -> Any:
    """Byte pairs with `<s>` and `</s>`, which also pads: as for GPT-2 and Llama."""
    from poa.factory.tiny import train_tokenizer

    return train_tokenizer([" ".join(WORDS)] * 3, 300, CONTEXT)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def spread(model: nn.Module) -> nn.Module:
    """Weights as far from their usual small start as after some training, so that nothing vanishes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def classifier(kind: str, classes: int = 3) -> Any:
    """A `...ForSequenceClassification` with random weights."""
    import transformers as tf

    shared = {"num_labels": classes, "attn_implementation": "eager"}
    with seeded():
        if kind == "bert":
            config = tf.BertConfig(
                vocab_size=4 + len(WORDS), max_position_embeddings=CONTEXT, pad_token_id=0, **WIDTHS, **shared
            )
            return spread(tf.BertForSequenceClassification(config))
        pad = {"vocab_size": 300, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1}
        if kind == "gpt2":
            shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
            return spread(tf.GPT2ForSequenceClassification(tf.GPT2Config(**shape, **pad, **shared)))
        config = tf.LlamaConfig(max_position_embeddings=CONTEXT, **WIDTHS, **pad, **shared)
        return spread(tf.LlamaForSequenceClassification(config))


def language_model(kind: str, tied: bool = True) -> Any:
    """A `...ForCausalLM` with random weights."""
    import transformers as tf

    shared = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1, "attn_implementation": "eager"}
    with seeded():
        if kind == "gpt2":
            shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
            return spread(tf.GPT2LMHeadModel(tf.GPT2Config(**shape, **shared, tie_word_embeddings=tied)))
        config = tf.LlamaConfig(max_position_embeddings=CONTEXT, **WIDTHS, **shared, tie_word_embeddings=tied)
        return spread(tf.LlamaForCausalLM(config))


def save_tokenizer(kind: str, folder: Path) -> Path:
    (bert_tokenizer() if kind == "bert" else byte_tokenizer()).save_pretrained(folder)
    return folder
