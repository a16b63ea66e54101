"""The derivative of a query's measurement with respect to every record's weight, through all steps of a training.

Steps are replayed and kept, then walked back: with a the adjoint of the weights and g that of the batch gradient,
record j of a step gains g^T grad loss_j / denominator and a takes up the Hessian of the batch loss times g. Exact for
the optimizer that is walked through: what MAGIC (arXiv 2504.16430) gives by differentiating the whole program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from poa.errors import PoaError, Unsupported
from poa.gradients.capture import capturing
from poa.gradients.places import Places, places
from poa.gradients.trajectory import optimizer_of, replay_of
from poa.progress import track

if TYPE_CHECKING:
    from poa.protocols import Moments, Optimizer, TrainingRun
    from poa.records import Record

Matrix64 = npt.NDArray[np.float64]
# A tape of more bytes than this is refused: weights and moments of every step are kept.
TAPE = 4 << 30


@dataclass(frozen=True, eq=False)
class Kept:
    """A step as it stood before its update, in the columns of gradient rows."""

    weights: Tensor
    moments: tuple[Tensor, Tensor] | None
    records: npt.NDArray[np.integer[Any]]
    factors: npt.NDArray[np.floating[Any]]
    rate: float
    denominator: float


@dataclass(frozen=True, eq=False)
class Tape:
    """Every step of a run, and a model to set its weights in."""

    run: TrainingRun
    model: nn.Module
    at: Places
    rule: Optimizer
    steps: tuple[Kept, ...]

    def set(self, kept: Kept) -> None:
        """Give the model the weights of a step."""
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in self.at.parameters(kept.weights).items():
                named[name].copy_(value)

    def taken(self, kept: Kept) -> list[Record]:
        """The records of a step."""
        return [self.run.corpus[int(place)] for place in kept.records]

    def trained_on(self, kept: Kept) -> Tensor:
        """[n, p] float64 gradients of -loss of a step's records, as one batch, at the weights that are set."""
        with capturing(self.run.task, self.model) as capture:
            return capture.factors(self.taken(kept), "train").rows().double()

    def asked(self, queries: Sequence[Record]) -> Tensor:
        """[q, p] float64 gradients of the measurements, one query at a time: no query depends on the others."""
        with capturing(self.run.task, self.model) as capture:
            rows = [capture.factors([query], "query").rows()[0].double() for query in queries]
        return torch.stack(rows) if rows else torch.zeros(0, len(self.at.at), dtype=torch.float64)


