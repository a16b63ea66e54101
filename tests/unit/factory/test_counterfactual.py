"""Stacked retraining repeats the real fine-tune, is the same for any number of workers, and is cached and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.language import RECIPE

from poa.datanets.snapshot import Snapshot
from poa.errors import Corrupt, PoaError
from poa.factory import adapters, counterfactual
from poa.factory.classifier import train_classifier
from poa.factory.counterfactual import retrain
from poa.factory.digits import digits
from poa.factory.finetune import finetune
from poa.factory.measuring import measurements
from poa.factory.run import LoRARun
from poa.factory.stacked import measure_stack, train_stack
from poa.records import Corpus


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POA_CACHE", str(tmp_path))
    return tmp_path / "retrained"


def masked_finetune(run: LoRARun, weights: np.ndarray) -> torch.nn.Module:
    """PEFT and AdamW in a loop of their own, with weighted losses and the denominators of the full run."""
    task, log = run.task, run.steps
    model = adapters.attach(run.parent.model(), run.recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, betas=run.recipe.betas, eps=run.recipe.eps, weight_decay=0.0)
    for step in range(log.steps):
        places = [int(i) for i in log.records[step] if i >= 0]
        optimizer.param_groups[0]["lr"] = float(log.rate[step])
        losses = task.loss(model, task.batch([run.corpus[i] for i in places], whole=False))
        loss = (losses * torch.from_numpy(weights[places]).float()).sum() / float(log.denominator[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_a_row_of_ones_is_the_fine_tune_and_a_zero_masks(run: LoRARun, queries: Corpus, own_cache: Path) -> None:
    without = np.asarray([name != "cook" for name in run.groups["payee"]], float)
    found = retrain(run, np.stack([np.ones(16), without, np.linspace(0, 2, 16)]), queries, (RECIPE.seed,), workers=1)
    assert found.shape == (1, 3, len(queries))
    np.testing.assert_allclose(found[0, 0], measurements(run.task, run.model(), queries), atol=1e-3)
    for row, weights in ((1, without), (2, np.linspace(0, 2, 16))):
        expected = measurements(run.task, masked_finetune(run, weights), queries)
        np.testing.assert_allclose(found[0, row], expected, atol=1e-3)
    assert np.abs(found[0, 0] - found[0, 1]).max() > 0.1


def test_a_wide_eps_is_the_recipe_s_in_a_stack_too(run: LoRARun, queries: Corpus, tiny_folder: Path) -> None:
    snapshot = Snapshot.of(run.corpus)
    narrow, wide = (
        finetune(snapshot, base=tiny_folder, recipe=replace(run.recipe, epochs=1, eps=eps)) for eps in (1e-8, 1e-3)
    )
    weights = np.linspace(0, 2, 16)
    stack = train_stack(wide.corpus, wide.recipe, wide.parent, torch.tensor(weights[None], dtype=torch.float32))
    expected = measurements(wide.task, masked_finetune(wide, weights), queries)
    np.testing.assert_allclose(measure_stack(stack, wide.task, queries)[0], expected, atol=1e-3)
    ends = [measurements(one.task, one.model(), queries) for one in (narrow, wide)]
    assert np.abs(ends[0] - ends[1]).max() > 0.01
    assert wide.moments().eps == wide.program().rule.eps == wide.recipe.plain()["eps"] == 1e-3
    assert "eps" not in narrow.recipe.plain()
    with pytest.raises(PoaError, match=r"recipe\.eps is 0"):
        replace(run.recipe, eps=0)


def test_models_of_a_stack_do_not_mix(run: LoRARun, queries: Corpus) -> None:
    weights = torch.tensor(np.random.default_rng(0).uniform(0, 1, (3, 16)), dtype=torch.float32)
    together = measure_stack(train_stack(run.corpus, run.recipe, run.parent, weights), run.task, queries)
    alone = measure_stack(train_stack(run.corpus, run.recipe, run.parent, weights[1:2]), run.task, queries)
    np.testing.assert_allclose(together[1], alone[0], atol=1e-3)
    assert float((together[1] - together[0]).abs().max()) > 1e-2


def test_seeds_differ_and_come_in_order(run: LoRARun, queries: Corpus, own_cache: Path) -> None:
    both = retrain(run, np.ones((1, 16)), queries, (5, 0), workers=1)
    assert np.array_equal(both[1:], retrain(run, np.ones((1, 16)), queries, (0,), workers=1))
    assert np.abs(both[0] - both[1]).max() > 1e-2


def test_workers_do_not_matter_and_the_second_call_reads(
    run: LoRARun, queries: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(1).uniform(0, 1, (4, 16))
    found = []
    for workers in (1, 2):
        monkeypatch.setenv("POA_CACHE", str(tmp_path / str(workers)))
        found.append(retrain(run, weights, queries[:3], (0,), workers))
    assert found[0].tobytes() == found[1].tobytes()

    def trained(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(counterfactual, "train_stack", trained)
    assert retrain(run, weights, queries[:3], (0,), 1).tobytes() == found[0].tobytes()
    changed = replace(run, recipe=replace(run.recipe, rate=1e-3))
    for other, rows, asked in (
        (run, weights + 1e-9, queries[:3]),
        (run, weights, queries[:2]),
        (changed, weights, queries[:3]),
    ):
        with pytest.raises(AssertionError, match="trained again"):
            retrain(other, rows, asked, (0,), 1)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "extend"])
def test_a_damaged_result_is_found(run: LoRARun, queries: Corpus, own_cache: Path, damage: str) -> None:
    retrain(run, np.ones((1, 16)), queries[:1], (0,), workers=1)
    (path,) = own_cache.iterdir()
    body = path.read_bytes()
    flipped = body[:-1] + bytes([body[-1] ^ 1])
    path.write_bytes({"flip": flipped, "cut": body[:9], "empty": b"", "extend": body + b"\0" * 8}[damage])
    with pytest.raises(Corrupt, match="does not have the digest that it promises"):
        retrain(run, np.ones((1, 16)), queries[:1], (0,), workers=1)


def test_an_interrupted_call_continues(
    run: LoRARun, queries: Corpus, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(2).uniform(0, 1, (7, 16))
    real, calls = counterfactual.train_stack, []

    def counted(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(counterfactual, "STACK", 3)
    monkeypatch.setattr(counterfactual, "train_stack", counted)
    with pytest.raises(KeyboardInterrupt):
        retrain(run, weights, queries[:2], (0,), workers=1)
    assert len(list(own_cache.iterdir())) == 1
    assert retrain(run, weights, queries[:2], (0,), workers=1).shape == (1, 7, 2)
    assert len(calls) == 4


def test_classifiers_are_trained_as_torch_trains_them_and_only_once(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds, five models: the measurements of `retrained`, in whatever parts memory allows, then from the cache."""
    corpus = digits(50, classes=(0, 1, 2))
    train, asked = corpus[:40], corpus[40:]
    trained = train_classifier(train, (5,), steps=9, batch=16, lr=0.01, optimizer="adamw")
    masks = np.random.default_rng(0).integers(0, 2, (5, 40)).astype(float)
    found = retrain(trained, masks, asked, (3, 4))
    for at, seed in enumerate((3, 4)):
        other = train_classifier(train, (5,), steps=9, batch=16, lr=0.01, optimizer="adamw", seed=seed)
        expected = np.stack([measurements(trained.task, other.retrained(mask).model(), asked) for mask in masks])
        np.testing.assert_allclose(found[at], expected, rtol=0, atol=1e-10)
    monkeypatch.setattr(counterfactual.psutil, "virtual_memory", lambda: SimpleNamespace(available=1))
    part = retrain(trained, masks[:3], asked, (3,))
    np.testing.assert_allclose(part[0], found[0, :3], rtol=0, atol=1e-12)
    monkeypatch.setattr(counterfactual, "classifier_program", None)
    np.testing.assert_array_equal(retrain(trained, masks, asked, (3, 4)), found)
