"""dattri 0.3.0's attributors on a poa run; every function returns [query, train] scores with poa's sign.

dattri differentiates the loss of a training record and the target of a query and multiplies the two. Its target here is
the negated measurement, a loss, so that a positive product means "helped".
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from dattri.task import AttributionTask
from subjects import Matrix, Tables, at, linearised, rates
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from language import linear_twin
from poa.protocols import TrainingRun
from poa.records import Corpus

LAST = (-1,)


def loaders(tables: Tables, size: int | None = None) -> tuple[Any, Any]:
    """Loaders over train and query examples; by default one batch each."""
    return tuple(
        DataLoader(TensorDataset(*side), batch_size=size or len(side[0]), collate_fn=_stacked)
        for side in (tables.train, tables.asked)
    )


def _stacked(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def task(tables: Tables, positions: Sequence[int], curvature: str = "hessian", output: str = "loss") -> Any:
    """An AttributionTask at some checkpoints.

    curvature="gauss-newton" hands over the loss of the linearised network, see `linearised`. output="log-odds" makes
    the training side a measurement too, as TRAK wants it.
    """
    run = tables.run
    model = only_tracked(run, run.model())
    states = [run.model(position).state_dict() for position in positions]
    point = {name: value.clone() for name, value in states[0].items()}

    def network(weights: Any) -> Callable[..., Any]:
        return linearised(model, weights, point) if curvature == "gauss-newton" else at(model, weights)

    def loss(weights: Any, data: Any) -> Tensor:
        if output == "log-odds":
            return -tables.measurements(network(weights), data).mean()
        return tables.losses(network(weights), _long(data)).mean()

    def target(weights: Any, data: Any) -> Tensor:
        return -tables.measurements(at(model, weights), _long(data)).mean()

    return AttributionTask(loss, model, states, target_func=target)


def only_tracked(run: TrainingRun, model: nn.Module) -> nn.Module:
    """dattri differentiates whatever requires a gradient; leave that to the layers that poa tracks."""
    wanted = {id(p) for module in run.task.tracked(model).values() for p in module.parameters(recurse=False)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    return model


def _long(data: Sequence[Tensor]) -> list[Tensor]:
    """dattri's LiSSA turns every column but the first into floats; labels are integers."""
    return [data[0], *(column.long() for column in data[1:])]


@contextmanager
def own_defaults() -> Any:
    """dattri changes its module-wide projector defaults on every use; give each attributor the shipped ones."""
    from dattri.algorithm import tracin as tracin_module
    from dattri.algorithm import trak as trak_module

    homes = (tracin_module, trak_module)
    shipped = [dict(home.DEFAULT_PROJECTOR_KWARGS) for home in homes]
    try:
        yield
    finally:
        for home, values in zip(homes, shipped, strict=True):
            home.DEFAULT_PROJECTOR_KWARGS.clear()
            home.DEFAULT_PROJECTOR_KWARGS.update(values)


def scores(values: Tensor) -> Matrix:
    """dattri returns [train, query]."""
    return values.detach().numpy().T.copy()


def _tracin(
    run: TrainingRun,
    queries: Corpus,
    positions: Sequence[int],
    weights: Sequence[float],
    cosine: bool,
    projector: dict[str, Any] | None,
    size: int | None,
) -> Matrix:
    from dattri.algorithm.tracin import TracInAttributor

    tables = Tables(run, queries)
    with own_defaults():
        method = TracInAttributor(task(tables, positions), torch.tensor(weights), cosine, projector)
        return scores(method.attribute(*loaders(tables, size)))


# dattri projects by default; "identity" is the one projector whose features are the gradients themselves.
UNPROJECTED = {"proj_type": "identity"}


def tracin(
    run: TrainingRun, queries: Corpus, projector: Any = UNPROJECTED, size: int | None = None, plain: bool = False
) -> Matrix:
    """plain: every checkpoint with a weight of 1 instead of poa's rates."""
    weights = [1.0] * len(run.checkpoints) if plain else rates(run)
    return _tracin(run, queries, range(len(run.checkpoints)), weights, False, projector, size)


def graddot(run: TrainingRun, queries: Corpus, projector: Any = UNPROJECTED, size: int | None = None) -> Matrix:
    return _tracin(run, queries, LAST, [1.0], False, projector, size)


def gradcos(run: TrainingRun, queries: Corpus, projector: Any = UNPROJECTED, size: int | None = None) -> Matrix:
    return _tracin(run, queries, LAST, [1.0], True, projector, size)


