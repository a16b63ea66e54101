"""The classifier task and its in-memory training run: logistic regression and small MLPs with exact bookkeeping."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.digests import plain_digest, sha256
from poa.errors import Mismatch, PoaError, Unsupported
from poa.factory.optimizers import copied, made, moments_of
from poa.factory.versions import library_versions
from poa.files import cache_home
from poa.protocols import Moments, Optimizer, Predictions, Step
from poa.records import Corpus, Record
from poa.steplog import StepLog

if TYPE_CHECKING:
    from poa.gradients.program import Program
    from poa.protocols import Batch

Precision = Literal["float32", "float64"]
Measured = Literal["log-odds", "log-probability"]
State = Mapping[str, Tensor]

_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Classifier:
    """Log-odds of a record's label under a network that ends in a Linear layer.

    `features` is the width of a record's features, `classes` the number of labels (0 <= label < classes).
    A query's label is the class whose log-odds are explained, or with measures="log-probability" whose log-probability
    (minus the loss) is. Models are `nn.Sequential` with a final `nn.Linear`.
    """

    features: int
    classes: int
    dtype: Precision = "float64"
    measures: Measured = "log-odds"

    def __post_init__(self) -> None:
        if self.measures not in ("log-odds", "log-probability"):
            raise PoaError(f"measures is {self.measures!r}, must be log-odds or log-probability")
        if self.classes < 2:
            raise PoaError(f"a classifier needs at least 2 classes, got {self.classes}")
        if self.features < 1:
            raise PoaError(f"a classifier needs at least 1 feature, got {self.features}")
        _torch_dtype(self.dtype)

    @property
    def name(self) -> str:
        return "classifier"

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        """{"x": [B, features], "y": [B] int64}; raises `PoaError` naming the record whose features or label do not fit.

        `whole` changes nothing: feature vectors are never cut.
        """
        for record in records:
            self._check(record)
        rows = np.asarray([record.features for record in records], np.float64).reshape(len(records), self.features)
        labels = torch.tensor([record.label for record in records], dtype=torch.int64)
        return {"x": torch.from_numpy(rows).to(_torch_dtype(self.dtype)), "y": labels}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] cross entropy in nats."""
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] log p_y - log(1 - p_y) = z_y - logsumexp of the other logits: exact where p_y rounds to 1; or log p_y."""
        if self.measures == "log-probability":
            return -self.loss(model, batch)
        logits: Tensor = model(batch["x"])
        own = batch["y"].unsqueeze(1)
        others = logits.scatter(1, own, float("-inf"))
        return logits.gather(1, own).squeeze(1) - others.logsumexp(1)

    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        """One row per record: the logits over classes."""
        return Predictions(model(batch["x"]), batch["y"], torch.arange(len(batch["y"])))

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B, d] input of the last layer: the features themselves for logistic regression."""
        if not isinstance(model, nn.Sequential) or len(model) == 0 or not isinstance(model[-1], nn.Linear):
            raise Unsupported("hidden states need an nn.Sequential that ends in nn.Linear")
        out: Tensor = model[:-1](batch["x"])
        return out

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        """Linear modules with a trainable parameter, in definition order."""
        return {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and any(p.requires_grad for p in module.parameters(recurse=False))
        }

    def tokens(self, record: Record) -> list[int]:
        raise Unsupported(f"record {record.id!r} is a feature vector of a classifier, not a token sequence")

    def _check(self, record: Record) -> None:
        if len(record.features) != self.features:
            raise PoaError(
                f"record {record.id!r} has {len(record.features)} features; this classifier takes {self.features}"
            )
        if not 0 <= record.label < self.classes:
            raise PoaError(f"record {record.id!r} has label {record.label}, must be 0 to {self.classes - 1}")


