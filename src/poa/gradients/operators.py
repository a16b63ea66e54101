"""Curvature as something that multiplies directions: the Gauss-Newton matrix and the empirical Fisher of a run.

Both are of the *mean* loss over all records of the manifest, one fixed set in a fixed order (that of digests): an
inverse is never taken of a part and summed, and nothing is drawn anew between two products.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from poa.gradients.outputs import predictions
from poa.gradients.places import Places, places

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Record

Matrix = npt.NDArray[np.floating[Any]]
Matrix64 = npt.NDArray[np.float64]

# Up to so many parameters the matrix is written out once and multiplied by; above, every product passes over the data.
DENSE = 2048
# ... as long as the derivatives of all logits of one pass have at most so many numbers.
DERIVATIVES = 50_000_000
# Records in one pass. Sums are in float64, so that it shows in the last digits alone.
CHUNK = 32


class Operator(Protocol):
    """A symmetric positive semi-definite matrix [p, p]."""

    @property
    def size(self) -> int: ...

    @property
    def writable(self) -> bool: ...

    def times(self, rows: Matrix) -> Matrix64:
        """[k, p] rows @ matrix, float64; a row's bytes depend on that row alone."""
        ...

    def dense(self) -> Matrix64:
        """[p, p] written out."""
        ...


def one_by_one(product: Callable[[Matrix64], Matrix64], rows: Matrix) -> Matrix64:
    """[k, p] `product` of every row: a product of matrices would sum a row differently beside other rows."""
    out = np.zeros(rows.shape)
    for into, row in zip(out, rows, strict=True):
        into[:] = product(np.asarray(row, np.float64))
    return out


class Rows:
    """U^T U / N of gradient rows U [N, p]: the empirical Fisher where they are those of the training losses."""

    def __init__(self, rows: Matrix) -> None:
        self.rows = rows

    @property
    def size(self) -> int:
        return self.rows.shape[1]

    @property
    def writable(self) -> bool:
        return self.size <= DENSE

    def times(self, rows: Matrix) -> Matrix64:
        wide = np.asarray(self.rows, np.float64)
        return one_by_one(lambda row: wide.T @ (wide @ row) / len(wide), rows)

    def dense(self) -> Matrix64:
        wide = np.asarray(self.rows, np.float64)
        return wide.T @ wide / len(wide)


class GaussNewton:
    """J^T (diag(p) - p p^T) J summed over predictions, over N: the Gauss-Newton matrix of the mean loss.

    For cross entropies it is the Fisher with the model's own labels. In float64 on a float64 copy of the model, in the
    columns of gradient rows (adapter coordinates). `records`: a part of the manifest, for steps on parts of the data;
    the mean is then over that part.
    """

    def __init__(self, run: TrainingRun, position: int, records: Sequence[Record] | None = None) -> None:
        self.run = run
        self.task = run.task
        self.model: nn.Module = deepcopy(run.model(position)).double()
        self.places: Places = places(self.task, self.model)
        ordered = sorted(run.corpus, key=lambda record: (record.digest, record.id))
        self.records = list(ordered if records is None else records)

    def part(self, records: Sequence[Record]) -> GaussNewton:
        """The same model on other records."""
        other = GaussNewton.__new__(GaussNewton)
        other.run, other.task, other.model, other.places = self.run, self.task, self.model, self.places
        other.records = list(records)
        return other

    @property
    def size(self) -> int:
        return len(self.places.at)

    @property
    def writable(self) -> bool:
        """Whether the matrix is cheaper to write out once than to be multiplied by through the model.

        Writing takes a reverse pass for every logit, multiplying by all unit vectors two passes for every parameter.
        """
        return self._writable

    @cached_property
    def _writable(self) -> bool:
        if self.size > DENSE:
            return False
        with torch.no_grad():
            logits = self._logits(self._weights(), next(self._batches()))
        return logits.numel() <= 4 * self.size and logits.numel() * self.size <= DERIVATIVES

    def times(self, rows: Matrix) -> Matrix64:
        if self.writable:
            return one_by_one(lambda row: self.written @ row, rows)
        return self.passed(rows)

    def dense(self) -> Matrix64:
        return self.written if self.writable else self.passed(np.eye(self.size))

    def passed(self, rows: Matrix) -> Matrix64:
        """`times` by one forward-mode and one reverse-mode pass over the data for every row."""
        out = torch.zeros(len(rows), self.size, dtype=torch.float64)
        weights = self._weights()
        tangents = [self.places.parameters(torch.from_numpy(np.array(row, np.float64))) for row in rows]
        for batch in self._batches():
            pulled: Any = vjp(lambda given, batch=batch: self._logits(given, batch), weights)
            logits, back = pulled
            chances = logits.detach().softmax(1)
            for into, tangent in zip(out, tangents, strict=True):
                moved = self._derivative(weights, tangent, batch)
                bent = chances * (moved - (chances * moved).sum(1, keepdim=True))
                into += self.places.row(back(bent)[0])
        return out.numpy() / len(self.records)

    @cached_property
    def written(self) -> Matrix64:
        """[p, p] from Jacobians of all logits."""
        out = torch.zeros(self.size, self.size, dtype=torch.float64)
        weights = self._weights()
        for batch in self._batches():
            jacobians: Any = jacrev(lambda given, batch=batch: self._logits(given, batch))(weights)
            with torch.no_grad():
                chances = self._logits(weights, batch).softmax(1)
            parts = [jacobians[name].flatten(2) for name in self.places.names]
            wide = torch.cat(parts, 2)[:, :, self.places.at]
            centred = wide - torch.einsum("mc,mcp->mp", chances, wide)[:, None]
            scaled = (centred * chances.sqrt()[:, :, None]).flatten(0, 1)
            out += scaled.T @ scaled
        return out.numpy() / len(self.records)

    def _weights(self) -> dict[str, Tensor]:
        named = dict(self.model.named_parameters())
        return {name: named[name].detach() for name in self.places.names}

    def _batches(self) -> Iterator[Any]:
        for start in range(0, len(self.records), CHUNK):
            batch = self.task.batch(self.records[start : start + CHUNK], whole=False)
            yield {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}

    def _logits(self, weights: Mapping[str, Tensor], batch: Any) -> Tensor:
        return predictions(self.task, _Changed(self.model, weights), batch).logits  # type: ignore[arg-type]

    def _derivative(self, weights: dict[str, Tensor], tangent: dict[str, Tensor], batch: Any) -> Tensor:
        # Fused attention has no forward-mode derivative.
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            # torch compiles its forward-mode formulas with its own deprecated torch.jit.script on first use.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*is deprecated", category=DeprecationWarning)
            found: Tensor = jvp(lambda given: self._logits(given, batch), (weights,), (tangent,))[1]
        return found.detach()


class _Changed:
    """A model with other weights, called as the model is."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.model = model
        self.weights = dict(weights)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return functional_call(self.model, self.weights, given, named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
