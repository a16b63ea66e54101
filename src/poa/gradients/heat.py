"""Influence heat: how much the training set as a whole raised each token of a response, by one method."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from poa.gradients.capture import Block, capturing
from poa.gradients.gauge import adapter_tangents
from poa.gradients.lens import Lens
from poa.gradients.linear import LinearIndex
from poa.gradients.places import places
from poa.gradients.store import gradients
from poa.records import Corpus

if TYPE_CHECKING:
    from torch import Tensor

    from poa.factory.causal import CausalLM

Row = npt.NDArray[np.float64]


def token_heat(
    index: LinearIndex, task: CausalLM, queries: Corpus, train_ids: Sequence[str] | None = None
) -> list[Row]:
    """Per query [T] signed heat of its supervised tokens (its text tokens, then eos), in the index's unit.

    `train_ids`: the records whose scores are split over tokens, all by default; with one id, its score per token.

    The method's score is linear in the query gradient, so the directional derivative of each token's log-probability
    along the sum of the training rows splits the total score over tokens: heat.sum() equals the sum of `attribute` over
    those records. Where the index asks about log-odds (`trak`), it is the derivative of each token's log-odds.
    One forward-mode pass per checkpoint for all queries together.
    """
    batch = task.batch(queries)
    totals = np.zeros((len(queries), batch["labels"].shape[1] - 1))
    for position, lens, direction in zip(index.positions, index.lenses, index.directions(train_ids), strict=True):
        model = index.run.model(position)
        with capturing(task, model, index.coordinates) as capture:
            blocks = capture.blocks
        lifted = lens.lift(direction, blocks)
        if index.coordinates == "balanced":
            tangents = adapter_tangents(model, _tangents(model, blocks, lifted))
        else:
            row = torch.from_numpy(np.array(lifted, np.float64))
            named = dict(model.named_parameters())
            tangents = {name: value.to(named[name]) for name, value in places(task, model).parameters(row).items()}
        heat = _derivative(task, model, batch, tangents, index.side.endswith("margin"))
        totals += heat / _norms(index, queries, position, lens)[:, None] if lens.unit else heat
    ends = batch["attention_mask"].sum(1).tolist()
    leads = [task.sequence(query, whole=True)[1] for query in queries]
    return [row[lead - 1 : end - 1] for row, lead, end in zip(totals, leads, ends, strict=True)]


def _norms(index: LinearIndex, queries: Corpus, position: int, lens: Lens) -> Row:
    rows = gradients(index.run, position, queries, index.side, index.coordinates)
    features = np.asarray(lens.linear(rows), np.float64)
    return np.maximum(np.sqrt((features**2).sum(1)), np.finfo(np.float64).tiny)


def _tangents(model: Any, blocks: Sequence[Block], flat: npt.NDArray[Any]) -> dict[str, Tensor]:
    """Of LoRA factors in balanced coordinates, and of linear layers beside them."""
    tangents: dict[str, Tensor] = {}
    for block in blocks:
        weight: Tensor = model.get_submodule(block.name).get_parameter("weight")
        part = torch.from_numpy(np.array(flat[block.start : block.stop])).view(block.shape).to(weight.dtype)
        if "bias" in dict(model.get_submodule(block.name).named_parameters()):
            tangents[f"{block.name}.bias"] = part[:, -1]
            part = part[:, :-1]
        tangents[f"{block.name}.weight"] = part
    return tangents


def _derivative(task: CausalLM, model: Any, batch: Any, tangents: dict[str, Tensor], margin: bool) -> Row:
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if name in tangents}

    def tokens(changed: dict[str, Tensor]) -> Tensor:
        return task.token_log_probabilities(lambda **given: functional_call(model, changed, (), given), batch)

    # Fused attention has no forward-mode derivative.
    with torch.no_grad(), warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        # torch compiles its forward-mode formulas with its own deprecated torch.jit.script on first use.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*is deprecated", category=DeprecationWarning)
        found = jvp(tokens, (weights,), (tangents,))
    values: Tensor = found[0]
    derivative: Tensor = found[1]
    heat: Row = derivative.to(torch.float64).numpy()
    if margin:
        # d log-odds = d log p / (1 - p); positions that are not supervised have log p = 0 and no heat.
        doubt = -np.expm1(values.to(torch.float64).numpy())
        heat = np.divide(heat, doubt, out=np.zeros_like(heat), where=doubt > 0)
    return heat