@dataclass(frozen=True)
class ClassifierRecipe:
    """Everything that determines a classifier besides its manifest and record weights.

    Steps at a constant rate on the batch sum of losses over the number of records in the batch. `optimizer="sgd"`:
    heavy ball with `momentum`, `decay` the coefficient of the L2 term decay/2 * ||theta||^2. `optimizer="adamw"`:
    `betas` and `eps` are its own, `decay` is decoupled. `keep` checkpoints are spread evenly and end with the last
    step.
    """

    hidden: tuple[int, ...] = ()
    steps: int = 200
    batch: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0
    seed: int = 0
    dtype: Precision = "float64"
    keep: int = 4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        object.__setattr__(self, "betas", (float(self.betas[0]), float(self.betas[1])))
        for field, least in (("steps", 1), ("batch", 1), ("keep", 1), ("seed", 0)):
            value: int = getattr(self, field)
            if value < least:
                raise PoaError(f"{field} is {value}, must be {least} or more")
        if any(width < 1 for width in self.hidden):
            raise PoaError(f"hidden is {self.hidden}, every width must be 1 or more")
        if not self.rate > 0 or not self.decay >= 0 or not 0 <= self.momentum < 1:
            raise PoaError(
                f"need rate > 0, decay >= 0 and 0 <= momentum < 1, got {self.rate}, {self.decay}, {self.momentum}"
            )
        if self.optimizer not in ("sgd", "adamw"):
            raise PoaError(f"optimizer is {self.optimizer!r}, must be sgd or adamw")
        if self.optimizer == "adamw" and self.momentum:
            raise PoaError(f"momentum is {self.momentum}; adamw has its own (betas), leave momentum at 0")
        if not all(0 <= beta < 1 for beta in self.betas) or not self.eps > 0:
            raise PoaError(f"need 0 <= beta < 1 and eps > 0, got {self.betas}, {self.eps}")
        _torch_dtype(self.dtype)

    def plain(self) -> dict[str, Any]:
        """The fields that determine a run: what SGD does not read is no part of its identity."""
        unread = () if self.optimizer == "adamw" else ("optimizer", "betas", "eps")
        return {name: value for name, value in asdict(self).items() if name not in unread}

    @property
    def rule(self) -> Optimizer:
        if self.optimizer == "sgd":
            return Optimizer("sgd", momentum=self.momentum, decay=self.decay)
        return Optimizer("adamw", decay=self.decay, betas=self.betas, eps=self.eps)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Step counts after which weights are kept, ascending."""
        count = min(self.keep, self.steps)
        return tuple(round(self.steps * (i + 1) / count) for i in range(count))


@dataclass(frozen=True, eq=False)
class ClassifierRun:
    """A finished training run held in memory; satisfies `poa.protocols.TrainingRun`.

    `states[c]` are the weights after `checkpoints[c]` steps, `initial` those before the first, `averages[c]` AdamW's
    moments (nothing for SGD). `weights` [records] multiplied each record's loss (1 = trained as usual, 0 = masked out).
    """

    corpus: Corpus
    task: Classifier
    recipe: ClassifierRecipe
    steps: StepLog
    states: tuple[State, ...]
    initial: State
    weights: npt.NDArray[np.float64]
    folder: Path | None = None
    averages: tuple[Moments, ...] = ()

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return self.recipe.checkpoints

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Contributor, datanet, cluster (id of the first record with the same content) and payee (the contributor)."""
        return self._groups

    @cached_property
    def _groups(self) -> Mapping[str, tuple[str, ...]]:
        first: dict[str, str] = {}
        clusters = tuple(first.setdefault(record.digest, record.id) for record in self.corpus)
        return {
            "contributor": self.corpus.contributors,
            "datanet": self.corpus.datanets,
            "cluster": clusters,
            "payee": self.corpus.contributors,
        }

    @property
    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return plain_digest(
            {
                "manifest": self.corpus.digest,
                "task": asdict(self.task),
                "recipe": self.recipe.plain(),
                "weights": sha256(self.weights.astype("<f8").tobytes()),
                "steps": self.steps.digest,
                "states": [_state_digest(state) for state in (self.initial, *self.states)],
                "versions": library_versions(),
            }
        )

    @property
    def cache(self) -> Path:
        """The folder given to `train_classifier`, else one under the cache home; made by whoever writes first."""
        return self.folder if self.folder is not None else cache_home() / "runs" / self.digest[:16]

    def model(self, checkpoint: int = -1) -> nn.Sequential:
        return _network(self.task, self.recipe.hidden, self.states[checkpoint])

    def base(self) -> nn.Sequential:
        return _network(self.task, self.recipe.hidden, self.initial)

    @property
    def optimizer(self) -> Optimizer:
        return self.recipe.rule

    def moments(self, checkpoint: int = -1) -> Moments | None:
        """AdamW's state at `checkpoints[checkpoint]`; None for SGD."""
        return self.averages[checkpoint] if self.averages else None

    def replay(self) -> Iterator[Step]:
        """The training once more; raises `Mismatch` at the end where it does not come to the same weights."""
        step = None
        for step in _steps(self.corpus, self.task, self.recipe, self.weights, self.initial):
            if step.number < self.recipe.steps:
                yield step
        if step is not None and _state_digest(_copy(step.model)) != _state_digest(self.states[-1]):
            raise Mismatch("the replay does not come to the stored weights: other library versions or threads?")

    def program(self) -> Program:
        """The same training as a program of arrays, for JAX."""
        from poa.factory.programs import classifier_program

        return classifier_program(self.corpus, self.task, self.recipe)

    def arrays(self, queries: Corpus) -> dict[str, npt.NDArray[Any]]:
        """`queries` as the program measures them."""
        from poa.factory.programs import feature_arrays

        return feature_arrays(self.task, queries)

    def retrained(self, weights: Sequence[float] | npt.NDArray[np.float64]) -> ClassifierRun:
        """The same recipe, initial weights, order and denominators with other record weights (0 = masked removal)."""
        return _train(self.corpus, self.task, self.recipe, _checked_weights(weights, len(self.corpus)), self.folder)


