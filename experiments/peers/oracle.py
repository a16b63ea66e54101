"""What the methods are defined to be, in float64 and spelled out: the arbiter where two libraries differ.

Everything is formed explicitly (gradients by autograd one record at a time, p x p matrices), so it serves small
classifiers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from subjects import Matrix, Tables, at
from torch import Tensor, nn
from torch.func import hessian, jacrev

from poa.protocols import TrainingRun
from poa.records import Corpus


@dataclass(frozen=True, eq=False)
class Oracle:
    """Explicit quantities of a classifier run at its last checkpoint (parameters in `named_parameters` order)."""

    run: TrainingRun
    queries: Corpus

    @cached_property
    def tables(self) -> Tables:
        return Tables(self.run, self.queries)

    @cached_property
    def model(self) -> nn.Module:
        return self.run.model().double()

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.model.named_parameters()}

    def data(self, side: str) -> tuple[Tensor, ...]:
        found = self.tables.train if side == "train" else self.tables.asked
        return tuple(column.double() if column.is_floating_point() else column for column in found)

    def rows(self, side: str) -> Matrix:
        """[n, p] -grad loss of training records, grad measurement of queries."""
        data = self.data(side)
        out: list[Tensor] = []
        for position in range(len(data[0])):
            one = [column[position : position + 1] for column in data]
            value = (
                -self.tables.losses(self.model, one) if side == "train" else self.tables.measurements(self.model, one)
            )
            found = torch.autograd.grad(value.sum(), list(self.model.parameters()))
            out.append(torch.cat([part.flatten() for part in found]))
        return torch.stack(out).numpy()

    @cached_property
    def train(self) -> Matrix:
        return self.rows("train")

    @cached_property
    def asked(self) -> Matrix:
        return self.rows("query")

    def gauss_newton(self, picks: slice = slice(None)) -> Matrix:
        """[p, p] Gauss-Newton matrix of the mean loss of some training records."""
        x = self.data("train")[0][picks]
        found = jacrev(lambda weights: at(self.model, weights)(x))(self.weights)
        jacobian = torch.cat([part.flatten(2) for part in found.values()], 2)  # [n, classes, p]
        p = torch.softmax(self.model(x).detach(), 1)
        inner = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        return torch.einsum("ncp,ncd,ndq->pq", jacobian, inner, jacobian).numpy() / len(x)

    def hessian(self, picks: slice = slice(None)) -> Matrix:
        """[p, p] Hessian of the mean loss of some training records."""
        data = [column[picks] for column in self.data("train")]
        names, sizes = list(self.weights), [value.numel() for value in self.weights.values()]

        def loss(flat: Tensor) -> Tensor:
            parts = flat.split(sizes)
            weights = {name: part.view_as(self.weights[name]) for name, part in zip(names, parts, strict=True)}
            return self.tables.losses(at(self.model, weights), data).mean()

        flat = torch.cat([value.flatten() for value in self.weights.values()])
        found: Any = hessian(loss)(flat)
        return found.numpy()

    def influence(self, curvature: Matrix, damping: float) -> Matrix:
        """[query, train] v^T (curvature + damping I)^-1 u / N."""
        solved = np.linalg.solve(curvature + damping * np.eye(len(curvature)), self.asked.T)
        return (self.train @ solved).T / len(self.train)

    def layers(self, rows: Matrix) -> list[Matrix]:
        """[n, out, in (+ 1)] per linear layer, a bias as the last column."""
        out: list[Matrix] = []
        start = 0
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                high, wide = module.weight.shape
                part = rows[:, start : start + high * wide].reshape(-1, high, wide)
                start += high * wide
                if module.bias is not None:
                    part = np.concatenate([part, rows[:, start : start + high].reshape(-1, high, 1)], 2)
                    start += high
                out.append(part)
        return out

    def factors(self) -> list[tuple[Matrix, Matrix]]:
        """(activations [N, in (+ 1)], gradients of the loss at the outputs [N, out]) per linear layer, own labels."""
        seen: list[tuple[Tensor, Tensor]] = []
        modules = [module for module in self.model.modules() if isinstance(module, nn.Linear)]

        def keep(module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            ones = given[0].new_ones(len(given[0]), 1)
            seen.append((torch.cat([given[0], ones], 1) if module.bias is not None else given[0], out))

        handles = [module.register_forward_hook(keep) for module in modules]
        total = self.tables.losses(self.model, self.data("train")).sum()
        for handle in handles:
            handle.remove()
        signals = torch.autograd.grad(total, [out for _, out in seen])
        return [(a.detach().numpy(), s.numpy()) for (a, _), s in zip(seen, signals, strict=True)]

    def ekfac(
        self, damping: float, corrected: bool = True, transposed: bool = False, scrambled: bool = False
    ) -> Matrix:
        """[query, train] scores by (E)K-FAC with the records' own labels, damping absolute.

        transposed: rotate by Q where Q^T is meant; what comes out then hangs on the signs that LAPACK gave the
        eigenvectors, so they are had from the call that dattri makes. scrambled: lay weight and bias end to end and
        cut the result into rows as if the bias had been a column of the weight all along.
        """
        total = np.zeros((len(self.asked), len(self.train)))
        sides = zip(self.layers(self.train), self.layers(self.asked), self.factors(), strict=True)
        for train, asked, (inputs, signals) in sides:
            a, s = inputs.T @ inputs / len(inputs), signals.T @ signals / len(signals)
            (low_a, q_a), (low_s, q_s) = (_single(m) if transposed else np.linalg.eigh(m) for m in (a, s))
            left, right = (q_s, q_a.T) if transposed else (q_s.T, q_a)
            eigenvalues = ((left @ train @ right) ** 2).mean(0) if corrected else np.outer(low_s, low_a)
            turned = _scramble(asked) if scrambled else asked
            solved = left.T @ ((left @ turned @ right) / (eigenvalues + damping)) @ right.T
            if scrambled:
                solved = _unscramble(solved)
            total += np.einsum("qij,nij->qn", solved, train)
        return total / len(self.train)


def _single(matrix: Matrix) -> tuple[Matrix, Matrix]:
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix).float(), UPLO="U")
    return values.double().numpy(), vectors.double().numpy()


def _scramble(rows: Matrix) -> Matrix:
    flat = np.concatenate([rows[:, :, :-1].reshape(len(rows), -1), rows[:, :, -1]], 1)
    return flat.reshape(rows.shape)


def _unscramble(rows: Matrix) -> Matrix:
    flat = rows.reshape(len(rows), -1)
    high, wide = rows.shape[1:]
    weight = flat[:, : high * (wide - 1)].reshape(-1, high, wide - 1)
    return np.concatenate([weight, flat[:, high * (wide - 1) :, None]], 2)
