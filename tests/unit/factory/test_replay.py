"""A replay is the training itself: the same batches, the same bytes, the optimizer's state at every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.language import RECIPE

from poa.conformance.bigram import bigram_corpus, train_bigram
from poa.conformance.views import duplicated, isolated, permuted
from poa.errors import Mismatch, PoaError, Unsupported
from poa.factory import adapters
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.factory.run import LoRARun, moments_file
from poa.gradients.trajectory import moments_of, optimizer_of, replay_of, segment_rate

CORPUS = digits(30, contributors=3, classes=(1, 7, 9))
RULES = {
    "sgd": {},
    "heavy ball": {"momentum": 0.9, "decay": 0.01, "lr": 0.02},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6},
}


def classifier(rule: str, **more: object) -> ClassifierRun:
    return train_classifier(CORPUS, hidden=(5,), steps=14, batch=8, keep=3, **(RULES[rule] | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_a_classifier_replays_to_the_same_bytes(rule: str) -> None:
    run = classifier(rule)
    seen = []
    for step in run.replay():
        places = run.steps.records[step.number]
        np.testing.assert_array_equal(step.records, places[places >= 0])
        assert (step.rate, step.denominator) == (run.steps.rate[step.number], run.steps.denominator[step.number])
        if step.number in run.checkpoints:
            position = run.checkpoints.index(step.number)
            for name, value in step.model.state_dict().items():
                assert torch.equal(value, run.states[position][name])
            kept = run.moments(position)
            assert (step.moments is None) == (kept is None) == (rule != "adamw")
            if step.moments is not None and kept is not None:
                assert step.moments.steps == kept.steps == step.number
                assert all(
                    torch.equal(a, b)
                    for n in kept.state
                    for a, b in zip(step.moments.state[n], kept.state[n], strict=True)
                )
        seen.append(step.number)
    assert seen == list(range(14))


def test_a_replay_that_ends_elsewhere_is_refused() -> None:
    run = classifier("sgd")
    last = {name: value + 1e-12 for name, value in run.states[-1].items()}
    with pytest.raises(Mismatch, match="does not come to the stored weights"):
        list(replace(run, states=(*run.states[:-1], last)).replay())


def test_a_replay_does_not_mind_what_its_reader_does_to_autograd() -> None:
    run = classifier("adamw")
    with torch.no_grad():
        assert len(list(run.replay())) == 14


def test_a_masked_training_replays_with_its_weights() -> None:
    weights = np.ones(30)
    weights[4] = 0.0
    run = classifier("adamw").retrained(weights)
    for step in run.replay():
        np.testing.assert_array_equal(step.weights, np.where(step.records == 4, 0.0, 1.0))


def test_adamw_by_hand() -> None:
    """Decoupled decay, bias correction, eps outside the root; moments are of the gradient of the batch mean."""
    run = classifier("adamw")
    model = run.base()
    named = dict(model.named_parameters())
    first = {name: torch.zeros_like(p) for name, p in named.items()}
    second = {name: torch.zeros_like(p) for name, p in named.items()}
    for number, row in enumerate(run.steps.records):
        batch = run.task.batch([CORPUS[int(i)] for i in row if i >= 0])
        loss = run.task.loss(model, batch).mean()
        for (name, p), slope in zip(named.items(), torch.autograd.grad(loss, list(named.values())), strict=True):
            first[name] = 0.8 * first[name] + 0.2 * slope
            second[name] = 0.95 * second[name] + 0.05 * slope**2
            top, low = first[name] / (1 - 0.8 ** (number + 1)), second[name] / (1 - 0.95 ** (number + 1))
            p.data = p.data * (1 - 0.01 * 0.1) - 0.01 * top / (low.sqrt() + 1e-6)
    kept = run.moments()
    assert kept is not None
    assert (kept.steps, kept.betas, kept.eps) == (14, (0.8, 0.95), 1e-6)
    for name, p in run.model().named_parameters():
        torch.testing.assert_close(p.detach(), named[name].detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(kept.state[name][0], first[name], rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(kept.state[name][1], second[name], rtol=1e-10, atol=1e-14)


def test_adamw_is_part_of_the_identity_and_sgd_does_not_name_what_it_does_not_read() -> None:
    assert classifier("sgd").digest == classifier("sgd", betas=(0.5, 0.5)).digest
    digests = {
        classifier("adamw", **more).digest for more in ({}, {"betas": (0.9, 0.95)}, {"eps": 1e-5}, {"decay": 0.0})
    }
    assert len(digests | {classifier("sgd").digest}) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"optimizer": "adam"}, "optimizer is 'adam', must be sgd or adamw"),
        ({"optimizer": "adamw", "momentum": 0.9}, "adamw has its own"),
        ({"optimizer": "adamw", "betas": (0.9, 1.0)}, "0 <= beta < 1"),
        ({"optimizer": "adamw", "eps": 0.0}, "eps > 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        classifier("sgd", **more)


def test_a_bigram_model_replays() -> None:
    run = train_bigram(bigram_corpus(12), steps=9)
    assert [step.number for step in run.replay()] == list(range(9))
    assert moments_of(run, -1) is None
    assert optimizer_of(run).kind == "sgd"
    wrong = {name: value * 2 for name, value in run.states[-1].items()}
    with pytest.raises(Mismatch, match="stored weights"):
        list(replace(run, states=(*run.states[:-1], wrong)).replay())


def test_a_view_replays_with_its_own_records() -> None:
    run = classifier("adamw")
    order = np.random.default_rng(0).permutation(30)
    with isolated(run) as view:
        for real, seen, twice in zip(
            run.replay(), permuted(view, order).replay(), duplicated(view, 3, "copy").replay(), strict=True
        ):
            np.testing.assert_array_equal(order[seen.records], real.records)
            assert sorted(twice.records) == sorted([*real.records, *([30] if 3 in real.records else [])])
            assert len(twice.weights) == len(twice.records)


def test_a_run_without_these_abilities_is_named() -> None:
    class Plain:
        pass

    for ask in (optimizer_of, replay_of, lambda run: moments_of(run, -1)):
        with pytest.raises(Unsupported, match="this run"):
            ask(Plain())  # type: ignore[arg-type]


def test_the_rate_of_a_segment(run: LoRARun) -> None:
    assert segment_rate(run, 0) == pytest.approx(run.steps.rate[:4].mean())
    assert segment_rate(run, 1) == pytest.approx(run.steps.rate[4:8].mean())


# -- fine-tunes ---------------------------------------------------------------------------------------------------


def test_a_finetune_replays_to_the_bytes_of_every_checkpoint(run: LoRARun, tmp_path: Path) -> None:
    kept = {step: run.moments(position) for position, step in enumerate(run.checkpoints)}
    steps = run.replay()
    model = None
    for step in steps:
        model, moments = step.model, step.moments
        assert moments is not None
        if step.number in kept:
            stored = dict(run.model(run.checkpoints.index(step.number)).named_parameters())
            for name, (first, second) in kept[step.number].state.items():
                assert torch.equal(moments.state[name][0], first)
                assert torch.equal(moments.state[name][1], second)
                assert torch.equal(dict(step.model.named_parameters())[name], stored[name])
    adapters.publish(model, tmp_path / "end", run.parent.digest)
    assert adapters.adapter_digest(tmp_path / "end") == run.adapter_digest


def test_moments_are_kept_beside_the_adapter(run: LoRARun) -> None:
    assert sorted(path.name for path in run.adapter_folder.iterdir()) == sorted(adapters.FILES)
    names = {name for name, p in run.model().named_parameters() if p.requires_grad}
    for position, step in enumerate(run.checkpoints):
        moments = run.moments(position)
        assert set(moments.state) == names
        assert (moments.steps, moments.betas) == (step, RECIPE.betas)
        assert moments_file(run.folder, step).is_file()


def test_an_older_run_says_that_it_keeps_no_moments(run: LoRARun, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="keeps no optimizer state"):
        replace(run, folder=tmp_path).moments()


def test_a_replay_of_another_training_is_refused(run: LoRARun) -> None:
    with pytest.raises(Mismatch, match="from the stored checkpoint 4"):
        list(replace(run, recipe=replace(run.recipe, seed=1)).replay())


def test_a_replay_that_rounds_otherwise_goes_on_from_the_checkpoint(
    run: LoRARun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poa.factory.causal import CausalLM

    real = CausalLM.loss
    monkeypatch.setattr(CausalLM, "loss", lambda self, model, batch: real(self, model, batch) * (1 + 1e-5))
    stored = dict(run.model(0).named_parameters())
    for step in run.replay():
        if step.number == run.checkpoints[0]:
            named = dict(step.model.named_parameters())
            assert all(torch.equal(named[name], stored[name]) for name in run.moments().state)
