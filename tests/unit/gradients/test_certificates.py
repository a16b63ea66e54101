"""Certificates: factored per-example gradients equal autograd, for every kind of module, loss and padding.

Relative error over a whole row of gradients: at most 1e-5 in float32 and 1e-10 in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.unit.gradients import architectures as arch
from tests.unit.gradients.architectures import Fixed
from torch import Tensor, nn

from poa.errors import PoaError
from poa.gradients.capture import capturing, example_gradients
from poa.gradients.factors import inner

DTYPES = {"float32": (torch.float32, 1e-5), "float64": (torch.float64, 1e-10)}

PLAIN_CASES = [
    (kind, name, loss)
    for kind, makers in (("plain", arch.PLAIN), ("images", arch.IMAGES))
    for name in makers
    for loss in arch.LOSSES
]
TEXT_CASES = [(name, loss, padding) for name in arch.TEXTS for loss in ("sum", "mean") for padding in arch.PADDINGS]
TEXT_LOSSES = {"sum": arch.next_tokens, "mean": arch.mean_tokens}


def made(maker: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return maker().to(dtype).eval()


def plain(kind: str, name: str, loss: str, dtype: torch.dtype) -> tuple[Fixed, nn.Module]:
    maker = (arch.PLAIN if kind == "plain" else arch.IMAGES)[name]
    batch = arch.cast(arch.plain_batch(kind == "images"), dtype)
    return Fixed(batch, lambda model, given: arch.LOSSES[loss](model(given["x"]), given)), made(maker, dtype)


def text(name: str, loss: str, padding: str, dtype: torch.dtype) -> tuple[Fixed, nn.Module]:
    return Fixed(arch.text_batch(padding), TEXT_LOSSES[loss]), made(arch.TEXTS[name], dtype)


def certify(task: Fixed, model: nn.Module, tolerance: float) -> None:
    found = example_gradients(task, model, arch.RECORDS, "train")  # type: ignore[arg-type]
    expected = torch.stack(arch.autograd(task, model))
    assert not found.requires_grad
    assert found.dtype == expected.dtype
    gap = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(gap.max()) <= tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "name", "loss"), PLAIN_CASES)
def test_plain_modules(kind: str, name: str, loss: str, dtype: str) -> None:
    precision, tolerance = DTYPES[dtype]
    certify(*plain(kind, name, loss, precision), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "loss", "padding"), TEXT_CASES)
def test_language_models(name: str, loss: str, padding: str, dtype: str) -> None:
    precision, tolerance = DTYPES[dtype]
    task, model = text(name, loss, padding, precision)
    if "llama" in name and padding == "left" and precision == torch.float64:
        # transformers casts the mask of a float64 model to float32, where rows without any token become nan.
        with pytest.raises(PoaError, match="is not finite"):
            certify(task, model, tolerance)
    else:
        certify(task, model, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", arch.PADDINGS)
def test_a_sequence_classifier(padding: str, dtype: str) -> None:
    precision, tolerance = DTYPES[dtype]
    certify(Fixed(arch.text_batch(padding), arch.sentence_class), made(arch.bert, precision), tolerance)


def test_there_are_at_least_sixty_cases_per_precision() -> None:
    assert len(PLAIN_CASES) + len(TEXT_CASES) + len(arch.PADDINGS) >= 60


def cases() -> list[tuple[Fixed, nn.Module]]:
    double = torch.float64
    return [
        plain("plain", "layer norm", "squares", double),
        plain("plain", "1 + gain norm", "squares", double),
        plain("images", "conv, groups", "squares", double),
        text("gpt2", "sum", "right", double),
        text("llama, tied", "sum", "right", double),
        text("lora on gpt2", "sum", "right", double),
    ]


@pytest.mark.parametrize("number", range(6))
def test_inner_products_without_forming_gradients(number: int) -> None:
    """Token by token where cheaper, and always where an embedding meets a head that shares its weight."""
    task, model = cases()[number]
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        found = capture.factors(arch.RECORDS, "train")
    total = torch.zeros(arch.COUNT, arch.COUNT, dtype=torch.float64)
    for factors in found.factors.values():
        total += sum((inner(a, b) for a in factors for b in factors), torch.zeros_like(total))
    rows = found.rows()
    torch.testing.assert_close(total, rows @ rows.T, rtol=1e-10, atol=1e-10)


def test_a_tied_weight_needs_its_cross_terms() -> None:
    """What untied books would say is another number: the shortcut is not close to right."""
    task, model = text("gpt2", "sum", "none", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        factors = capture.factors(arch.RECORDS, "train").factors["transformer.wte"]
    assert len(factors) == 2
    exact = sum(inner(a, b) for a in factors for b in factors)
    untied = sum(inner(a, a) for a in factors)
    assert float((untied - exact).norm() / exact.norm()) > 0.05  # type: ignore[union-attr]


@pytest.mark.parametrize("number", range(6))
def test_tokens_add_up_to_the_example(number: int) -> None:
    task, model = cases()[number]
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        found = capture.factors(arch.RECORDS, "train")
    rows = found.rows()
    direction = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    total = torch.zeros(arch.COUNT, dtype=torch.float64)
    for block in found.blocks:
        for factor in found.factors.get(block.name, ()):
            total += factor.along(direction[block.start : block.stop]).sum(1)
    torch.testing.assert_close(total, rows @ direction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("number", range(3, 6))
def test_padding_brings_nothing(number: int) -> None:
    """Parts of tokens that are padding are exactly 0."""
    task, model = cases()[number]
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        found = capture.factors(arch.RECORDS, "train")
    pads = task.given["attention_mask"] == 0
    for block in found.blocks:
        for factor in found.factors.get(block.name, ()):
            parts: Tensor = factor.along(torch.ones(block.stop - block.start, dtype=torch.float64))
            assert not parts[pads].any()


def test_conv1d_is_linear_transposed() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    first, last = Conv1D(8, 6).double(), nn.Linear(8, 4).double()
    twin = nn.Linear(6, 8).double()
    twin.load_state_dict({"weight": first.weight.detach().T, "bias": first.bias.detach()})
    task = Fixed(arch.plain_batch(False), lambda model, given: arch.squares(model(given["x"]), given))
    rows = [
        example_gradients(task, nn.Sequential(layer, nn.ReLU(), last), arch.RECORDS, "train") for layer in (first, twin)
    ]  # type: ignore[arg-type]
    torch.testing.assert_close(*rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    task, model = text(name, "sum", "right", torch.float64)
    plain_rows = example_gradients(task, model, arch.RECORDS, "train")  # type: ignore[arg-type]
    model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    again = example_gradients(task, model, arch.RECORDS, "train")  # type: ignore[arg-type]
    torch.testing.assert_close(again, plain_rows, rtol=1e-12, atol=1e-12)


def test_a_fresh_adapter_has_no_gradient_in_a() -> None:
    """B = 0 at the start, so A's gradient is exactly 0 and B's is not."""
    from poa.factory.adapters import attach
    from poa.factory.recipe import LoRARecipe

    model = attach(made(lambda: arch.llama(False), torch.float64), LoRARecipe(rank=2)).eval().double()
    task = Fixed(arch.text_batch("right"), arch.next_tokens)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        found = capture.factors(arch.RECORDS, "train")
    for name, factors in found.factors.items():
        assert bool(factors[0].dense().any()) == ("lora_B" in name)
