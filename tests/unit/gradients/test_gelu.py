"""The quick GELU against torch's in double precision: values, slopes, and what lies far out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from poa.gradients.gelu import gelu


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def slope(of: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(of.sum(), by)[0]


def test_values_and_slopes() -> None:
    x = torch.linspace(-12, 12, 100_001).view(1, -1)
    exact, quick = x.double().requires_grad_(), x.clone().requires_grad_()
    expected, found = F.gelu(exact, approximate="tanh"), gelu(quick)
    assert type(found.grad_fn).__name__ == "_GeluBackward"
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(slope(found, quick).double(), slope(expected, exact), rtol=0, atol=1e-5)


def test_far_out_it_is_the_larger_of_x_and_zero() -> None:
    x = torch.tensor([1e30, -1e30, float("inf"), -float("inf"), float("nan"), 0.0], requires_grad=True)
    torch.testing.assert_close(
        gelu(x).detach(), torch.tensor([1e30, 0.0, float("inf"), 0.0, float("nan"), 0.0]), equal_nan=True
    )
    torch.testing.assert_close(slope(gelu(x), x), torch.tensor([1.0, 0.0, 1.0, 0.0, float("nan"), 0.5]), equal_nan=True)


def test_strided_activations_and_other_precisions() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).t()
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"))
    assert torch.equal(gelu(x.double()), F.gelu(x.double(), approximate="tanh"))
