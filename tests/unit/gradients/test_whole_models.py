"""Whole Hugging Face models, as they are loaded (fused attention, tied weights): token heat and Gauss-Newton solves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from poa.factory.brought import TorchRun
from poa.factory.causal import CausalLM
from poa.gradients.heat import token_heat
from poa.methods.exact_influence import ExactInfluence
from poa.methods.graddot import GradDot
from poa.methods.tracin_last import last_matrix
from poa.records import Corpus

GPT2 = GPT2Config(
    vocab_size=64, n_positions=64, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
)
LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=16,  # square layers: a table that is not turned round would fit all the same
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)


def brought(kind: str, folder: Path, base: Path, corpus: Corpus) -> TorchRun:
    torch.manual_seed(0)
    size = len(AutoTokenizer.from_pretrained(base))
    model: Any = (
        GPT2LMHeadModel(GPT2Config(**GPT2.to_dict() | {"vocab_size": size}))
        if kind == "gpt2"
        else LlamaForCausalLM(LlamaConfig(**LLAMA.to_dict() | {"vocab_size": size}))
    )
    assert model.config._attn_implementation == "sdpa"
    model.eval()
    if kind == "llama":
        model.model.embed_tokens.requires_grad_(False)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return TorchRun.of(model, [state], corpus, CausalLM(str(base), 64), cache=folder)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_heat_of_a_whole_model_sums_to_its_scores(
    kind: str, tiny_folder: Path, corpus: Corpus, queries: Corpus, tmp_path: Path
) -> None:
    run = brought(kind, tmp_path, tiny_folder, corpus[:5])
    index = GradDot().fit(run)
    asked = queries[:2]
    for query, heat in zip(asked, token_heat(index, run.task, asked), strict=True):
        row = index.attribute(Corpus([query])).values[0].astype(np.float64)
        assert abs(heat.sum() - row.sum()) < 1e-3 * max(np.abs(heat).sum(), abs(row.sum()))


def test_solves_pass_through_fused_attention(
    tiny_folder: Path, corpus: Corpus, queries: Corpus, tmp_path: Path
) -> None:
    run = brought("llama", tmp_path, tiny_folder, corpus[:4])
    scores = ExactInfluence(solver="cg", damping=1.0, tolerance=1e-4).fit(run).attribute(queries[:1])
    assert np.isfinite(scores.values).all()
    assert max(scores.meta["residual"]) <= 1e-4


def test_the_last_layer_is_the_head_and_no_norm(tiny_folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    tied = brought("gpt2", tmp_path, tiny_folder, corpus[:1])
    assert last_matrix(tied) == ("transformer.wte", 16)  # whose weight the head has
    frozen = brought("llama", tmp_path, tiny_folder, corpus[:1])
    assert last_matrix(frozen) == ("model.layers.0.mlp.down_proj", 16)