def _influence(
    kind: str, run: TrainingRun, queries: Corpus, curvature: str, size: int | None, **settings: Any
) -> Matrix:
    from dattri.algorithm import influence_function

    tables = Tables(run, queries)
    train, asked = loaders(tables, size)
    method = getattr(influence_function, f"IFAttributor{kind}")(task(tables, LAST, curvature), **settings)
    method.cache(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method.attribute(train, asked)
    return scores(found) / len(run.corpus)


def explicit(
    run: TrainingRun, queries: Corpus, damping: float, curvature: str = "hessian", size: int | None = None
) -> Matrix:
    return _influence("Explicit", run, queries, curvature, size, regularization=damping)


def cg(
    run: TrainingRun,
    queries: Corpus,
    damping: float,
    curvature: str = "hessian",
    size: int | None = None,
    steps: int = 10,
) -> Matrix:
    return _influence("CG", run, queries, curvature, size, regularization=damping, max_iter=steps)


def lissa(
    run: TrainingRun,
    queries: Corpus,
    damping: float,
    curvature: str = "hessian",
    size: int | None = None,
    steps: int = 2000,
    scaling: float = 50.0,
    batch: int | None = None,
) -> Matrix:
    """dattri's recursion adds `damping` after dividing by `scaling`: the damping of the Hessian is their product."""
    torch.manual_seed(0)
    settings = {"damping": damping / scaling, "scaling": scaling, "recursion_depth": steps}
    return _influence(
        "LiSSA", run, queries, curvature, size, batch_size=batch or len(run.corpus), num_repeat=1, **settings
    )


def arnoldi(
    run: TrainingRun,
    queries: Corpus,
    damping: float,
    curvature: str = "hessian",
    size: int | None = None,
    width: int = 100,
    steps: int = 100,
) -> Matrix:
    torch.manual_seed(0)
    return _influence("Arnoldi", run, queries, curvature, size, regularization=damping, proj_dim=width, max_iter=steps)


def datainf(run: TrainingRun, queries: Corpus, damping: float, size: int | None = None) -> Matrix:
    return _influence("DataInf", run, queries, "hessian", size, regularization=damping)


def ekfac(run: TrainingRun, queries: Corpus, damping: float, size: int | None = None) -> Matrix:
    """Its Fisher is that of the target function at the records' own labels (the empirical one)."""
    return _influence("EKFAC", run, queries, "hessian", size, damping=damping)


def trak(
    run: TrainingRun,
    queries: Corpus,
    damping: float = 0.0,
    projector: Any = UNPROJECTED,
    size: int | None = None,
    positions: Sequence[int] = LAST,
) -> Matrix:
    from dattri.algorithm.trak import TRAKAttributor

    tables = Tables(run, queries)
    model = run.model()

    def correct(weights: Any, data: Any) -> Tensor:
        return torch.exp(-tables.losses(at(model, weights), _long(data))).squeeze()

    with own_defaults():
        method = TRAKAttributor(task(tables, positions, output="log-odds"), correct, projector, regularization=damping)
        train, asked = loaders(tables, size)
        method.cache(train)
        return scores(method.attribute(asked))


@dataclass
class Projected:
    """Scores by LoGra and the projections that were drawn: per layer (out [d_out, k], in [d_in (+ 1), k])."""

    values: Matrix
    matrices: dict[str, tuple[Matrix, Matrix]]


class _Asking(nn.Module):
    """dattri takes a query's loss from the model itself (`model(**batch).loss`) and cannot be told another target."""

    def __init__(self, tables: Tables, model: nn.Module) -> None:
        super().__init__()
        self.tables, self.model = tables, model

    def forward(self, **batch: Tensor) -> Any:
        return SimpleNamespace(loss=-self.tables.measurements(self.model, list(batch.values())).mean())


def logra(
    run: TrainingRun,
    queries: Corpus,
    damping: float = 0.1,
    width: int = 8,
    size: int | None = None,
    folder: str | None = None,
    offload: str = "none",
) -> Projected:
    """`width` columns a side; damping relative to the mean of the diagonal of each layer's empirical Fisher."""
    from dattri.algorithm.logra import LoGraAttributor

    tables = Tables(run, queries)
    model = linear_twin(only_tracked(run, run.model()))
    names = list(run.task.tracked(model))
    asking = _Asking(tables, model)

    def loss(_: Any, batch: dict[str, Tensor], device: str) -> Tensor:
        return tables.losses(model, list(batch.values())).mean()  # it multiplies by the size of the batch

    def stacked(rows: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        return dict(zip(tables.keys, _stacked(rows), strict=True))

    work = AttributionTask(loss, asking, [asking.state_dict()])
    # Without a folder of its own it leaves its notes in the working directory, and reads those of earlier runs there.
    where = {"offload": offload, "cache_dir": folder or tempfile.mkdtemp(prefix="peers-")}
    layers = [f"model.{name}" for name in names]
    method = LoGraAttributor(work, layer_names=layers, damping=damping, proj_dim=width**2, **where)
    train, asked = (
        DataLoader(TensorDataset(*side), batch_size=size or len(side[0]), collate_fn=stacked)
        for side in (tables.train, tables.asked)
    )
    method.cache(train)
    found = scores(method.attribute(train, asked)) / len(run.corpus)
    sizes = {name: module for name, module in run.task.tracked(model).items()}
    matrices: dict[str, tuple[Matrix, Matrix]] = {}
    for name, compressor in zip(names, method.compressors or (), strict=True):
        layer: Any = sizes[name]
        wide = layer.in_features + (layer.bias is not None)
        left, right = compressor.sparsifier.sparsifier_comp
        made = [
            of(torch.eye(n), ensemble_id=0).double().numpy() for of, n in ((left, layer.out_features), (right, wide))
        ]
        matrices[name] = (made[0], made[1])
    return Projected(found, matrices)
