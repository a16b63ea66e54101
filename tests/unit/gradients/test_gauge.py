"""Scores in balanced coordinates do not depend on how an adapter is written down; raw ones do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.language import DoubleRun
from torch import Tensor, nn

from poa.digests import sha256
from poa.errors import PoaError
from poa.evaluation.correlation import spearman_rows
from poa.factory.run import LoRARun
from poa.gradients.capture import capturing
from poa.gradients.gauge import balanced
from poa.gradients.heat import token_heat
from poa.methods.datainf import DataInf
from poa.methods.gradcos import GradCos
from poa.methods.graddot import GradDot
from poa.methods.influence import Influence
from poa.methods.logra import LoGra
from poa.methods.relatif import RelatIF
from poa.methods.tracin import TracInCP
from poa.methods.trak import TRAK
from poa.records import Corpus

Change = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, float]]


def refactored(condition: float, seed: int) -> Change:
    """(B Z, Z^-1 A) with a random Z of the given condition number."""

    def change(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor, float]:
        generator = torch.Generator().manual_seed(seed)
        rank = down.shape[0]
        u, _, v = torch.linalg.svd(torch.randn(rank, rank, generator=generator, dtype=torch.float64))
        z = u @ torch.diag(torch.logspace(0, -np.log10(condition), rank, dtype=torch.float64)) @ v
        return (torch.linalg.inv(z) @ down.double()).to(down.dtype), (up.double() @ z).to(up.dtype), scale

    return change


def scaled(factor: float) -> Change:
    return lambda down, up, scale: (down / factor, up * factor, scale)


def padded(rows: int) -> Change:
    """Columns of 0 in B beside large rows of A: the same function at a higher rank."""

    def change(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor, float]:
        noise = 30 * torch.randn(rows, down.shape[1], generator=torch.Generator().manual_seed(rows)).to(down.dtype)
        return torch.cat([down, noise]), torch.cat([up, up.new_zeros(up.shape[0], rows)], 1), scale

    return change


def traded(factor: float) -> Change:
    """Alpha against weights."""
    return lambda down, up, scale: (down * factor, up, scale / factor)


CHANGES: dict[str, Change] = {
    **{f"cond {condition:g}, {seed}": refactored(condition, seed) for condition in (10.0, 1e4) for seed in range(10)},
    "small": scaled(0.01),
    "large": scaled(100.0),
    "padded by 1": padded(1),
    "padded by 4": padded(4),
    "alpha": traded(7.0),
}


@dataclass(frozen=True)
class Rewritten:
    """A run whose adapter is written down otherwise."""

    single: Any
    name: str
    cache: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.single, name)

    @property
    def digest(self) -> str:
        return sha256(f"{self.name} {self.single.digest}".encode())

    def model(self, checkpoint: int = -1) -> Any:
        model = self.single.model(checkpoint)
        for module in list(model.modules()):
            if "lora_A" in dict(module.named_children()):
                a, b = module.lora_A["default"], module.lora_B["default"]
                down, up, scale = CHANGES[self.name](a.weight.detach(), b.weight.detach(), module.scaling["default"])
                a.weight, b.weight = nn.Parameter(down.clone()), nn.Parameter(up.clone())
                module.scaling["default"] = scale
        return model


METHODS = (
    GradDot(coordinates="balanced"),
    GradCos(coordinates="balanced"),
    Influence(0.1, "last", coordinates="balanced"),
    Influence(0.1, "last", "layers", "balanced"),
    RelatIF(0.1, coordinates="balanced"),
    DataInf(0.1, coordinates="balanced"),
    TracInCP("last", "balanced"),
    LoGra(2, 0.1, coordinates="balanced"),
    TRAK(16, 0.1, "last", coordinates="balanced"),
)


@pytest.mark.parametrize("name", CHANGES)
def test_scores_do_not_move_in_float64(double: DoubleRun, queries: Corpus, tmp_path: Path, name: str) -> None:
    other = Rewritten(double, name, tmp_path)
    for method in METHODS:
        before, after = (method.fit(run).attribute(queries[:4]).values for run in (double, other))
        assert np.abs(after - before).max() <= 1e-9 * np.abs(before).max()


@pytest.mark.parametrize("name", ["cond 10, 0", "small", "large", "padded by 4", "alpha"])
def test_scores_do_not_move_in_float32(run: LoRARun, queries: Corpus, tmp_path: Path, name: str) -> None:
    other = Rewritten(run, name, tmp_path)
    for method in METHODS:
        before, after = (method.fit(each).attribute(queries[:4]).values for each in (run, other))
        assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


def test_raw_coordinates_do_move(double: DoubleRun, queries: Corpus, tmp_path: Path) -> None:
    """The negative control: same function, other scores, another order."""
    other = Rewritten(double, "cond 10000, 0", tmp_path)
    with torch.no_grad():
        batch = double.task.batch(list(queries))
        same = [each.task.measurement(each.model(), batch) for each in (double, other)]
    torch.testing.assert_close(*same, rtol=1e-5, atol=1e-5)
    for method in (GradDot(), Influence(0.1, "last")):
        before, after = (method.fit(run).attribute(queries[:4]).values for run in (double, other))
        assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
        assert spearman_rows(before, after).mean() < 0.99


def test_balanced_factors_are_balanced_and_give_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    up = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    up[:, 3] = up[:, 0]  # rank 3
    rows, columns = balanced(down, up, 2.5)
    assert rows.shape == (4, 9) or rows.shape == (3, 9)
    torch.testing.assert_close(columns @ rows, 2.5 * up @ down, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(columns.T @ columns, rows @ rows.T, rtol=1e-10, atol=1e-8)
    assert balanced(down, torch.zeros(7, 4, dtype=torch.float64), 1.0)[0].shape == (0, 9)


def test_heat_still_splits_the_total_score(double: DoubleRun, queries: Corpus) -> None:
    for method in METHODS[:3]:
        index = method.fit(double)
        for query, heat in zip(queries[:3], token_heat(index, double.task, queries[:3]), strict=True):
            row = index.attribute(Corpus([query])).values[0]
            assert abs(heat.sum() - row.sum()) < 1e-6 * np.abs(heat).sum()


def test_an_untrained_adapter_has_no_balanced_coordinates(double: DoubleRun) -> None:
    model = copy.deepcopy(double.model())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    with pytest.raises(PoaError, match="adapter is zero"), capturing(double.task, model, "balanced"):
        pass
    with pytest.raises(PoaError, match="must be adapter or balanced"), capturing(double.task, model, "merged"):
        pass
