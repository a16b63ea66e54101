"""Layers that break what capture takes for granted are differentiated whole or refused, never silently wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poa.errors import PoaError, Unsupported
from poa.factory.classifier import Classifier
from poa.gradients.capture import capturing, example_gradients, layout
from poa.records import Record

TASK = Classifier(6, 3, "float64")


class Everything(Classifier):
    """A classifier task of any module."""

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: m for name, m in model.named_modules() if list(m.parameters(recurse=False))}


ANY = Everything(6, 3, "float64")


def records(count: int = 4) -> list[Record]:
    rows = torch.randn(count, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [Record(id=f"r{i}", features=tuple(row.tolist()), label=i % 3) for i, row in enumerate(rows)]


def by_autograd(model: nn.Module, names: list[str]) -> Tensor:
    """[n, p] gradients of -loss by parameter name."""
    rows: list[Tensor] = []
    for record in records():
        loss = TASK.loss(model, TASK.batch([record])).sum()
        named = dict(model.named_parameters())
        found = torch.autograd.grad(-loss, [named[name] for name in names])
        rows.append(torch.cat([value.flatten() for value in found]))
    return torch.stack(rows)


class ExponentialNorm(nn.Module):
    """Called a norm, and not affine in its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.weight.exp()


class ScalarNorm(nn.Module):
    """One gain for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 1.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.weight


@pytest.mark.parametrize("kind", [ExponentialNorm, ScalarNorm])
def test_a_norm_in_name_alone_is_differentiated_as_it_is(kind: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(kind(), nn.Linear(6, 3, bias=False).double()).eval()
    found = example_gradients(ANY, model, records(), "train")
    torch.testing.assert_close(found, by_autograd(model, ["0.weight", "1.weight"]), rtol=1e-10, atol=1e-12)


def test_a_layer_norm_keeps_its_factors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)).double().eval()
    assert [block.shape for block in layout(ANY.tracked(model))] == [(6, 2), (3, 7)]


class Gated(nn.Module):
    """Takes a gate beside its input."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.inner, self.head, self.named = _Gate(), nn.Linear(6, 3), named

    def forward(self, x: Tensor) -> Tensor:
        gate = x.sigmoid()
        return self.head(self.inner(x, gate=gate) if self.named else self.inner(x, gate))


class _Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return x * self.weight * (1.0 if gate is None else gate)


@pytest.mark.parametrize("named", [False, True])
def test_what_a_layer_takes_beside_its_input_is_not_forgotten(named: bool) -> None:
    with pytest.raises(Unsupported, match="_Gate that takes more than its input"):
        example_gradients(ANY, Gated(named).double().eval(), records(), "train")


def test_a_shared_bias_alone_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    first: Any = model[0]
    other: Any = model[2]
    other.bias = first.bias
    with pytest.raises(Unsupported, match="0 and 2 share a parameter but not all"):
        example_gradients(ANY, model, records(), "train")
    other.weight = first.weight  # all of them: one block, gradients added up
    found = example_gradients(ANY, model, records(), "train")
    rows = by_autograd(model, ["0.weight", "0.bias", "4.weight", "4.bias"])
    wide = torch.cat([rows[:, :36].view(-1, 6, 6), rows[:, 36:42].view(-1, 6, 1)], 2).flatten(1)
    torch.testing.assert_close(found[:, :42], wide, rtol=1e-10, atol=1e-12)


class Drops(nn.Module):
    """Dropout by a function, which no mode switches off."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(x, 0.5, training=True))


def test_a_model_that_answers_in_two_ways_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="the same record in two ways"):
        example_gradients(ANY, Drops().double().eval(), records(), "train")


class Mixes(nn.Module):
    """Every example less the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x - x.mean(0))


def test_a_model_that_mixes_examples_is_refused() -> None:
    torch.manual_seed(0)
    model = Mixes().double().eval()
    with pytest.raises(Unsupported, match="it mixes examples"):
        example_gradients(ANY, model, records(), "train")
    with capturing(ANY, model) as capture:
        capture.factors(records()[:1], "train")  # alone it cannot be seen
        with pytest.raises(Unsupported, match="it mixes examples"):
            capture.factors(records()[1:2], "train")


def test_a_batch_norm_without_statistics_is_refused_in_eval_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)).double().eval()
    with pytest.raises(Unsupported, match="without running statistics"):
        example_gradients(ANY, model, records(), "train")


def test_half_precision_weights_are_refused_with_the_reason() -> None:
    model = nn.Sequential(nn.Linear(6, 3)).to(torch.bfloat16).eval()
    with pytest.raises(Unsupported, match="layer 0 is trained in bfloat16"):
        example_gradients(Everything(6, 3, "float32"), model, records(), "train")


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name",
    [
        *("astra", "datainf", "ekfac", "ekfac_cg", "exact_influence", "grass", "influence", "kfac", "logra", "lorif"),
        *("relatif", "trackstar", "trak"),
    ],
)
def test_dampings_that_mean_nothing_are_refused_by_name(name: str, given: float) -> None:
    from poa import methods

    if given == 0.0 and name in ("kfac", "ekfac"):  # the pseudo-inverse
        assert methods.method(name, damping=given).damping == 0.0
        return
    with pytest.raises(PoaError, match=rf"{name}\.damping is"):
        methods.method(name, damping=given)


@pytest.mark.parametrize("name", ["kfac", "influence"])
def test_a_damping_that_is_no_number_is_refused_by_name(name: str) -> None:
    from poa import methods

    with pytest.raises(PoaError, match=rf"{name}\.damping is 0\.1"):
        methods.method(name, damping="0.1")


@pytest.mark.parametrize("given", [0.0, -1.0, 1.0, float("nan")])
@pytest.mark.parametrize("name", ["exact_influence", "ekfac_cg"])
def test_tolerances_that_mean_nothing_are_refused_by_name(name: str, given: float) -> None:
    from poa import methods

    with pytest.raises(PoaError, match=rf"{name}\.tolerance is"):
        methods.method(name, tolerance=given)


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_kronecker_damping_has_no_rule_of_its_own(name: str) -> None:
    from poa import methods

    with pytest.raises(PoaError, match=rf"{name}\.damping is None"):
        methods.method(name, damping=None)
