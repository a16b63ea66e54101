"""Generation: deterministic in the seed, the model's own log-probabilities, one clear refusal where it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.serving.generate import Sampling, generate, require_room


@pytest.fixture(scope="module")
def model(run: LoRARun) -> Any:
    return run.model()


def test_greedy_takes_the_most_likely_token_every_time(run: LoRARun, model: Any) -> None:
    made = generate(run.task, model, "The matrix of", Sampling(max_new_tokens=8))
    ids = [run.task.edges[0], *run.task.encode("The matrix of")]
    for token, logprob in zip(made.ids, made.logprobs, strict=True):
        with torch.no_grad():
            row = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)
        assert int(row.argmax()) == token
        assert float(row[token]) == pytest.approx(logprob, abs=1e-4)
        ids.append(token)
    assert made.finish_reason == ("stop" if ids[-1] == run.task.edges[1] else "length")


def test_sampling_follows_the_seed_and_leaves_torch_alone(run: LoRARun, model: Any) -> None:
    def sampled(seed: int) -> tuple[int, ...]:
        return generate(run.task, model, "The", Sampling(12, temperature=1.5, seed=seed)).ids

    state = torch.get_rng_state()
    first = sampled(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert sampled(1) == first
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_a_tiny_nucleus_is_greedy(run: LoRARun, model: Any) -> None:
    greedy = generate(run.task, model, "The matrix", Sampling(6))
    assert generate(run.task, model, "The matrix", Sampling(6, temperature=1.0, top_p=1e-6, seed=5)).ids == greedy.ids


def test_the_context_is_exact(run: LoRARun, model: Any) -> None:
    tokens = len(run.task.encode("The matrix"))
    room = run.task.context - 2 - tokens
    assert require_room(run.task, "The matrix", room, "max_new_tokens is") == tokens
    with pytest.raises(PoaError, match=f"has {tokens} tokens and max_new_tokens is {room + 1}.*leaves {room}"):
        generate(run.task, model, "The matrix", Sampling(room + 1))
    with pytest.raises(PoaError, match="context of 128 holds at most 125"):
        generate(run.task, model, "matrix " * 200, Sampling(1))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(PoaError, match=named):
        Sampling(**settings)
