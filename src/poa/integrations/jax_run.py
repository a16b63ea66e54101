"""JaxRun: a finished training of a JAX model, brought as pytrees of weights; methods on gradient rows read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from poa.digests import plain_digest, sha256
from poa.errors import PoaError, Unsupported
from poa.factory.brought import check_log, groups_of
from poa.files import cache_home
from poa.gradients.capture import Block
from poa.records import Corpus, Record
from poa.steplog import StepLog

Number = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class JaxRun:
    """Satisfies `TrainingRun` for every method that reads rows of gradients alone (`poa.protocols.OwnGradients`).

    Methods that look into layers (curvature from activations, hidden states, stores of projected features) or train
    again ask for a torch module and are refused with `Unsupported`. Made by `JaxRun.of`.
    """

    corpus: Corpus
    checkpoints: tuple[int, ...]
    weights: tuple[Any, ...]
    loss: Number
    measurement: Number
    prepare: Callable[[Record], Any]
    groups: Mapping[str, tuple[str, ...]]
    digest: str
    cache: Path
    log: StepLog | None = None

    @staticmethod
    def of(
        name: str,
        checkpoints: Mapping[int, Any],
        corpus: Corpus,
        loss: Number,
        prepare: Callable[[Record], Any],
        *,
        measurement: Number | None = None,
        steps: StepLog | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        cache: Path | None = None,
    ) -> JaxRun:
        """Bring a training.

        name: of the model and its loss, which no digest can be taken of: another function needs another name.
        checkpoints: {step count: pytree of float arrays}, ascending. corpus: exactly the records trained on. prepare:
        one record to a pytree of arrays. loss(weights, example): a scalar, nats summed over what is supervised, as one
        example adds to the training loss. measurement: of a query, larger = better; by default -loss.

        Raises `PoaError` for checkpoints without order, of several structures or with leaves that are not floats.
        """
        steps_at = tuple(checkpoints)
        if not steps_at or list(steps_at) != sorted(set(steps_at)) or steps_at[0] < 1:
            raise PoaError(f"checkpoints are at steps {list(steps_at)}; step counts must ascend from 1")
        if len(corpus) == 0:
            raise PoaError("the corpus is empty; a run needs the records that it was trained on")
        layouts = [_blocks(weights) for weights in checkpoints.values()]
        if any(layout != layouts[0] for layout in layouts):
            raise PoaError("checkpoints have leaves of other names or shapes")
        if steps is not None:
            check_log(steps, corpus, steps_at[-1])
        labels = groups_of(corpus) if groups is None else {key: tuple(given) for key, given in groups.items()}
        digest = plain_digest(
            {
                "kind": "jax",
                "name": name,
                "manifest": corpus.digest,
                "groups": {key: list(given) for key, given in labels.items()},
                "states": [[step, _digest(weights)] for step, weights in checkpoints.items()],
                "steps": None if steps is None else steps.digest,
            }
        )
        home = cache_home() / "runs" / digest[:16] if cache is None else cache

        def benefit(weights: Any, example: Any) -> Any:
            return -loss(weights, example)

        return JaxRun(
            corpus,
            steps_at,
            tuple(checkpoints.values()),
            loss,
            benefit if measurement is None else measurement,
            prepare,
            labels,
            digest,
            home,
            steps,
        )

    @property
    def steps(self) -> StepLog:
        if self.log is None:
            raise Unsupported(
                "this run was brought without a step log, and the method needs to know which record entered which step "
                "at which rate: JaxRun.of(..., steps=poa.StepLog(...))"
            )
        return self.log

    @property
    def task(self) -> NoReturn:
        raise Unsupported("a JAX run has no torch task: this method looks into a torch module")

    def model(self, checkpoint: int = -1) -> NoReturn:
        raise Unsupported("a JAX run has no torch module: this method looks into one")

    def base(self) -> NoReturn:
        raise Unsupported("a JAX run has no torch module: this method looks into one")

    def gradient_blocks(self, coordinates: str) -> tuple[Block, ...]:
        """One block per leaf in the order of the tree; a leaf of more than two axes is a matrix by its last axis."""
        if coordinates != "adapter":
            raise Unsupported(f"{coordinates} coordinates need LoRA layers of a torch module")
        return _blocks(self.weights[0])

    def gradient_rows(self, checkpoint: int, records: Corpus, side: str) -> Iterator[npt.NDArray[Any]]:
        """[p] of each record: of -loss (side "train") or of the measurement (side "query"), one record at a time."""
        import jax

        if side not in ("train", "query"):
            raise Unsupported(f"gradients of {side} outputs need a torch task's predictions")
        number: Number = self.measurement if side == "query" else lambda weights, example: -self.loss(weights, example)
        slope = jax.jit(jax.grad(number))
        for record in records:
            found = slope(self.weights[checkpoint], self.prepare(record))
            row = np.concatenate([np.ravel(leaf) for leaf in jax.tree_util.tree_leaves(found)])
            if not np.isfinite(row).all():
                raise PoaError(f"the gradient of record {record.id!r} is not finite")
            yield row


def _blocks(weights: Any) -> tuple[Block, ...]:
    import jax

    blocks: list[Block] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]:
        array, name = np.asarray(leaf), jax.tree_util.keystr(path, simple=True, separator=".")
        if not np.issubdtype(array.dtype, np.floating):
            raise PoaError(f"leaf {name} holds {array.dtype}, must be floats: keep what is not trained out of the tree")
        last = array.shape[-1] if array.ndim else 1
        start = blocks[-1].stop if blocks else 0
        blocks.append(Block(name, start, start + array.size, (array.size // max(last, 1), last)))
    if not blocks or not blocks[-1].stop:
        raise PoaError("a checkpoint has no weights")
    return tuple(blocks)


def _digest(weights: Any) -> str:
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(weights)
    arrays = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
    return plain_digest([[name, str(a.dtype), list(a.shape), sha256(a.tobytes())] for name, a in arrays])
