"""traker 0.3.2 on a poa classifier run; [query, train] scores with poa's sign.

TRAK's scores are positive where a record raises the log-odds, which is poa's measurement of a classifier.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from subjects import Matrix, Tables
from trak import TRAKer
from trak.projectors import BasicProjector, NoOpProjector, ProjectionType

from poa.protocols import TrainingRun
from poa.records import Corpus


def projector(model: torch.nn.Module, width: int, seed: int = 0) -> Any:
    """width 0: gradients as they are. Otherwise TRAK's own Gaussian BasicProjector, the one that runs on a CPU."""
    if width == 0:
        return NoOpProjector(device="cpu")
    count = sum(p.numel() for p in model.parameters())
    return BasicProjector(count, width, seed, ProjectionType.normal, "cpu")


def scores(
    run: TrainingRun,
    queries: Corpus,
    width: int = 0,
    damping: float = 0.0,
    positions: Sequence[int] = (-1,),
    size: int | None = None,
    folder: str | None = None,
    half: bool = False,
) -> Matrix:
    """damping: TRAK's lambda_reg, added to the Gram matrix of gradients divided by sqrt(number of parameters)."""
    tables = Tables(run, queries)
    model = run.model()
    with tempfile.TemporaryDirectory(prefix="peers-") as own:
        traker = TRAKer(
            model,
            "image_classification",
            len(run.corpus),
            save_dir=folder or own,
            device="cpu",
            projector=projector(model, width),
            lambda_reg=damping,
            use_half_precision=half,
            logging_level=logging.ERROR,
        )
        states = [run.model(position).state_dict() for position in positions]
        for number, state in enumerate(states):
            traker.load_checkpoint(state, model_id=number)
            for batch in _batches(tables.train, size):
                traker.featurize(batch, num_samples=len(batch[0]))
        traker.finalize_features()
        for number, state in enumerate(states):
            traker.start_scoring_checkpoint("asked", state, number, num_targets=len(queries))
            for batch in _batches(tables.asked, size):
                traker.score(batch, num_samples=len(batch[0]))
        return torch.from_numpy(traker.finalize_scores("asked").copy()).double().numpy().T


def _batches(side: Sequence[torch.Tensor], size: int | None) -> list[list[torch.Tensor]]:
    count = len(side[0])
    size = size or count
    return [[column[start : start + size] for column in side] for start in range(0, count, size)]
