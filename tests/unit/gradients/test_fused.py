"""The fused pass gives the plain pass's losses and gradients, and steps aside where it would not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.gradients import architectures as arch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from poa.benchmarks.gradients import Tokens
from poa.errors import Unsupported
from poa.factory.run import LoRARun
from poa.gradients.capture import capturing
from poa.gradients.fused import ROWS, body_and_head, fused_activations, head_losses
from poa.records import Record


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("bias", [True, False])
def test_head_losses_are_cross_entropy_with_its_gradient(dtype: torch.dtype, tolerance: float, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2 * ROWS + 5, 7, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 7, generator=generator, dtype=dtype)
    offset = torch.randn(11, generator=generator, dtype=dtype) if bias else None
    labels = torch.randint(11, (len(hidden),), generator=generator)
    signal = torch.randn(len(hidden), generator=generator, dtype=dtype)
    found = head_losses(hidden, weight, offset, labels)
    expected = F.cross_entropy(F.linear(hidden, weight, offset), labels, reduction="none")
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    grads = [torch.autograd.grad(losses, hidden, signal)[0] for losses in (found, expected)]
    torch.testing.assert_close(*grads, rtol=tolerance, atol=tolerance)


def test_a_label_without_any_probability_has_its_full_loss() -> None:
    hidden = torch.tensor([[200.0]], requires_grad=True)
    losses = head_losses(hidden, torch.tensor([[1.0], [-1.0]]), None, torch.tensor([1]))
    assert float(losses.detach()) == 400.0


def gpt2(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation("eager")
    return model


def llama() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


RECORDS = [Record(f"r{n}", features=tuple(float(1 + (n * t) % 29) for t in range(1, 5 + n))) for n in range(1, 5)]


def rows(task: Any, model: nn.Module, fused: bool, side: str = "train") -> tuple[Tensor, bool]:
    with capturing(task, model, fused=fused) as capture:
        return capture.factors(RECORDS, side).rows(), capture.fused is not None


@pytest.mark.parametrize("side", ["train", "query"])
def test_gradients_agree_with_the_plain_pass(side: str) -> None:
    from transformers.pytorch_utils import Conv1D

    for kind, model in ((Conv1D, gpt2()), ("self_attn", llama())):
        task: Any = Tokens(kind) if kind is Conv1D else Attention("")
        (plain, off), (fused, on) = (rows(task, model, mode, side) for mode in (False, True))
        assert (off, on) == (False, True)
        expected = plain if side == "train" else -plain  # this task's measurement is its loss; fused, a log-probability
        torch.testing.assert_close(fused, expected, rtol=1e-4, atol=1e-5)


class Attention(Tokens):
    """Linear layers of the attention only: the head is not tracked."""

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: m for name, m in model.named_modules() if "_proj" in name and isinstance(m, nn.Linear)}


class Everything(Tokens):
    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def test_a_head_that_is_tracked_takes_the_plain_pass() -> None:
    found, fused = rows(Everything(""), llama(), True)
    assert not fused
    torch.testing.assert_close(found, rows(Everything(""), llama(), False)[0])


def test_a_lora_run_agrees_with_the_plain_pass(run: LoRARun) -> None:
    records = list(run.corpus[:4])
    found: list[Tensor] = []
    for fused in (False, True):
        with capturing(run.task, run.model(), fused=fused) as capture:
            assert (capture.fused is not None) == fused
            found.append(capture.factors(records, "train").rows())
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


def test_logits_that_are_changed_after_the_head_are_refused() -> None:
    class Capped(LlamaForCausalLM):
        def forward(self, *args: Any, **given: Any) -> Any:
            out = super().forward(*args, **given)
            out.logits = torch.tanh(out.logits)
            return out

    model = Capped(llama().config).eval()
    with pytest.raises(Unsupported, match="changes its logits after the head"):
        body_and_head(model)
    assert rows(Attention(""), model, True)[1] is False


def test_activations_are_swapped_only_inside_the_block() -> None:
    model = gpt2()
    batch = arch.text_batch("right")
    ids = {"input_ids": batch["input_ids"] % 31}
    with torch.no_grad():
        before = model(**ids).logits
        with fused_activations(model):
            inside = model(**ids).logits
        after = model(**ids).logits
    assert torch.equal(before, after)
    torch.testing.assert_close(inside, before, rtol=1e-5, atol=1e-5)
