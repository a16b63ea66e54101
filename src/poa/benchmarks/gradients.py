"""What features of every example cost, against the passes that they ride on and against captum's TracIn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.benchmarks import Figures, interleave
from poa.benchmarks._memory import peak
from poa.errors import PoaError
from poa.gradients.capture import capturing
from poa.gradients.factors import inner
from poa.gradients.fused import body_and_head, fused_activations, fused_log_probabilities
from poa.gradients.projection import TwoSided
from poa.records import Record

VOCABULARY, WIDTH, LAYERS, LONGEST, EXAMPLES = 4096, 256, 4, 256, 32
SIDE = 16  # columns a side of each layer's sketch: 16 layers x 16 x 16 = 4,096 features
FEATURES = 4096
IGNORE = -100


@dataclass(frozen=True)
class Tokens:
    """A language task over records whose features are token ids, with `tracked` chosen by the benchmark."""

    kind: type[nn.Module] | str

    def batch(self, records: Sequence[Record], whole: bool = True) -> Mapping[str, Tensor]:
        width = max(len(record.features) for record in records)
        ids = torch.zeros(len(records), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, record in enumerate(records):
            ids[i, : len(record.features)] = torch.tensor(record.features, dtype=torch.long)
            mask[i, : len(record.features)] = 1
        return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**batch, use_cache=False).logits
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE)
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
        return losses.view(targets.shape).sum(1)

    measurement = loss

    def fused(self, model: nn.Module) -> tuple[nn.Module, Callable[[Mapping[str, Tensor]], Tensor]]:
        body, head = body_and_head(model)

        def log_probabilities(batch: Mapping[str, Tensor]) -> Tensor:
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE)
            return fused_log_probabilities(body, head, batch, labels)

        return head, log_probabilities

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        named = model.named_modules()
        if isinstance(self.kind, str):
            return {
                name: module for name, module in named if f".{self.kind}_" in name and isinstance(module, nn.Linear)
            }
        return {name: module for name, module in named if isinstance(module, self.kind)}


def run(rounds: int = 9) -> Figures:
    """Ratios over `rounds`; every figure compares two ways in the same rounds, one thread each way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = {**_full(), **_lora(), **_tracin()}
        ratios = {name: interleave(a, b, rounds) for name, (a, b) in pairs.items()}
        half, plain, agreement = _half()
        ratios["capture_bf16_over_best"] = interleave(half, plain, rounds if _has_bf16() else 3)
    finally:
        torch.set_num_threads(before)
    named = {f"gradients.{name}": ratio for name, ratio in ratios.items()}
    others = {
        "gradients.capture_bf16_agreement": agreement,
        "gradients.peak_over_step": peak(partial(_peaks, True)) / peak(partial(_peaks, False)),
    }
    return Figures(
        {name: ratio.median for name, ratio in named.items()} | others,
        {name: (ratio.low, ratio.high) for name, ratio in named.items()},
    )


