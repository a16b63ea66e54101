"""captum 0.9's TracInCP and TracInCPFast on a poa run; [query, train] scores with poa's sign."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from captum.influence import TracInCP, TracInCPFast
from subjects import Matrix, Tables, rates
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from poa.protocols import TrainingRun
from poa.records import Corpus


class _Loss:
    """The task's loss of logits that the model has made already: captum calls model(inputs), then loss(outputs)."""

    def __init__(self, tables: Tables, measured: bool, reduction: str) -> None:
        self.tables, self.measured, self.reduction = tables, measured, reduction

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        data = (outputs, labels)
        if self.measured:
            each = -self.tables.measurements(lambda *_: outputs, data)
        else:
            each = self.tables.losses(lambda *_: outputs, data)
        return each if self.reduction == "none" else each.sum()


def _data(side: Sequence[Tensor]) -> Dataset[Any]:
    return TensorDataset(*side)


def tracin(
    run: TrainingRun,
    queries: Corpus,
    fast: bool = False,
    last: bool = False,
    size: int | None = None,
    plain: bool = False,
) -> Matrix:
    """fast: TracInCPFast, which reads the last linear layer only. last: the last checkpoint with a rate of 1.

    plain: every checkpoint with a rate of 1 instead of poa's rates.
    """
    tables = Tables(run, queries)
    model = run.model()
    weights = [1.0] if last else [1.0] * len(run.checkpoints) if plain else rates(run)
    first = len(run.checkpoints) - len(weights)
    size = size or len(tables.train[0])

    def load(net: _Logits, name: str) -> float:
        net.model.load_state_dict(run.model(int(name)).state_dict())
        return weights[int(name) - first]

    names = [str(first + i) for i in range(len(weights))]
    reduction = "sum" if fast else "none"
    losses = [_Loss(tables, measured, reduction) for measured in (False, True)]
    common: dict[str, Any] = {"loss_fn": losses[0], "test_loss_fn": losses[1], "batch_size": size}
    if fast:
        final = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        method: Any = TracInCPFast(_Logits(model), final, _data(tables.train), names, load, **common)
    else:
        layers = [f"model.{name}" for name in run.task.tracked(model)]
        method = TracInCP(_Logits(model), _data(tables.train), names, load, layers=layers, **common)
    with warnings.catch_warnings():
        # captum switches the inputs' gradients on by itself and says so every time.
        warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
        found: Tensor = method.influence(tables.asked)
    return found.detach().numpy()


class _Logits(nn.Module):
    """captum wants a model whose output is a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.model(*inputs)
        return out.logits if hasattr(out, "logits") else out
