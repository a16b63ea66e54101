"""Language models as programs of arrays, against transformers, PEFT and torch's own training loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poa.errors import Unsupported
from poa.factory.adapters import attach
from poa.factory.network import LanguageNetwork, Shape, token_losses
from poa.factory.programs import lanes, named_arrays
from poa.factory.recipe import LoRARecipe
from poa.gradients.program import Program
from poa.protocols import Optimizer

VOCABULARY = 61


def model_of(kind: str) -> Any:
    """One layer with weights that are far from their first values."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "gpt2":
        config: Any = GPT2Config(
            vocab_size=VOCABULARY, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model: Any = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=24,
            tie_word_embeddings=kind == "llama, tied",
        )
        model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.set_attn_implementation("eager")
    return model.eval()


def tokens(count: int = 9) -> dict[str, np.ndarray]:
    """Rows of unequal length, padded; the first two tokens of each are not supervised."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 20, count)
    ids = rng.integers(1, VOCABULARY, (count, 20)).astype(np.int32)
    mask = (np.arange(20) < lengths[:, None]).astype(np.int32)
    labels = np.where((mask == 1) & (np.arange(20) >= 2), ids, -100).astype(np.int32)
    return {"ids": ids * mask, "labels": labels, "mask": mask}


def torch_losses(model: Any, data: dict[str, np.ndarray], rows: Any) -> Any:
    given = {name: torch.from_numpy(values[rows]).long() for name, values in data.items()}
    logits = model(input_ids=given["ids"], attention_mask=given["mask"]).logits[:, :-1]
    found = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), given["labels"][:, 1:], ignore_index=-100, reduction="none"
    )
    return found.sum(1)


KINDS = ("gpt2", "llama", "llama, tied")


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_transformers(kind: str, lora: bool) -> None:
    model, data = model_of(kind), tokens()
    if lora:
        model = attach(model, LoRARecipe(rank=3, alpha=5))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0, 0.3)
    trained, frozen = named_arrays(model)
    assert len(frozen) > 0 if lora else len(frozen) == 0
    found = token_losses(Shape.of(model.config, 5 / 3), trained, frozen, data)
    with torch.no_grad():
        expected = torch_losses(model, data, slice(None)).numpy()
    np.testing.assert_allclose(np.asarray(found), expected, rtol=2e-5)


@pytest.mark.parametrize(("kind", "lora"), [("gpt2", False), ("gpt2", True), ("llama, tied", True)])
def test_training_ends_at_the_losses_of_torch(kind: str, lora: bool) -> None:
    """AdamW over seven steps, record weights of 0 and 1, three models at once against one torch loop for each."""
    data, steps = tokens(), 7
    rule = Optimizer("adamw", decay=0.01, betas=(0.9, 0.95))
    order = np.stack([np.random.default_rng(step).permutation(9)[:4] for step in range(steps)])
    order[-1, -1] = -1
    rates = np.linspace(5e-3, 1e-3, steps)
    denominators = np.full(steps, 40.0)
    weights = np.random.default_rng(5).integers(0, 2, (3, 9)).astype(float)

    def fresh() -> Any:
        model = model_of(kind)
        return attach(model, LoRARecipe(rank=3, alpha=6, seed=4)) if lora else model

    start, frozen = named_arrays(fresh())
    shape = Shape.of(fresh().config, 2.0)
    program = Program(
        LanguageNetwork(shape),
        start,
        frozen,
        lanes(data, order, 2),
        rates,
        denominators,
        rule,
        "float32",
        9,
    )
    found = program.measured(weights, {name: data[name] for name in ("ids", "labels")})
    expected = [torch_trained(fresh(), data, order, rates, denominators, rule, row) for row in weights]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def torch_trained(
    model: Any, data: dict[str, np.ndarray], order: Any, rates: Any, denominators: Any, rule: Optimizer, weights: Any
) -> np.ndarray:
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], betas=rule.betas, eps=rule.eps, weight_decay=rule.decay
    )
    for places, rate, denominator in zip(order, rates, denominators, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        rows = places[places >= 0]
        factors = torch.tensor(weights[rows], dtype=torch.float32)
        loss = (factors * torch_losses(model, data, rows)).sum() / denominator
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return -torch_losses(model, data, slice(None)).numpy()


def test_lora_metagradient_is_the_slope_of_retraining() -> None:
    """Float64: central differences of the program's own retraining, which the tests above hold to torch."""
    data, steps = tokens(6), 4
    order = np.stack([np.random.default_rng(step).permutation(6)[:4] for step in range(steps)])
    model = attach(model_of("llama, tied"), LoRARecipe(rank=2, alpha=4, seed=4))
    trained, frozen = named_arrays(model)
    wide = [{name: value.astype(np.float64) for name, value in part.items()} for part in (trained, frozen)]
    shape = Shape.of(model.config, 2.0)
    program = Program(
        LanguageNetwork(shape),
        *wide,
        lanes(data, order, 4),
        np.full(steps, 5e-3),
        np.full(steps, 40.0),
        Optimizer("adamw"),
        "float64",
        6,
    )
    queries = {name: data[name][:3] for name in ("ids", "labels")}
    values, slopes = program.metagradient(np.ones(6), queries, stack=2)
    step = 1e-6
    ends = np.concatenate([np.ones((6, 6)) + step * np.eye(6), np.ones((6, 6)) - step * np.eye(6)])
    measured = program.measured(ends, queries)
    expected = ((measured[:6] - measured[6:]) / (2 * step)).T
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(values, program.measured(np.ones((1, 6)), queries)[0], rtol=1e-12)


def test_shapes_that_are_not_known_are_refused() -> None:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

    for config, word in (
        (GPTNeoXConfig(), "gpt_neox"),
        (GPT2Config(activation_function="relu"), "unusual activation"),
        (LlamaConfig(hidden_act="gelu"), "unusual activation"),
    ):
        with pytest.raises(Unsupported, match=word):
            Shape.of(config)


def test_lanes_hold_every_record_once_and_cut_the_padding() -> None:
    data = tokens()
    order = np.stack([np.random.default_rng(step).permutation(9)[:5] for step in range(6)])
    order[2, 3:] = -1
    found = lanes(data, order, 2)
    assert [lane.places.shape for lane in found] == [(6, 2), (6, 2), (6, 1)]
    together = np.sort(np.concatenate([lane.places for lane in found], 1), 1)
    np.testing.assert_array_equal(together, np.sort(order, 1))
    lengths = data["mask"].sum(1)
    for lane in found:
        inside = lane.places[lane.places >= 0]
        assert lane.data["ids"].shape[1] == max(lengths[inside])
