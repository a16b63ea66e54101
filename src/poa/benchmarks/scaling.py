"""How time and memory of a features pass grow with examples and with layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from poa.benchmarks import Figures, interleave
from poa.benchmarks._memory import peak
from poa.benchmarks.gradients import Tokens, captured, gpt2, in_batches, token_records

STEPS = (4, 16)


def run(rounds: int = 7) -> Figures:
    """Time and peak memory at 4 and 16 times as many examples or layers, over 1 times: linear is 4 and 16.

    Memory is what one pass adds at its peak: it should not grow with examples at all, but for the features themselves.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    try:
        for what in ("examples", "layers"):
            base, grown = _pass(what, 1), {times: _pass(what, times) for times in STEPS}
            floor = peak(partial(_prepared, what, 1))
            for times, call in grown.items():
                ratio = interleave(call, base, rounds)
                figures[f"scaling.{what}_{times}x_time"] = ratio.median
                ranges[f"scaling.{what}_{times}x_time"] = (ratio.low, ratio.high)
                figures[f"scaling.{what}_{times}x_memory"] = peak(partial(_prepared, what, times)) / floor
    finally:
        torch.set_num_threads(before)
    return Figures(figures, ranges)


def _pass(what: str, times: int) -> Any:
    from transformers.pytorch_utils import Conv1D

    examples, layers = (8 * times, 2) if what == "examples" else (8, times)
    model, records = gpt2(layers, width=64), token_records(examples, longest=64)
    return captured(Tokens(Conv1D), model, in_batches(records, 4))


def _prepared(what: str, times: int) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return _pass("examples", 1), _pass(what, times)