def train_classifier(
    corpus: Corpus,
    hidden: Sequence[int] = (),
    *,
    steps: int = 200,
    batch: int = 32,
    lr: float = 0.1,
    momentum: float = 0.0,
    decay: float = 0.0,
    seed: int = 0,
    dtype: Precision = "float64",
    keep: int = 4,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    classes: int | None = None,
    measures: Measured = "log-odds",
    weights: Sequence[float] | npt.NDArray[np.float64] | None = None,
    cache: Path | None = None,
) -> ClassifierRun:
    """Train logistic regression (`hidden=()`) or a tanh MLP; the same arguments give the same bytes.

    `batch` >= number of records is full-batch descent. `optimizer`, `momentum`, `decay`, `betas` and `eps`: see
    `ClassifierRecipe`. `classes` defaults to the largest label + 1 (at least 2).
    `weights` [records] multiply the loss of a record wherever it occurs; initial weights, order and denominator stay
    the same, so weight 0 is the masked removal that leave-one-out truth needs. Raises `PoaError` for an empty corpus,
    a record that does not fit and a diverged training.
    """
    if len(corpus) == 0:
        raise PoaError("the corpus is empty; a classifier needs at least one record")
    recipe = ClassifierRecipe(
        tuple(hidden), steps, batch, lr, momentum, decay, seed, dtype, keep, optimizer, betas, eps
    )
    labels = max(record.label for record in corpus) + 1
    task = Classifier(len(corpus[0].features), max(2, labels) if classes is None else classes, dtype, measures)
    given = np.ones(len(corpus)) if weights is None else weights
    return _train(corpus, task, recipe, _checked_weights(given, len(corpus)), cache)


def _train(
    corpus: Corpus,
    task: Classifier,
    recipe: ClassifierRecipe,
    weights: npt.NDArray[np.float64],
    folder: Path | None,
) -> ClassifierRun:
    initial = initial_state(task, recipe)
    denominators, losses = np.zeros(recipe.steps), np.zeros(recipe.steps)
    states, averages = list[State](), list[Moments]()
    for step in _steps(corpus, task, recipe, weights, initial, losses):
        if step.number in recipe.checkpoints:
            states.append(_copy(step.model))
            averages += [copied(step.moments)] if step.moments else []
        if step.number < recipe.steps:
            denominators[step.number] = step.denominator
    if not all(bool(torch.isfinite(value).all()) for value in states[-1].values()):
        raise PoaError(f"training diverged: a weight is not finite after step {recipe.steps}; use a smaller lr")
    order = batches(len(corpus), recipe)
    log = StepLog(order, np.full(recipe.steps, recipe.rate), denominators, losses)
    return ClassifierRun(corpus, task, recipe, log, tuple(states), initial, weights, folder, tuple(averages))


