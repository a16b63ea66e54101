"""kronfluence 1.0.1's factors and pairwise scores on a poa run; [query, train] scores with poa's sign.

kronfluence multiplies the preconditioned gradient of the measurement with that of the training loss; here the
measurement is negated, so that a positive product means "helped".
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from subjects import Matrix, Tables
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from language import linear_twin
from poa.gradients.outputs import drawn, log_probabilities
from poa.protocols import TrainingRun
from poa.records import Corpus

STRATEGIES = ("identity", "diagonal", "kfac", "ekfac")


class Rows(Dataset[Any]):
    """Examples of one side as tuples of tensors, the last of which is the example's position."""

    def __init__(self, side: tuple[Tensor, ...]) -> None:
        self.side = side

    def __len__(self) -> int:
        return len(self.side[0])

    def __getitem__(self, at: int) -> tuple[Tensor, ...]:
        return (*(column[at] for column in self.side), torch.tensor(at))


class PoaTask(Task):
    """poa's loss and measurement of `tables.run`.

    sample=True draws labels from the model, as kronfluence asks for the true Fisher: the very draws that poa makes, a
    stream of numbers per record.
    """

    def __init__(self, tables: Tables, modules: list[str]) -> None:
        self.tables, self.modules = tables, modules

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        *data, positions = batch
        if not sample:
            return self.tables.losses(model, data).sum()
        run = self.tables.run
        found = run.task.predictions(model, self.tables.batch(data))
        labels = drawn(found, [run.corpus[int(at)] for at in positions], 0)
        return -log_probabilities(found._replace(labels=labels)).sum()

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return -self.tables.measurements(model, batch[:-1]).sum()

    def get_influence_tracked_modules(self) -> list[str]:
        return self.modules

    def get_attention_mask(self, batch: Any) -> Tensor | None:
        """Where the loss reaches: poa counts those tokens in both covariances."""
        labels = batch[-2]
        if labels.ndim == 1:
            return None
        if self.tables.run.task.name == "causal-lm":  # the last token of a sequence predicts nothing
            labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        return (labels != -100).long()


def pairwise(
    run: TrainingRun,
    queries: Corpus,
    strategy: str = "ekfac",
    damping: float | None = None,
    empirical: bool = False,
    size: int | None = None,
    precise: bool = True,
) -> Matrix:
    """damping: absolute; None is kronfluence's heuristic, a tenth of each layer's mean eigenvalue.

    precise: factors and scores in float64 where kronfluence lets one choose.
    """
    tables = Tables(run, queries)
    task = PoaTask(tables, list(run.task.tracked(run.model())))
    model = prepare_model(linear_twin(run.model()), task)
    count = len(run.corpus)
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        analyzer = Analyzer("peers", model, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=40)
        analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=default_collate))
        kinds: dict[str, Any] = {}
        wide = torch.float64 if precise else torch.float32
        for name in ("activation_covariance_dtype", "gradient_covariance_dtype", "lambda_dtype"):
            kinds[name] = wide
        arguments = FactorArguments(strategy=strategy, use_empirical_fisher=empirical, **kinds)
        analyzer.fit_all_factors("factors", Rows(tables.train), size or count, factor_args=arguments)
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            Rows(tables.asked),
            Rows(tables.train),
            per_device_query_batch_size=len(queries),
            per_device_train_batch_size=size or count,
            score_args=ScoreArguments(damping_factor=damping, precondition_dtype=wide),
        )
        found = analyzer.load_pairwise_scores("scores")["all_modules"]
    return found.double().numpy() / count