def _peaks(features: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """(warm, call) of the features pass or of the step, for a fresh process."""
    from transformers.pytorch_utils import Conv1D

    torch.set_num_threads(1)
    model, records, task = gpt2(), token_records(), Tokens(Conv1D)
    if features:
        return captured(task, model, in_batches(records[:4], 4)), captured(task, model, in_batches(records, 4))
    return (lambda: _steps(task, model, [records[:1]])), (lambda: _steps(task, model, _plain(records, 16)))


Ways = tuple[Callable[[], object], Callable[[], object]]


def _full() -> dict[str, Ways]:
    """Sketched gradients of all linear layers of a GPT-2 shape."""
    from transformers.pytorch_utils import Conv1D

    model, records = gpt2(), token_records()
    task, short = Tokens(Conv1D), in_batches(records, 4)
    capture = captured(task, model, short)
    _require_same(task, model, short[-1])
    return {
        "capture_over_floor": (capture, lambda: _floor(task, model, short)),
        "capture_over_best": (capture, lambda: _steps(task, model, short)),
        "capture_over_step": (capture, lambda: _steps(task, model, _plain(records, 16))),
    }


def _lora() -> dict[str, Ways]:
    """The same for LoRA factors of every linear layer."""
    from poa.factory.adapters import attach
    from poa.factory.recipe import LoRARecipe

    model, records = attach(gpt2(), LoRARecipe(rank=8)).eval(), token_records()
    task = Tokens("lora")
    capture = captured(task, model, in_batches(records, 4))
    return {"lora_over_step": (capture, lambda: _steps(task, model, _plain(records, 16)))}


def gpt2(layers: int = LAYERS, width: int = WIDTH) -> Any:
    """A GPT-2 shape with random weights, in eval mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LONGEST,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    model.set_attn_implementation("eager")  # what runs are captured with: a record's bytes do not depend on its batch
    return model


def token_records(count: int = EXAMPLES, longest: int = LONGEST) -> list[Record]:
    """Token ids of lengths spread evenly from an eighth of the longest to all of it."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(longest // 8, longest, count, endpoint=True)
    return [
        Record(f"r{i}", features=tuple(map(float, generator.integers(1, VOCABULARY, length))))
        for i, length in enumerate(lengths)
    ]


def _plain(records: list[Record], size: int) -> list[list[Record]]:
    return [records[start : start + size] for start in range(0, len(records), size)]


def in_batches(records: list[Record], size: int) -> list[list[Record]]:
    """Batches of records of like length."""
    return _plain(sorted(records, key=lambda record: len(record.features)), size)


def captured(
    task: Tokens, model: nn.Module, batches: list[list[Record]], precision: str = "full"
) -> Callable[[], Tensor]:
    """A call that makes the sketched gradients of every record, [n, k], from the opening of the capture on."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        sketch = TwoSided(SIDE).prepared(capture.blocks, dtype)

    def once() -> Tensor:
        with capturing(task, model, fused=True, precision=precision) as capture:  # type: ignore[arg-type]
            return torch.cat([sketch.features(capture.factors(batch, "train")) for batch in batches])

    return once


def _half() -> tuple[Callable[[], object], Callable[[], object], float]:
    """(the features pass in bfloat16, the plain pass, mean Spearman of 8 records' rankings with those of float32).

    A processor without such instructions emulates them some twenty times slower: there only a batch of short records
    is timed, so that the figure is known at all.
    """
    from transformers.pytorch_utils import Conv1D

    from poa.evaluation.correlation import mean_spearman

    model, task = gpt2(), Tokens(Conv1D)
    batches = in_batches(token_records(), 4)
    few = batches if _has_bf16() else batches[:1]
    seen = batches if _has_bf16() else batches[:3]
    rows = [captured(task, model, seen, kind)().double().numpy() for kind in ("bf16", "full")]
    agreement = mean_spearman(*(found[:8] @ found.T for found in rows))
    return captured(task, model, few, "bf16"), lambda: _steps(task, model, few), agreement


def _has_bf16() -> bool:
    """Whether the processor multiplies in bfloat16 itself."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(word in flags.read_text() for word in ("avx512_bf16", "amx_bf16", "bf16"))


def _require_same(task: Tokens, model: nn.Module, batch: list[Record]) -> None:
    """Features have 4,096 numbers or more and agree with those of the plain pass."""
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        plain = TwoSided(SIDE).prepared(capture.blocks, torch.float32).features(capture.factors(batch, "train"))
    quick = captured(task, model, [batch])()
    gap = float((quick - plain).norm() / plain.norm())
    if quick.shape[1] < FEATURES or gap > 1e-5:
        raise PoaError(f"{quick.shape[1]} features that differ by {gap:.1e}; must be {FEATURES} or more, within 1e-5")


def _floor(task: Tokens, model: Any, batches: list[list[Record]]) -> None:
    """Forward and activation gradients, by the same fused operations.

    No method that reads gradients at every layer can do without.
    """
    _, log_probabilities = task.fused(model)
    embedding = model.get_input_embeddings()
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    handle = embedding.register_forward_hook(lambda _, __, out: out.requires_grad_())
    try:
        with fused_activations(model):
            for batch in batches:
                log_probabilities(task.batch(batch)).sum().backward()
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)


def _steps(task: Tokens, model: nn.Module, batches: list[list[Record]]) -> None:
    """Forward and backward as training does it, without the optimizer."""
    for batch in batches:
        task.loss(model, task.batch(batch)).sum().backward()
    model.zero_grad(set_to_none=True)


def _tracin() -> dict[str, Ways]:
    """captum full TracInCP, as it comes and at its fastest, over inner products of factors: 5 checkpoints."""
    from captum.influence import TracInCP
    from torch.utils.data import TensorDataset

    from poa.factory.classifier import Classifier
    from poa.factory.digits import digits

    corpus = digits(900, contributors=5, seed=0)
    train, asked = corpus[:800], corpus[800:]
    task = Classifier(64, 10, "float32")
    torch.manual_seed(0)
    states = [nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).state_dict() for _ in range(5)]
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval()

    def load(_: nn.Module, name: str) -> float:
        model.load_state_dict(states[int(name)])
        return 1.0

    tables = [task.batch(list(part)) for part in (train, asked)]

    def captum(per_batch: bool) -> Callable[[], Tensor]:
        method = TracInCP(
            model,
            TensorDataset(tables[0]["x"], tables[0]["y"]),
            [str(i) for i in range(5)],
            load,
            loss_fn=nn.CrossEntropyLoss(reduction="sum" if per_batch else "none"),
            batch_size=64,
            sample_wise_grads_per_batch=per_batch,
        )

        def scores() -> Tensor:
            with warnings.catch_warnings():
                # captum switches the inputs' gradients on by itself and says so every time.
                warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
                found: Any = method.influence((tables[1]["x"], tables[1]["y"]))
            return found

        return scores

    def ours() -> Tensor:
        total = torch.zeros(len(asked), len(train))
        for state in states:
            model.load_state_dict(state)
            with capturing(task, model) as capture:
                # Both sides by the loss, as captum has it.
                sides = [capture.factors(list(part), "train") for part in (asked, train)]
            for name, factors in sides[0].factors.items():
                total += inner(factors[0], sides[1].factors[name][0])
        return total

    ways = {"tracin_vs_captum": captum(False), "tracin_vs_captum_best": captum(True)}
    for name, theirs in ways.items():
        gap = float((ours() - theirs()).norm() / ours().norm())
        if gap > 1e-5:
            raise PoaError(f"{name}: the scores differ by {gap:.1e}, must agree to 1e-5")
    return {name: (theirs, ours) for name, theirs in ways.items()}
