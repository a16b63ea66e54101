"""Influence heat: how much the training set as a whole raised each token of a response, by one method."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call, jvp

from poa.gradients.linear import LinearIndex
from poa.gradients.store import gradients
from poa.records import Corpus, Record

if TYPE_CHECKING:
    from torch import Tensor

    from poa.factory.causal import CausalLM

Row = npt.NDArray[np.float64]


def token_heat(index: LinearIndex, task: CausalLM, query: Record) -> Row:
    """[T] signed heat per supervised token of `query` (its text tokens, then eos), in the index's unit.

    The method's score is linear in the query gradient, so the directional derivative of each token's log-probability
    along the sum of all training rows splits the record's total score over tokens: heat.sum() equals the sum of
    `attribute` over all training records. One forward-mode pass per checkpoint.
    """
    batch = task.batch([query])
    lead = task.sequence(query, whole=True)[1]
    total: Row | None = None
    for position, direction in zip(index.positions, index.directions(), strict=True):
        rows = gradients(index.run, position, Corpus([query]), "query")
        flat = direction if index.projection is None else index.projection.lift(direction, rows.blocks)
        if index.unit_query:
            feature = rows.values if index.projection is None else index.projection.apply(rows)
            flat = flat / max(float(np.linalg.norm(feature)), np.finfo(np.float64).tiny)
        model = index.run.model(position)
        tangents: dict[str, Tensor] = {}
        for block in rows.blocks:
            weight: Tensor = model.get_submodule(block.name).get_parameter("weight")
            part = np.asarray(flat[block.start : block.stop]).reshape(block.shape)[:, : weight.shape[1]]
            tangents[f"{block.name}.weight"] = torch.from_numpy(part.copy()).to(weight.dtype)
        heat = _derivative(task, model, batch, tangents)[lead - 1 :]
        total = heat if total is None else total + heat
    if total is None:
        raise ValueError("an index has at least one checkpoint")
    return total


def _derivative(task: CausalLM, model: Any, batch: Any, tangents: dict[str, Tensor]) -> Row:
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if name in tangents}

    def tokens(changed: dict[str, Tensor]) -> Tensor:
        return task.token_log_probabilities(lambda **given: functional_call(model, changed, (), given), batch)[0]

    with torch.no_grad(), warnings.catch_warnings():
        # torch compiles its forward-mode formulas with its own deprecated torch.jit.script on first use.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*is deprecated", category=DeprecationWarning)
        derivative: Tensor = jvp(tokens, (weights,), (tangents,))[1]
    return derivative.to(torch.float64).numpy()