def recorded(run: TrainingRun) -> Tape:
    """Replay `run` and keep every step.

    Raises `Unsupported` where the run cannot be replayed, where trained parameters lie outside of what attribution
    reads, and where the tape would be too large.
    """
    rule = optimizer_of(run)
    model = run.model()
    at = places(run.task, model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    missing = set(trained) - set(at.names)
    if missing:
        raise Unsupported(
            f"training moved {sorted(missing)[0]}, which attribution does not read: the walk back is not exact"
        )
    size = len(at.at) * run.steps.steps * (3 if rule.kind == "adamw" else 1) * 8
    if size > TAPE:
        raise Unsupported(f"walking back through this training keeps {size >> 20} MiB, at most {TAPE >> 20} are")
    kept: list[Kept] = []
    for step in track(replay_of(run), "replay", run.steps.steps):
        named = dict(step.model.named_parameters())
        weights = at.row({name: named[name].detach().double() for name in at.names}).clone()
        kept.append(
            Kept(
                weights,
                _moments(at, step.moments) if rule.kind == "adamw" else None,
                np.array(step.records),
                np.array(step.weights),
                step.rate,
                step.denominator,
            )
        )
    return Tape(run, model, at, rule, tuple(kept))


def _moments(at: Places, moments: Moments | None) -> tuple[Tensor, Tensor]:
    if moments is None:
        raise Unsupported("the replay of this run does not say AdamW's state")
    if not moments.state:  # before the first step
        zero = torch.zeros(len(at.at), dtype=torch.float64)
        return zero, zero
    pairs = [{name: pair[i].double() for name, pair in moments.state.items()} for i in range(2)]
    return at.row(pairs[0]).clone(), at.row(pairs[1]).clone()


def walked_back(tape: Tape, asked: Matrix64) -> Matrix64:
    """[Q, N] d measurement / d weight of each record; asked: [Q, p] the queries' gradients at the final weights."""
    back = _AdamW(tape) if tape.rule.kind == "adamw" else _SGD(tape)
    adjoint = torch.from_numpy(np.array(asked, np.float64))
    out = np.zeros((len(asked), len(tape.run.corpus)))
    numbers = range(len(tape.steps) - 1, -1, -1)
    for number in track(numbers, "walk back", len(numbers)):
        kept = tape.steps[number]
        tape.set(kept)
        rows = tape.trained_on(kept)
        total = -(torch.from_numpy(kept.factors).double() @ rows) / kept.denominator
        signals = back.signals(kept, number, adjoint, total)
        for row, signal in zip(out, signals, strict=True):
            np.add.at(row, kept.records, (-(rows @ signal) / kept.denominator).numpy())
        adjoint = back(kept, number, adjoint) + hessian_products(tape, kept, signals)
        if not bool(torch.isfinite(adjoint).all()):
            raise PoaError(f"the walk back left what is finite at step {number}: the training is not smooth there")
    return out


class _SGD:
    """buf = momentum buf + G + decay theta; theta -= rate buf."""

    def __init__(self, tape: Tape) -> None:
        self.rule = tape.rule
        self.buffer: Tensor | None = None

    def signals(self, kept: Kept, number: int, adjoint: Tensor, total: Tensor) -> Tensor:
        """[Q, p] adjoint of the batch gradient."""
        before = torch.zeros_like(adjoint) if self.buffer is None else self.buffer
        now = before - kept.rate * adjoint
        self.buffer = self.rule.momentum * now
        self.last = now
        return now

    def __call__(self, kept: Kept, number: int, adjoint: Tensor) -> Tensor:
        """[Q, p] adjoint of the weights before the step, without what comes through the gradient."""
        return adjoint + self.rule.decay * self.last


class _AdamW:
    """torch.optim.AdamW: decoupled decay, bias corrections, eps outside the root."""

    def __init__(self, tape: Tape) -> None:
        self.rule = tape.rule
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def signals(self, kept: Kept, number: int, adjoint: Tensor, total: Tensor) -> Tensor:
        """[Q, p] adjoint of the batch gradient `total` [p]."""
        assert kept.moments is not None
        b1, b2 = self.rule.betas
        c1, c2 = 1 - b1 ** (number + 1), 1 - b2 ** (number + 1)
        mean = (b1 * kept.moments[0] + (1 - b1) * total) / c1
        root = ((b2 * kept.moments[1] + (1 - b2) * total * total) / c2).sqrt()
        below = root + self.rule.eps
        zero = torch.zeros_like(adjoint)
        first = (zero if self.first is None else self.first) - kept.rate * adjoint / (below * c1)
        # a coordinate without any gradient so far moves by 0 whatever its second moment
        slope = torch.where(root > 0, mean / (2 * below**2 * torch.where(root > 0, root, 1.0) * c2), 0.0)
        second = (zero if self.second is None else self.second) + kept.rate * adjoint * slope
        self.first, self.second = b1 * first, b2 * second
        return (1 - b1) * first + 2 * (1 - b2) * total * second

    def __call__(self, kept: Kept, number: int, adjoint: Tensor) -> Tensor:
        return adjoint * (1 - kept.rate * self.rule.decay)


def hessian_products(tape: Tape, kept: Kept, rows: Tensor) -> Tensor:
    """[Q, p] Hessian of the step's batch loss times each of `rows`, at the weights that are set."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    task, named = tape.run.task, dict(tape.model.named_parameters())
    parameters = [named[name] for name in tape.at.names]
    batch = task.batch(tape.taken(kept), whole=False)
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        losses = task.loss(tape.model, batch)
        loss = (torch.from_numpy(kept.factors).to(losses.dtype) * losses).sum() / kept.denominator
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        out = [_product(tape.at, parameters, slopes, row) for row in rows]
    return torch.stack(out) if out else torch.zeros_like(rows)


def _product(at: Places, parameters: Sequence[Tensor], slopes: Sequence[Tensor], row: Tensor) -> Tensor:
    directions = at.parameters(row)
    along = sum((s * directions[name].to(s.dtype)).sum() for name, s in zip(at.names, slopes, strict=True))
    found = torch.autograd.grad(along, parameters, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
    values = {
        name: torch.zeros_like(p) if value is None else value
        for name, p, value in zip(at.names, parameters, found, strict=True)
    }
    return at.row({name: value.detach().double() for name, value in values.items()})
