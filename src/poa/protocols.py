"""What plugs into what. No code: a class takes part by having these members and passing `poa.conformance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from poa.records import Corpus, Record
from poa.scores import Scores
from poa.steplog import StepLog

if TYPE_CHECKING:
    from torch import Tensor, nn

    from poa.gradients.capture import Block
    from poa.gradients.program import Program

    Batch: TypeAlias = Mapping[str, Tensor]


class Predictions(NamedTuple):
    """What a model predicts in a batch, one row per supervised prediction, in the order of examples.

    logits: [M, C]; labels: [M] what was to be predicted; owners: [M] position of the example in the batch. An
    example's loss is the sum of the cross entropies of its rows: this is all that curvature (the Fisher with labels
    drawn from the model, the Gauss-Newton matrix) and log-odds need to know about a task.
    """

    logits: Tensor
    labels: Tensor
    owners: Tensor


class Task(Protocol):
    """How a kind of model is trained and asked. Losses are *sums* over supervised tokens, in nats."""

    @property
    def name(self) -> str: ...

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        """Padded tensors for some records.

        A record longer than the model's context raises `PoaError` (queries: `whole=True`) or is cut where training
        cut it (`whole=False`, for manifest records).
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] training loss per example (nats, summed over supervised tokens)."""
        ...

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] what attribution explains, larger = better: total log-probability of the response, or log-odds."""
        ...

    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        """Logits, labels and owners of every supervised prediction; `loss` is their summed cross entropy."""
        ...

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B, d] last hidden state, mean over valid tokens (pads never count)."""
        ...

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules whose trainable parameters attribution may read, by name, in a fixed order."""
        ...

    def tokens(self, record: Record) -> list[int]:
        """Token ids of the record's `text`; raises `Unsupported` where a record is not a token sequence."""
        ...


class TrainingRun(Protocol):
    """Manifest + recipe + checkpoints + step log: what was trained, on what, in which order."""

    @property
    def corpus(self) -> Corpus:
        """The manifest: exactly the records trained on, in manifest order."""
        ...

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Labels per manifest record: "contributor", "datanet", "cluster", "payee"."""
        ...

    @property
    def task(self) -> Task: ...

    @property
    def steps(self) -> StepLog: ...

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Step counts after which weights were kept, ascending; the last one is the final model."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of manifest, recipe and results: the identity that indexes and receipts name."""
        ...

    @property
    def cache(self) -> Path:
        """A folder for what can be recomputed from this run (gradients, indexes), each entry named by digest."""
        ...

    def model(self, checkpoint: int = -1) -> nn.Module:
        """A fresh model in eval mode with the weights of `checkpoints[checkpoint]`; the caller may change it."""
        ...

    def base(self) -> nn.Module:
        """The model before tuning, in eval mode."""
        ...


@runtime_checkable
class OwnGradients(Protocol):
    """A run that makes rows of gradients itself, for models that are no torch modules."""

    def gradient_blocks(self, coordinates: str) -> tuple[Block, ...]:
        """Where each layer's columns are in a row."""
        ...

    def gradient_rows(self, checkpoint: int, records: Corpus, side: str) -> Iterator[npt.NDArray[Any]]:
        """[p] per record, in order; sides and signs as in `Capture.factors`, each row from its record alone."""
        ...


class Optimizer(NamedTuple):
    """How a step of a run moves its weights; the rate of each step is in the step log.

    sgd: buf = momentum buf + G + decay theta; theta -= rate buf, with G the gradient of the batch loss. adamw:
    theta -= rate decay theta, then rate times the bias-corrected first moment over (root of the bias-corrected second
    moment + eps). What a kind does not read has its default.
    """

    kind: Literal["sgd", "adamw"]
    momentum: float = 0.0
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


class Moments(NamedTuple):
    """AdamW's state after `steps` updates, by parameter name as in `named_parameters()` of the run's model.

    state[name] = (exp_avg, exp_avg_sq): running means of +G and G^2, G the gradient of the batch *loss*, without bias
    correction. By name, because orders of parameters differ between files, optimizers and rows of gradients.
    """

    state: Mapping[str, tuple[Tensor, Tensor]]
    steps: int
    betas: tuple[float, float]
    eps: float


class Step(NamedTuple):
    """One step of a replayed training, as it stands *before* the update; valid until the next one is asked for.

    number: 0-based. model: in eval mode, to be read only. records: [b] manifest positions of the batch. weights: [b]
    factors on their losses (1 unless the run masks records). The optimizer sees G = grad sum_j weights[j] loss_j /
    denominator. moments: AdamW's before the step, None for SGD.
    """

    number: int
    model: nn.Module
    records: npt.NDArray[np.integer[Any]]
    weights: npt.NDArray[np.floating[Any]]
    rate: float
    denominator: float
    moments: Moments | None


@runtime_checkable
class Recorded(Protocol):
    """What a run may offer besides `TrainingRun`: its optimizer and the optimizer's state at checkpoints."""

    @property
    def optimizer(self) -> Optimizer: ...

    def moments(self, checkpoint: int = -1) -> Moments | None:
        """AdamW's state at `checkpoints[checkpoint]`; None where the optimizer keeps no moments (SGD)."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """What a run may offer besides `TrainingRun`: its training once more, step by step."""

    @property
    def optimizer(self) -> Optimizer: ...

    def replay(self) -> Iterator[Step]:
        """Every step in order. After the last one the weights are checked against the stored final checkpoint."""
        ...


@runtime_checkable
class Programmed(Protocol):
    """What a run may offer besides `TrainingRun`: its training as arrays and pure functions, for JAX."""

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """[records] factors on the losses of the records (1 unless the run masks some)."""
        ...

    def program(self) -> Program: ...

    def arrays(self, queries: Corpus) -> Any:
        """`queries` as the program measures them."""
        ...


class Index(Protocol):
    """What a method prepared from one run: immutable, saveable, everything needed at query time and nothing else."""

    @property
    def run_digest(self) -> str: ...

    def attribute(self, queries: Corpus) -> Scores: ...


class Attributor(Protocol):
    """A method: a frozen dataclass whose fields are its hyper-parameters and whose repr is its identity."""

    def fit(self, run: TrainingRun) -> Index: ...


if TYPE_CHECKING:
    # A projection maps per-example gradients [n, p] to features [n, k]; a preconditioner, fitted on training
    # features, maps query features [n, k] to preconditioned query features [n, k].
    Projection: TypeAlias = Callable[[Tensor], Tensor]
    Preconditioner: TypeAlias = Callable[[Tensor], Tensor]
