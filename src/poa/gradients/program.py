"""A training as a program of arrays: run for many record weights at once, and differentiated as a whole.

Every model of a batch shares start, order, rates and denominators and differs in the weights that multiply its records'
losses: `vmap` over the weights, `scan` over the steps. The same program, reversed, gives the derivative of a
measurement by every record's weight. What is compiled knows shapes only: other seeds, data and weights of the same
shape use it again.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.files import cache_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from poa.protocols import Optimizer

Matrix64 = npt.NDArray[np.float64]
# A pytree of arrays; JAX has no type for it.
Tree = Any


class Network(Protocol):
    """A hashable description of a network: equal ones are compiled once."""

    # How many models, or cotangents, go through together: activations grow with it.
    stack: ClassVar[int]

    def losses(self, trained: Tree, frozen: Tree, rows: Tree) -> Any:
        """[b] nats, summed over what is supervised in a record; each from its record alone."""
        ...

    def measure(self, trained: Tree, frozen: Tree, rows: Tree) -> Any:
        """[b] nats, larger = better; each from its query alone."""
        ...


@dataclass(frozen=True, eq=False)
class Lane:
    """Records that go through the network together: data arrays [N, ...], places [T, b] in the manifest, -1 empty."""

    data: Tree
    places: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Program:
    """start: what is trained; frozen: what is not.

    Step t descends the sum over its records (in all lanes) of weight x loss / denominators[t] at rates[t] by `rule`.
    dtype: of all arithmetic, "float32" or "float64". records: N, how many the manifest has.
    """

    network: Network
    start: Tree
    frozen: Tree
    lanes: tuple[Lane, ...]
    rates: Matrix64
    denominators: Matrix64
    rule: Optimizer
    dtype: str
    records: int

    def trained(self, weights: npt.NDArray[np.floating[Any]]) -> Tree:
        """The trained tree with a first axis of models; weights [M, N], 0 = masked removal."""
        with precision(self.dtype):
            return self._compiled("finals")(self._given, self._spread(weights))

    def measured(self, weights: npt.NDArray[np.floating[Any]], queries: Tree) -> Matrix64:
        """[M, Q] measurements after training with each row of `weights`, `network.stack` rows at a time."""
        stack, rows = self.network.stack, np.asarray(weights, np.float64)
        if len(rows) <= stack:
            return self._measured(rows, queries)
        filled = np.concatenate([rows, np.ones((-len(rows) % stack, self.records))])
        parts = [self._measured(filled[start : start + stack], queries) for start in range(0, len(filled), stack)]
        return np.concatenate(parts)[: len(rows)]

    def _measured(self, weights: Matrix64, queries: Tree) -> Matrix64:
        with precision(self.dtype):
            finals = self._compiled("finals")(self._given, self._spread(weights))
            return np.asarray(self._compiled("measures")(finals, self.frozen, queries), np.float64)

    def metagradient(
        self, weights: npt.NDArray[np.floating[Any]], queries: Tree, stack: int | None = None
    ) -> tuple[Matrix64, Matrix64]:
        """([Q] measurements, [Q, N] their derivatives by each record's weight) at `weights` [N].

        Exact for the program: the training is run, then reversed step by step with the gradients of up to `stack`
        (None: `network.stack`) queries as one batch of cotangents, the last one filled up with zeros so that a query's
        numbers do not depend on how many there are. States are computed again from every sqrt(T)-th one on the way back
        (MAGIC, arXiv 2504.16430).
        """
        values, signals = self.asked(weights, queries)
        return values, self.pulled(weights, signals, stack)

    def asked(self, weights: npt.NDArray[np.floating[Any]], queries: Tree) -> tuple[Matrix64, Tree]:
        """([Q] measurements, their gradients by what is trained, with a first axis of queries) at the end."""
        with precision(self.dtype):
            values, signals = self._compiled("asked")(self._given, self._one(weights), queries)
            return np.asarray(values, np.float64), signals

    def pulled(self, weights: npt.NDArray[np.floating[Any]], signals: Tree, stack: int | None = None) -> Matrix64:
        """[B, N] derivative by each record's weight of <signal, final state>, for B stacked signals: reverse mode."""
        import jax

        stack, count = stack or self.network.stack, len(jax.tree.leaves(signals)[0])
        with precision(self.dtype):
            spread = self._one(weights)
            found = [
                self._compiled("reversed")(self._given, spread, _rows(signals, start, stack))
                for start in range(0, count, stack)
            ]
        out = np.zeros((count, self.records))
        for at, lane in enumerate(self.lanes):
            slope = np.concatenate([np.asarray(part[at], np.float64) for part in found])[:count]
            kept = lane.places.ravel() >= 0
            for into, row in zip(out, slope.reshape(count, -1), strict=True):
                np.add.at(into, lane.places.ravel()[kept], row[kept])
        return out

    def _one(self, weights: npt.NDArray[np.floating[Any]]) -> tuple[Any, ...]:
        return tuple(part[0] for part in self._spread(np.asarray(weights)[None]))

    def _compiled(self, what: str) -> Callable[..., Any]:
        return _compiled(self.network, self.rule, self.dtype)[what]

    @property
    def _given(self) -> tuple[Any, ...]:
        lanes = tuple((lane.data, lane.places.astype(np.int32)) for lane in self.lanes)
        return self.start, self.frozen, lanes, self.rates.astype(self.dtype), self.denominators.astype(self.dtype)

    def _spread(self, weights: npt.NDArray[np.floating[Any]]) -> tuple[Any, ...]:
        """Per lane [M, T, b]: the weight of the record in each place, 0 in empty ones."""
        rows = np.asarray(weights, self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.records:
            raise PoaError(f"weights have shape {rows.shape}, must be [models, {self.records}]")
        return tuple(np.where(lane.places >= 0, rows[:, lane.places], 0) for lane in self.lanes)


@cache
def _compiled(network: Network, rule: Optimizer, dtype: str) -> dict[str, Callable[..., Any]]:
    """The functions of all programs of this network, optimizer and precision."""
    import jax

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        # Compiling a language model's reversal takes minutes; the next process reads it.
        settings.update("jax_compilation_cache_dir", str(cache_home() / "jax"))

    def single(trained: Tree, frozen: Tree, row: Tree) -> Any:
        return network.measure(trained, frozen, jax.tree.map(lambda x: x[None], row))[0]

    def measures(trained: Tree, frozen: Tree, queries: Tree) -> Any:
        # One at a time, of all models together: last digits must not depend on the queries beside.
        return jax.lax.map(partial(single, trained, frozen), queries)

    def asked(given: tuple[Any, ...], factors: tuple[Any, ...], queries: Tree) -> Any:
        """([Q], their gradients at the end); one at a time: last digits must not depend on the queries beside."""
        final = _finals(network, rule, given, factors)
        return jax.lax.map(partial(jax.value_and_grad(single), final, given[1]), queries)

    def pulled(given: tuple[Any, ...], factors: tuple[Any, ...], signals: Tree) -> Any:
        _, back = jax.vjp(lambda factors: _finals(network, rule, given, factors), factors)
        return jax.vmap(lambda signal: back(signal)[0])(signals)

    return {
        "finals": jax.jit(jax.vmap(partial(_finals, network, rule), (None, 0))),
        "measures": jax.jit(jax.vmap(measures, (0, None, None))),
        "asked": jax.jit(asked),
        "reversed": jax.jit(pulled),
    }


def _finals(network: Network, rule: Optimizer, given: tuple[Any, ...], factors: tuple[Any, ...]) -> Tree:
    """One model through all steps, in parts of about sqrt(T) that a reversal computes again.

    What is missing in the last part is filled up with steps that change nothing, so that there is one loop to compile.
    """
    import jax
    import jax.numpy as jnp

    start, frozen, lanes, rates, denominators = given
    steps = len(rates)
    size = _part_size(steps)
    places = tuple(places for _, places in lanes)

    def step(state: Tree, now: Tree) -> tuple[Tree, None]:
        moved = _stepped(network, rule, frozen, tuple(data for data, _ in lanes), state, *now)
        if steps % size:
            moved = jax.tree.map(lambda new, old: jnp.where(now[0] < steps, new, old), moved, state)
        return moved, None

    def folded(x: Any) -> Any:
        # the last entry again: a step that nobody takes has a denominator that is not 0, too
        wide = jnp.pad(x, ((0, -steps % size), *((0, 0) for _ in x.shape[1:])), mode="edge")
        return wide.reshape(-1, size, *x.shape[1:])

    @jax.checkpoint  # type: ignore[misc]
    def part(state: Tree, some: Tree) -> tuple[Tree, None]:
        return jax.lax.scan(jax.checkpoint(step), state, some)

    numbers = jnp.arange(steps + -steps % size).reshape(-1, size)
    rest = jax.tree.map(folded, (rates, denominators, places, factors))
    return jax.lax.scan(part, _start(rule, start), (numbers, *rest))[0][0]


def _start(rule: Optimizer, start: Tree) -> tuple[Tree, ...]:
    """(weights, and as many moments as the rule keeps)"""
    import jax
    import jax.numpy as jnp

    moments = 2 if rule.kind == "adamw" else int(rule.momentum > 0)
    state = jax.tree.map(jnp.asarray, start)
    return state, *(jax.tree.map(jnp.zeros_like, state) for _ in range(moments))


def _stepped(
    network: Network,
    rule: Optimizer,
    frozen: Tree,
    data: tuple[Tree, ...],
    state: Tree,
    number: Any,
    rate: Any,
    denominator: Any,
    places: tuple[Any, ...],
    factors: tuple[Any, ...],
) -> Tree:
    import jax
    import jax.numpy as jnp

    def loss(trained: Tree, rows: Tree, factor: Any) -> Any:
        return (factor * network.losses(trained, frozen, rows)).sum() / denominator

    total: Any = None
    for table, at, factor in zip(data, places, factors, strict=True):
        rows = jax.tree.map(lambda x, at=at: x[jnp.maximum(at, 0)], table)
        slope = jax.grad(loss)(state[0], rows, factor)
        total = slope if total is None else jax.tree.map(jnp.add, total, slope)
    return _updated(rule, state, total, rate, number)


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


def _rows(tree: Tree, start: int, size: int) -> Tree:
    """Rows [start, start + size) of every leaf, zeros where there are none."""
    import jax
    import jax.numpy as jnp

    def cut(x: Any) -> Any:
        rows = x[start : start + size]
        return jnp.pad(rows, ((0, size - len(rows)), *((0, 0) for _ in x.shape[1:])))

    return jax.tree.map(cut, tree)


@contextmanager
def precision(dtype: str) -> Generator[None]:
    """JAX with float64 where a program asks for it; nothing of the process's own setting remains changed."""
    import jax

    with jax.enable_x64(dtype == "float64"):
        yield
