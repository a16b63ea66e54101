"""What features of every example cost on a CUDA device, in float32 and bfloat16, over a plain forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from poa.benchmarks import Figures, interleave, wall
from poa.benchmarks.gradients import IGNORE, SIDE, Tokens, in_batches, token_records
from poa.errors import PoaError
from poa.evaluation.correlation import mean_spearman
from poa.gradients.capture import capturing
from poa.gradients.projection import TwoSided, placed
from poa.records import Record

LAYERS, WIDTH, LONGEST, EXAMPLES, BATCH = 12, 768, 1024, 256, 32


def run(rounds: int = 9) -> Figures:
    """Ratios on one device: GPT-2's shape with a vocabulary of 4,096, batches of 32 sorted by length."""
    if not torch.cuda.is_available():
        raise PoaError("poa bench accelerator needs a CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.device("cuda"):
        model, task, batches = _model(), _task(), in_batches(token_records(EXAMPLES, LONGEST), BATCH)
        full, half = (_features(task, model, batches, precision) for precision in ("full", "bf16"))
        plain, autocast = (_steps(task, model, batches, precision) for precision in ("full", "bf16"))
        rows = [call().double().cpu().numpy() for call in (half, full)]
        ratios = {
            "accelerator.gpu_over_best": interleave(full, plain, rounds, _synchronized),
            "accelerator.gpu_bf16_over_best": interleave(half, plain, rounds, _synchronized),
            "accelerator.gpu_bf16_over_bf16_best": interleave(half, autocast, rounds, _synchronized),
        }
        others = {
            "accelerator.gpu_bf16_agreement": mean_spearman(*(found[:8] @ found.T for found in rows)),
            "accelerator.gpu_peak_over_best": _peak(full) / _peak(plain),
        }
    return Figures(
        {name: ratio.median for name, ratio in ratios.items()} | others,
        {name: (ratio.low, ratio.high) for name, ratio in ratios.items()},
    )


def _synchronized(call: Callable[[], object]) -> float:
    def whole() -> None:
        call()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return wall(whole)


def _peak(call: Callable[[], object]) -> int:
    """Bytes that a call adds at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _task() -> Tokens:
    from transformers.pytorch_utils import Conv1D

    return Tokens(Conv1D)


def _model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=4096, n_positions=LONGEST, n_embd=WIDTH, n_layer=LAYERS, n_head=12, bos_token_id=0, eos_token_id=0
    )
    model: Any = GPT2LMHeadModel(config).eval()
    model.to("cuda")
    return model


def _features(task: Tokens, model: nn.Module, batches: list[list[Record]], precision: str) -> Callable[[], Tensor]:
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        drawn = TwoSided(SIDE).prepared(capture.blocks, torch.float32 if precision == "full" else torch.bfloat16)
    sketch = placed(drawn, torch.device("cuda"))

    def once() -> Tensor:
        with capturing(task, model, fused=True, precision=precision) as capture:  # type: ignore[arg-type]
            return torch.cat([sketch.features(capture.factors(batch, "train")) for batch in batches])

    return once


def _steps(task: Tokens, model: Any, batches: list[list[Record]], precision: str) -> Callable[[], None]:
    def once() -> None:
        for batch in batches:
            given: Mapping[str, Tensor] = task.batch(batch)
            labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, IGNORE)
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                loss = nn.functional.cross_entropy(
                    model(**given, use_cache=False).logits[:, :-1].flatten(0, 1).float(),
                    labels[:, 1:].flatten(),
                    ignore_index=IGNORE,
                    reduction="sum",
                )
            loss.backward()
        model.zero_grad(set_to_none=True)

    return once