def _steps(
    corpus: Corpus,
    task: Classifier,
    recipe: ClassifierRecipe,
    weights: npt.NDArray[np.float64],
    initial: State,
    losses: npt.NDArray[np.float64] | None = None,
) -> Generator[Step]:
    """What training and its replay both do: every step before its update, and last (without records) the result."""
    model = _network(task, recipe.hidden, initial)
    parameters = dict(model.named_parameters())
    optimizer = made(recipe.rule, parameters, recipe.rate)
    data = task.batch(corpus, whole=False)
    factors = torch.tensor(weights, dtype=data["x"].dtype)

    def at(number: int, records: npt.NDArray[np.int64]) -> Step:
        moments = moments_of(recipe.rule, optimizer, parameters, number)
        return Step(number, model, records, weights[records], recipe.rate, float(len(records)), moments)

    for number, row in enumerate(batches(len(corpus), recipe)):
        records = row[row >= 0]
        yield at(number, records)
        picks = torch.from_numpy(records)
        rows = {name: values[picks] for name, values in data.items()}
        with torch.enable_grad():  # whatever whoever reads these steps has switched off
            loss = (factors[picks] * task.loss(model, rows)).sum() / len(picks)
        if not np.isfinite(loss.item()):
            raise PoaError(f"training diverged at step {number + 1}: the loss is {loss.item()}; use a smaller lr")
        if losses is not None:
            losses[number] = loss.item()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    yield at(recipe.steps, np.zeros(0, np.int64))


def batches(records: int, recipe: ClassifierRecipe) -> npt.NDArray[np.int64]:
    """[steps, batch] manifest positions: a new seeded order each epoch; its last batch may be short (-1)."""
    rng = np.random.default_rng(recipe.seed)
    width = min(recipe.batch, records)
    per_epoch = -(-records // width)
    epochs = -(-recipe.steps // per_epoch)
    padded = np.full((epochs, per_epoch * width), -1, np.int64)
    for epoch in range(epochs):
        padded[epoch, :records] = rng.permutation(records)
    return padded.reshape(-1, width)[: recipe.steps].copy()


def initial_state(task: Classifier, recipe: ClassifierRecipe) -> State:
    """Uniform in +-1/sqrt(fan in), drawn in float64 so that both precisions start from the same numbers."""
    generator = torch.Generator().manual_seed(recipe.seed)
    model = _blank(task, recipe.hidden)
    for layer in model:
        if isinstance(layer, nn.Linear):
            for values in (layer.weight, layer.bias):
                draw = torch.rand(values.shape, generator=generator, dtype=torch.float64)
                values.data.copy_((2 * draw - 1) * layer.in_features**-0.5)
    return _copy(model)


def _blank(task: Classifier, hidden: Sequence[int]) -> nn.Sequential:
    """The network with unset weights; building it leaves torch's global random state alone."""
    widths = (task.features, *hidden, task.classes)
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        # tanh, because influence of every order needs a loss that is smooth in the weights
        layers += [nn.Tanh()] if layers else []
        layers.append(nn.utils.skip_init(nn.Linear, inner, outer, dtype=_torch_dtype(task.dtype)))
    return nn.Sequential(*layers)


def _network(task: Classifier, hidden: Sequence[int], state: State) -> nn.Sequential:
    model = _blank(task, hidden)
    model.load_state_dict(dict(state))
    return model.eval()


def _copy(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _state_digest(state: State) -> str:
    return plain_digest(
        [[name, str(v.dtype), list(v.shape), sha256(v.contiguous().numpy().tobytes())] for name, v in state.items()]
    )


def _torch_dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise PoaError(f"dtype is {name!r}, must be one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _checked_weights(weights: Sequence[float] | npt.NDArray[np.float64], records: int) -> npt.NDArray[np.float64]:
    out = np.array(weights, np.float64)
    if out.shape != (records,):
        raise PoaError(f"weights have shape {out.shape}, must be one per record: ({records},)")
    if not bool(np.isfinite(out).all()) or bool((out < 0).any()):
        bad = int(np.flatnonzero(~np.isfinite(out) | (out < 0))[0])
        raise PoaError(f"weight of record {bad} is {out[bad]}, must be finite and 0 or more")
    out.setflags(write=False)
    return out
