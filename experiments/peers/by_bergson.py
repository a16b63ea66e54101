"""bergson 2.5.1's gradient collection and preconditioned products on a poa run of a language model.

bergson takes Hugging Face models, batches of token ids and the cross entropy of the next token; both sides of its score
are losses, so its product is positive where a record helped. Biases are collected only when asked for.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bergson.collector.collector import CollectorComputer
from bergson.collector.in_memory_collector import InMemoryCollector
from bergson.config.config import IndexConfig, InversionConfig
from bergson.gradients import GradientProcessor
from bergson.hessians.preconditioner import DensePreconditioner
from datasets import Dataset
from subjects import Matrix
from torch import Tensor, nn

from poa.errors import Unsupported
from poa.protocols import TrainingRun
from poa.records import Corpus


class Causal(nn.Module):
    """A poa text model as the part of a Hugging Face model that bergson reads: token ids in, `.logits` out.

    The names of its layers begin with "base_model." instead of nothing, as bergson looks below that attribute.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, ids: Tensor) -> Any:
        out = self.base_model(ids)
        return out if hasattr(out, "logits") else SimpleNamespace(logits=out)


@dataclass(frozen=True)
class Sequences:
    """What bergson is given of some records: token ids and labels with -100 where nothing is supervised."""

    ids: list[list[int]]
    labels: list[list[int]]

    @staticmethod
    def of(run: TrainingRun, records: Corpus) -> Sequences:
        """From the task's own batch of each record alone, so that there is no padding."""
        rows = [run.task.batch([record], whole=False) for record in records]
        if not rows or "input_ids" not in rows[0]:
            raise Unsupported("bergson attributes token sequences only: its collector takes batches of input_ids")
        shifted = run.task.name == "bigram"  # its labels are aligned with their inputs, those of a causal model are not
        ids = [row["input_ids"][0].tolist() for row in rows]
        labels = [row.get("labels", row["input_ids"])[0].tolist() for row in rows]
        if shifted:
            # A further position, whose prediction nobody asks for, carries the last label.
            ids = [[*row, 0] for row in ids]
            labels = [[-100, *row] for row in labels]
        return Sequences(ids, labels)

    def dataset(self) -> Dataset:
        lengths = [len(row) for row in self.ids]
        return Dataset.from_dict({"input_ids": self.ids, "labels": self.labels, "length": lengths})


@dataclass
class Collected:
    """Gradients of the loss by layer, and the mean of their outer products where it was asked for."""

    layers: dict[str, Tensor]
    hessians: dict[str, Tensor] = field(default_factory=dict)

    def rows(self) -> Matrix:
        return torch.cat(list(self.layers.values()), 1).double().numpy()


def collect(
    run: TrainingRun,
    records: Corpus,
    width: int = 0,
    curvature: bool = False,
    size: int | None = None,
    position: int = -1,
) -> Collected:
    """bergson's InMemoryCollector over all tracked layers, biases included; `width` columns a side, 0 for all."""
    sequences = Sequences.of(run, records)
    model = Causal(run.model(position))
    names = set(run.task.tracked(model.base_model))
    for module in model.modules():
        # As bergson loads models: its hooks need every tracked layer to lie on a path to a trainable embedding.
        for values in module.parameters(recurse=False):
            values.requires_grad_(isinstance(module, nn.Embedding))
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        config = IndexConfig(run_path=f"{folder}/run", include_bias=True, projection_dim=width)
        config.partial_run_path.mkdir(parents=True)
        processor = GradientProcessor(projection_dim=width or None, include_bias=True)
        collector = InMemoryCollector(
            model=_placed(model),
            cfg=config,
            processor=processor,
            target_modules=names,
            data=sequences.dataset(),
            skip_hessians=not curvature,
        )
        count = len(records)
        size = size or 8
        batches = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        computer = CollectorComputer(model, sequences.dataset(), collector=collector, batches=batches, cfg=config)
        with redirect_stdout(sys.stderr):  # bergson prints what it does
            computer.run_with_collector_hooks("peers")
    return Collected(dict(collector.gradients), dict(processor.hessians))


def _placed(model: Causal) -> Any:
    """bergson asks the hooked part for its device; plain modules have none."""
    base: Any = model.base_model
    if not hasattr(base, "device"):
        base.device = model.device
    return base


def products(
    run: TrainingRun,
    queries: Corpus,
    cosine: bool = False,
    width: int = 0,
    damping: float | None = None,
    size: int | None = None,
    absolute: bool = False,
) -> Matrix:
    """Inner products of collected gradients, as bergson's scorer takes them.

    damping: the queries go through bergson's inverse of each layer's mean outer product of training gradients, damped
    by `damping` times its mean eigenvalue (absolute=True: by `damping`), divided by the number of records.
    """
    train = collect(run, run.corpus, width, damping is not None, size)
    asked = collect(run, queries, width, False, size)
    if damping is not None:
        kind: Any = "absolute_damped_inverse" if absolute else "damped_inverse"
        inversion = InversionConfig(inversion=kind, damping_factor=damping)
        solver = DensePreconditioner.from_processor(GradientProcessor(hessians=train.hessians), inversion_cfg=inversion)
        asked = Collected(solver.apply(asked.layers))
    left, right = asked.rows(), train.rows()
    if cosine:
        left, right = _unit(left), _unit(right)
    return left @ right.T / (1 if damping is None else len(run.corpus))


def _unit(rows: Matrix) -> Matrix:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def matrices(names: Sequence[str], width: int, sizes: dict[str, tuple[int, int]]) -> dict[str, tuple[Matrix, Matrix]]:
    """bergson's own projections of some layers as (out [width, d_out], in [width, d_in])."""
    from bergson.collector.collector import create_module_projection_matrix

    def drawn(name: str, role: Any, size: int) -> Matrix:
        made = create_module_projection_matrix(
            name, role, width, size, torch.float32, torch.device("cpu"), "rademacher", "jl", None
        )
        return made.double().numpy()

    return {name: (drawn(name, "left", sizes[name][0]), drawn(name, "right", sizes[name][1])) for name in names}
