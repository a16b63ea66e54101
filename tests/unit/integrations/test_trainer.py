"""A real Trainer, recorded: the log explains the weights, and TracIn on it is the sum by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.texts import CONTEXT, WORDS, language_model, save_tokenizer
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from poa import Corpus
from poa.errors import PoaError, Unsupported
from poa.factory.causal import CausalLM
from poa.integrations.trainer import COLUMN, AttributionRecorder, carrying
from poa.methods.less import LESS
from poa.methods.tracin import TracInCP

N, BATCH, PARTS, EPOCHS = 10, 2, 2, 2
CORPUS = Corpus.from_texts(" ".join(WORDS[i : i + 2 + i % 3]) for i in range(N))
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": PARTS,
    "num_train_epochs": EPOCHS,
    "learning_rate": 0.01,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 0.0,
    "remove_unused_columns": False,
    "use_cpu": True,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


class Rates(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.seen.append(float(given["lr_scheduler"].get_last_lr()[0]))


def plain(rows: Any, task: CausalLM) -> dict[str, Any]:
    return dict(task.batch([CORPUS[row["text"]] for row in rows]))


def trained(folder: Path, wrapped: bool = True, **changes: Any) -> tuple[AttributionRecorder, Any, CausalLM, Rates]:
    task = CausalLM(str(save_tokenizer("gpt2", folder / "tokenizer")), CONTEXT)
    model, recorder, rates = language_model("gpt2"), AttributionRecorder(), Rates()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def collate(rows: Any) -> dict[str, Any]:
        return plain(rows, task)

    Trainer(
        model,
        TrainingArguments(output_dir=str(folder / "out"), **(SETTINGS | {"optim": "adamw_torch"} | changes)),
        data_collator=carrying(collate) if wrapped else collate,
        train_dataset=[{"text": i, COLUMN: i} for i in range(N)],
        callbacks=[recorder, rates],
    ).train()
    return recorder, model, task, rates


def members(row: Any) -> list[int]:
    return [int(i) for i in row if i >= 0]


def gradient(model: nn.Module, total: Tensor) -> Tensor:
    found = torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad])
    return torch.cat([part.flatten() for part in found]).double()


def test_the_log_explains_every_step_of_sgd(tmp_path: Path) -> None:
    recorder, model, task, rates = trained(tmp_path, optim="sgd")
    log, run = recorder.steps, recorder.run(model, CORPUS, task)
    np.testing.assert_array_equal(log.rate, rates.seen)
    for epoch in np.split(log.records, EPOCHS):
        assert sorted(members(epoch.ravel())) == list(range(N))
    before = run.base()
    for step in range(log.steps):
        after = run.model(step)
        batch = task.batch([CORPUS[i] for i in members(log.records[step])])
        total = task.loss(before, batch).sum()
        assert log.denominator[step] == int((batch["labels"] != -100).sum())
        assert log.loss[step] == pytest.approx(float(total.detach()) / log.denominator[step], rel=1e-5)
        moved = torch.cat([(b - a).flatten() for a, b in zip(before.parameters(), after.parameters(), strict=True)])
        want = -log.rate[step] / log.denominator[step] * gradient(before, total)
        assert float((moved.detach().double() - want).norm() / want.norm()) < 1e-3
        before = after


def test_tracin_on_a_recorded_training_is_the_sum_by_hand(tmp_path: Path) -> None:
    recorder, model, task, _ = trained(tmp_path)
    log, run, want = recorder.steps, recorder.run(model, CORPUS, task), np.zeros((2, N))
    for step in range(log.steps):
        at = run.model(step)
        queries = [gradient(at, task.measurement(at, task.batch([CORPUS[q]])).sum()) for q in range(2)]
        for i in members(log.records[step]):
            helped = -gradient(at, task.loss(at, task.batch([CORPUS[i]])).sum())
            want[:, i] += log.rate[step] / log.denominator[step] * np.array([float(v @ helped) for v in queries])
    got = TracInCP().fit(run).attribute(CORPUS[:2]).values
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert np.isfinite(LESS().fit(run).attribute(CORPUS[:2]).values).all()
    assert [m.steps for m in recorder.moments] == list(run.checkpoints)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_grad_norm": 1.0}, "clipping"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"weight_decay": 0.1}, "weight_decay differs"),
        ({"optim": "adafactor"}, "is not recorded"),
    ],
)
def test_what_a_step_log_cannot_say_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        trained(tmp_path, **changes)


def test_a_batch_without_positions_and_an_unused_recorder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="carrying"):
        trained(tmp_path, wrapped=False)
    with pytest.raises(PoaError, match="nothing was recorded"):
        _ = AttributionRecorder().steps
