"""A JAX model and the same network in torch: equal gradients and scores, and plain words where layers are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import poa
from poa.errors import PoaError, Unsupported
from poa.factory.brought import TorchRun
from poa.factory.classifier import Classifier
from poa.factory.digits import digits
from poa.gradients.store import blocks_of, gradients
from poa.integrations.jax_run import JaxRun
from poa.methods import method
from poa.steplog import StepLog

CORPUS = digits(30, contributors=3, seed=0)
TRAIN, ASKED = CORPUS[:24], CORPUS[24:]
LOG = StepLog(np.arange(24).reshape(4, 6), np.full(4, 0.1), np.full(4, 6.0), np.zeros(4))


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))


def tree(model: nn.Module) -> dict[str, Any]:
    """Leaves in the order of torch's rows: weight and bias of a layer stand side by side there, so names sort alike."""
    state = {name: jnp.asarray(value.numpy()) for name, value in model.state_dict().items()}
    return {layer: {part: state[f"{layer}.{part}"] for part in ("weight", "bias")} for layer in ("0", "2")}


def prepare(record: poa.Record) -> dict[str, Any]:
    batch = Classifier(64, 10, "float32").batch([record])
    return {"x": jnp.asarray(batch["x"][0].numpy()), "y": int(batch["y"][0])}


def logits(weights: Any, example: Any) -> Any:
    hidden = jnp.tanh(weights["0"]["weight"] @ example["x"] + weights["0"]["bias"])
    return weights["2"]["weight"] @ hidden + weights["2"]["bias"]


def loss(weights: Any, example: Any) -> Any:
    found = logits(weights, example)
    return jax.nn.logsumexp(found) - found[example["y"]]


def log_odds(weights: Any, example: Any) -> Any:
    found = logits(weights, example)
    return found[example["y"]] - jax.nn.logsumexp(found.at[example["y"]].set(-jnp.inf))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[JaxRun, TorchRun]:
    models = {2: network(0), 4: network(1)}
    ours = JaxRun.of(
        "digits/1",
        {step: tree(model) for step, model in models.items()},
        TRAIN,
        loss,
        prepare,
        measurement=log_odds,
        steps=LOG,
        cache=tmp_path / "jax",
    )
    states = {step: model.state_dict() for step, model in models.items()}
    task = Classifier(64, 10, "float32")
    return ours, TorchRun.of(network(2), states, TRAIN, task, steps=LOG, cache=tmp_path / "torch")


def test_gradients_agree_leaf_by_leaf(runs: tuple[JaxRun, TorchRun]) -> None:
    ours, theirs = runs
    blocks = {block.name: block for block in blocks_of(ours)}
    assert sorted(blocks) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert blocks["0.weight"].shape == (8, 64)
    rows, expected = gradients(ours, -1, TRAIN, "train"), gradients(theirs, -1, TRAIN, "train")
    for block in expected.blocks:  # weight and bias as [out, in + 1]
        cube = expected.block(block).reshape(-1, *block.shape)
        found = rows.block(blocks[f"{block.name}.weight"]).reshape(-1, block.shape[0], block.shape[1] - 1)
        np.testing.assert_allclose(found, cube[:, :, :-1], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rows.block(blocks[f"{block.name}.bias"]), cube[:, :, -1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["graddot", "gradcos", "tracin", "influence"])
def test_scores_agree(runs: tuple[JaxRun, TorchRun], name: str, tmp_path: Path) -> None:
    settings = {"damping": 0.1} if name == "influence" else {}
    found, expected = (method(name, **settings).fit(run).attribute(ASKED).values for run in runs)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    index = method(name, **settings).fit(runs[0])
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index", runs[0]).attribute(ASKED)
    assert again.values.tobytes() == index.attribute(ASKED).values.tobytes()


def test_what_needs_a_torch_module_is_refused(runs: tuple[JaxRun, TorchRun]) -> None:
    for name in ("ekfac", "repsim", "captum"):
        with pytest.raises(Unsupported, match="JAX run"):
            method(name).fit(runs[0]).attribute(ASKED)
    with pytest.raises(Unsupported, match="balanced coordinates need LoRA"):
        method("graddot", coordinates="balanced").fit(runs[0])


def test_wrong_trees_are_refused() -> None:
    weights = tree(network(0))
    with pytest.raises(PoaError, match="must ascend from 1"):
        JaxRun.of("d", {3: weights, 2: weights}, TRAIN, loss, prepare)
    with pytest.raises(PoaError, match="other names or shapes"):
        JaxRun.of("d", {1: weights, 2: {"0": weights["0"]}}, TRAIN, loss, prepare)
    with pytest.raises(PoaError, match="holds int32, must be floats"):
        JaxRun.of("d", {1: weights | {"steps": jnp.arange(3)}}, TRAIN, loss, prepare)
    with pytest.raises(PoaError, match="the corpus is empty"):
        JaxRun.of("d", {1: weights}, TRAIN[:0], loss, prepare)
    run = JaxRun.of("d", {1: weights}, TRAIN, lambda w, e: loss(w, e) * jnp.nan, prepare)
    with pytest.raises(PoaError, match="is not finite"):
        method("graddot").fit(run)
    with pytest.raises(Unsupported, match="without a step log"):
        _ = run.steps
