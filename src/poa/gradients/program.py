"""A training as a program of arrays: run for many record weights at once, and differentiated as a whole.

Every model of a batch shares start, order, rates and denominators and differs in the weights that multiply its records'
losses: `vmap` over the weights, `scan` over the steps, one compilation. The same program, reversed, gives the
derivative of a measurement by every record's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.protocols import Optimizer

Matrix64 = npt.NDArray[np.float64]
# A pytree of arrays; JAX has no type for it.
Tree = Any
# Queries that go through a network together.
QUERIES = 8


@dataclass(frozen=True, eq=False)
class Lane:
    """Records that go through the network together: data arrays [N, ...], places [T, b] in the manifest, -1 empty."""

    data: Tree
    places: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Program:
    """start: what is trained; frozen: what is not. losses(trained, frozen, rows) -> [b] nats, summed over a record;
    measure(trained, frozen, rows) -> [b] nats, larger = better; a row depends on its record alone.

    Step t descends the sum over its records (in all lanes) of weight x loss / denominators[t] at rates[t] by `rule`.
    dtype: of all arithmetic, "float32" or "float64".
    """

    start: Tree
    frozen: Tree
    losses: Callable[[Tree, Tree, Tree], Any]
    measure: Callable[[Tree, Tree, Tree], Any]
    lanes: tuple[Lane, ...]
    rates: Matrix64
    denominators: Matrix64
    rule: Optimizer
    dtype: str
    records: int

    def trained(self, weights: npt.NDArray[np.floating[Any]]) -> Tree:
        """The trained tree with a first axis of models; weights [M, N], 0 = masked removal."""
        with precision(self.dtype):
            return self._finals(self.start, self.frozen, self._spread(weights))

    def measured(self, weights: npt.NDArray[np.floating[Any]], queries: Tree) -> Matrix64:
        """[M, Q] measurements after training with each row of `weights`."""
        with precision(self.dtype):
            finals = self._finals(self.start, self.frozen, self._spread(weights))
            return np.asarray(self._measures(finals, self.frozen, queries), np.float64)

    def metagradient(
        self, weights: npt.NDArray[np.floating[Any]], queries: Tree, stack: int = 128
    ) -> tuple[Matrix64, Matrix64]:
        """([Q] measurements, [Q, N] their derivatives by each record's weight) at `weights` [N].

        Exact for the program: the training is run, then reversed step by step with the gradients of up to `stack`
        queries as one batch of cotangents, the last one filled up with zeros so that a query's numbers do not depend on
        how many there are. States are computed again from every sqrt(T)-th one on the way back (MAGIC, arXiv
        2504.16430).
        """
        with precision(self.dtype):
            spread = tuple(part[0] for part in self._spread(np.asarray(weights)[None]))
            final = self._final(self.start, self.frozen, spread)
            values, asked = self._asked(final, self.frozen, queries)
            found = [
                self._reversed(self.start, self.frozen, spread, _part(asked, start, stack))
                for start in range(0, len(values), stack)
            ]
        slopes = [
            np.concatenate([np.asarray(part[i], np.float64) for part in found])[: len(values)]
            for i in range(len(self.lanes))
        ]
        out = np.zeros((len(values), self.records))
        for lane, slope in zip(self.lanes, slopes, strict=True):
            rows, kept = slope.reshape(len(out), -1), lane.places.ravel() >= 0
            for into, row in zip(out, rows, strict=True):
                np.add.at(into, lane.places.ravel()[kept], row[kept])
        return np.asarray(values, np.float64), out

    def _spread(self, weights: npt.NDArray[np.floating[Any]]) -> tuple[Any, ...]:
        """Per lane [M, T, b]: the weight of the record in each place, 0 in empty ones."""
        rows = np.asarray(weights, self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.records:
            raise PoaError(f"weights have shape {rows.shape}, must be [models, {self.records}]")
        return tuple(np.where(lane.places >= 0, rows[:, lane.places], 0) for lane in self.lanes)

    def _scan(self, start: Tree, frozen: Tree, factors: tuple[Any, ...]) -> Tree:
        """One model through all steps, in parts of about sqrt(T) that a reversal computes again.

        What is missing in the last part is filled up with steps that change nothing, so that there is one loop to
        compile.
        """
        import jax
        import jax.numpy as jnp

        steps, size = len(self.rates), _part_size(len(self.rates))
        given = (self.rates, self.denominators, np.arange(steps), tuple(lane.places for lane in self.lanes), factors)
        state = (start, *(() if self.rule.kind == "sgd" and not self.rule.momentum else self._zeros(start)))

        def step(state: Tree, now: Tree) -> tuple[Tree, None]:
            number = now[2]
            moved = self._stepped(state, frozen, *now)
            if steps % size:
                moved = jax.tree.map(lambda new, old: jnp.where(number < steps, new, old), moved, state)
            return moved, None

        def folded(x: Any) -> Any:
            array = jnp.asarray(x)
            array = array.astype(self.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array
            # the last entries again: a step that nobody takes has a denominator that is not 0, too
            wide = jnp.pad(array, ((0, -steps % size), *((0, 0) for _ in array.shape[1:])), mode="edge")
            return wide.reshape(-1, size, *array.shape[1:])

        @jax.checkpoint  # type: ignore[misc]
        def part(state: Tree, some: Tree) -> tuple[Tree, None]:
            return jax.lax.scan(jax.checkpoint(step), state, some)

        numbered = (*given[:2], np.arange(steps + -steps % size).reshape(-1, size), *given[3:])
        folded_ = tuple(x if at == 2 else jax.tree.map(folded, x) for at, x in enumerate(numbered))
        return jax.lax.scan(part, state, folded_)[0][0]

    def _zeros(self, start: Tree) -> tuple[Tree, ...]:
        import jax
        import jax.numpy as jnp

        zeros = jax.tree.map(jnp.zeros_like, start)
        return (zeros,) if self.rule.kind == "sgd" else (zeros, zeros)

    def _stepped(
        self, state: Tree, frozen: Tree, rate: Any, denominator: Any, number: Any, places: Any, factors: Any
    ) -> Tree:
        import jax
        import jax.numpy as jnp

        trained = state[0]

        def loss(trained: Tree, rows: Tree, factor: Any) -> Any:
            return (factor * self.losses(trained, frozen, rows)).sum() / denominator

        total: Any = None
        for lane, at, factor in zip(self.lanes, places, factors, strict=True):
            rows = jax.tree.map(lambda x, at=at: jnp.asarray(x)[jnp.maximum(at, 0)], lane.data)
            slope = jax.grad(loss)(trained, rows, factor)
            total = slope if total is None else jax.tree.map(jnp.add, total, slope)
        return _updated(self.rule, state, total, rate, number)

    @cached_property
    def _finals(self) -> Callable[..., Tree]:
        import jax

        return jax.jit(jax.vmap(self._scan, (None, None, 0)))

    @cached_property
    def _final(self) -> Callable[..., Tree]:
        import jax

        return jax.jit(self._scan)

    @cached_property
    def _measures(self) -> Callable[..., Any]:
        import jax

        def one(trained: Tree, frozen: Tree, queries: Tree) -> Any:
            return jax.lax.map(lambda row: self._single(trained, frozen, row), queries, batch_size=QUERIES)

        return jax.jit(jax.vmap(one, (0, None, None)))

    @cached_property
    def _asked(self) -> Callable[..., Any]:
        """(trained, frozen, queries) -> ([Q], their gradients at `trained`)."""
        import jax

        def every(trained: Tree, frozen: Tree, queries: Tree) -> Any:
            slope = jax.value_and_grad(self._single)
            # one at a time: last digits must not depend on the queries beside
            return jax.lax.map(lambda row: slope(trained, frozen, row), queries)

        return jax.jit(every)

    def _single(self, trained: Tree, frozen: Tree, row: Tree) -> Any:
        import jax

        return self.measure(trained, frozen, jax.tree.map(lambda x: x[None], row))[0]

    @cached_property
    def _reversed(self) -> Callable[..., Any]:
        import jax

        def pulled(start: Tree, frozen: Tree, factors: tuple[Any, ...], asked: Tree) -> Any:
            _, back = jax.vjp(lambda factors: self._scan(start, frozen, factors), factors)
            return jax.vmap(lambda signal: back(signal)[0])(asked)

        return jax.jit(pulled)


def _part(tree: Tree, start: int, size: int) -> Tree:
    """Rows [start, start + size) of every leaf, zeros where there are none."""
    import jax
    import jax.numpy as jnp

    def cut(x: Any) -> Any:
        rows = x[start : start + size]
        return jnp.pad(rows, ((0, size - len(rows)), *((0, 0) for _ in x.shape[1:])))

    return jax.tree.map(cut, tree)


def _updated(rule: Optimizer, state: Tree, slope: Tree, rate: Any, number: Any) -> Tree:
    """torch.optim.SGD (heavy ball, coupled decay) and torch.optim.AdamW (decoupled decay), in their own order."""
    import jax
    import jax.numpy as jnp

    if rule.kind == "sgd":
        slope = jax.tree.map(lambda g, p: g + rule.decay * p, slope, state[0])
        if not rule.momentum:
            return (jax.tree.map(lambda p, g: p - rate * g, state[0], slope),)
        buffer = jax.tree.map(lambda b, g: rule.momentum * b + g, state[1], slope)
        return jax.tree.map(lambda p, b: p - rate * b, state[0], buffer), buffer
    b1, b2 = rule.betas
    c1, c2 = 1 - b1 ** (number + 1), 1 - b2 ** (number + 1)
    first = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state[1], slope)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state[2], slope)

    def moved(p: Any, m: Any, v: Any) -> Any:
        # a coordinate without any gradient so far has a root without a derivative, and does not move
        root = jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1.0)), 0.0)
        return p * (1 - rate * rule.decay) - rate / c1 * m / (root / jnp.sqrt(c2) + rule.eps)

    return jax.tree.map(moved, state[0], first, second), first, second


def _part_size(steps: int) -> int:
    """Of the sizes from sqrt(steps) to twice that, the one that leaves the last part fullest."""
    root = isqrt(steps - 1) + 1
    return min(range(root, 2 * root), key=lambda size: (-steps % size, size))


@contextmanager
def precision(dtype: str) -> Generator[None]:
    """JAX with float64 where a program asks for it; nothing of the process's own setting remains changed."""
    import jax

    with jax.enable_x64(dtype == "float64"):
        yield
