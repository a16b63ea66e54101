"""TracInCP as captum computes it, wrapped: an independent implementation to hold poa's own against."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from poa.errors import Unsupported
from poa.indexes import Columns, Pretrained, load_columns, save_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from poa.protocols import Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores


@dataclass(frozen=True)
class CaptumTracIn:
    """captum.influence.TracInCP over the tracked parameters with a learning rate of 1 per checkpoint.

    At one checkpoint this is GradDot by somebody else's code. Training gradients are recomputed for every batch of
    queries: captum keeps no index, and gradients of losses that are not the mean of their batch go one at a time.
    """

    checkpoints: str = "last"

    family: ClassVar[str] = "gradient"
    needs: ClassVar[str] = "one checkpoint"
    cost: ClassVar[str] = "N gradients per batch of queries"
    citation: ClassVar[str] = (
        "Pruthi et al., NeurIPS 2020, arXiv 2002.08484; Kokhlikyan et al., Captum, 2020, arXiv 2009.07896"
    )

    exempt: ClassVar[dict[str, str]] = {
        "query batching": "captum multiplies all query gradients at once; last digits depend on the batch",
        "query permutation": "captum multiplies all query gradients at once; last digits depend on the batch",
    }

    def fit(self, run: TrainingRun) -> CaptumIndex:
        if self.checkpoints not in ("last", "all"):
            raise Unsupported(f"checkpoints is {self.checkpoints!r}, must be last or all")
        return CaptumIndex(run, self)


@dataclass(frozen=True, eq=False)
class CaptumIndex(Pretrained):
    """The run itself: captum precomputes nothing that could be kept."""

    run: TrainingRun
    method: CaptumTracIn

    @property
    def run_digest(self) -> str:
        return self.run.digest

    def attribute(self, queries: Corpus) -> Scores:
        import torch
        from captum.influence import TracInCP
        from torch.utils.data import DataLoader, TensorDataset

        count, asked = len(self.run.corpus), len(queries)
        last = len(self.run.checkpoints) - 1
        total = np.zeros((asked, count))
        if asked == 0:
            return Columns.of(self.run).scores([], queries, self.method)
        for position in range(0 if self.method.checkpoints == "all" else last, last + 1):
            model = _loss_model(self.run.task, self.run.model(position), [*self.run.corpus, *queries], count)
            with warnings.catch_warnings():
                # captum proposes its own batched gradients, which handle fewer layer types.
                warnings.filterwarnings("ignore", message=".*sample_wise_grads_per_batch.*")
                tracin = TracInCP(
                    model,
                    DataLoader(TensorDataset(torch.arange(count), torch.zeros(count)), batch_size=1),
                    [str(position)],
                    checkpoints_load_func=_weights_are_loaded,
                    layers=[f"model.{name}" for name in self.run.task.tracked(model.model)],
                    loss_fn=_already_a_loss,
                )
                # captum's score is <grad loss_q, grad loss_i>; a measurement is a negated loss, so the sign agrees.
                asking = TensorDataset(torch.arange(count, count + asked), torch.zeros(asked))
                found: Any = tracin.influence(DataLoader(asking, batch_size=1))
            total += found.detach().numpy()
        return Columns.of(self.run).scores(list(total), queries, self.method)

    def save(self, folder: Path) -> None:
        save_index(folder, "captum", {}, {"columns": Columns.of(self.run).plain(), "method": asdict(self.method)})

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> CaptumIndex:
        """Read what `save` wrote; raises `Mismatch` for another run, `Corrupt` for changed bytes."""
        _, _, meta = load_columns(folder, "captum", run)
        return CaptumIndex(run, CaptumTracIn(**meta["method"]))


def _loss_model(task: Task, model: nn.Module, records: Sequence[Record], queries_from: int) -> Any:
    """A module from record positions [B] to losses [B], so that captum needs to know nothing about the task.

    Positions from `queries_from` on are queries: their loss is the negated measurement.
    """
    import torch
    from torch import nn as torch_nn

    class LossModel(torch_nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, positions: Tensor) -> Tensor:
            return torch.cat([self.one(int(position)) for position in positions])

        def one(self, position: int) -> Tensor:
            if position >= queries_from:
                return -task.measurement(self.model, task.batch([records[position]]))
            return task.loss(self.model, task.batch([records[position]], whole=False))

    return LossModel()


def _weights_are_loaded(model: nn.Module, checkpoint: str) -> float:
    """captum asks for the weights of a checkpoint and its learning rate; `run.model` has loaded them already."""
    return 1.0


def _already_a_loss(losses: Tensor, labels: Tensor) -> Tensor:
    return losses
