"""Muon in float32 against torch's own (bfloat16) and against the matrix that it approximates."""

import pytest
import torch

from poa.factory.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_singular_vectors_stay_and_singular_values_come_close_to_one(shape: tuple[int, int]) -> None:
    given = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(given)
    u, _, vt = torch.linalg.svd(given, full_matrices=False)
    core = u.transpose(1, 2) @ found @ vt.transpose(1, 2)
    singular = core.diagonal(dim1=1, dim2=2)
    assert float((core - torch.diag_embed(singular)).abs().max()) < 1e-4
    assert float(singular.min()) > 0.3
    assert float(singular.max()) < 1.25


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_three_steps_agree_with_torch_within_its_precision(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    first, second = Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        first.step()
        second.step()
    moved, expected = ours.detach() - start, theirs.detach() - start
    assert float((moved - expected).norm() / expected.norm()) < 0.02  # bfloat16 keeps 8 bits


def test_equal_shapes_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(2)
    gradients = [torch.randn(8, 12, generator=generator) for _ in range(2)]
    together = [torch.nn.Parameter(torch.zeros(8, 12)) for _ in gradients]
    alone = [torch.nn.Parameter(torch.zeros(8, 12)) for _ in gradients]
    optimizers = [Muon(together, lr=1.0), *(Muon([parameter], lr=1.0) for parameter in alone)]
    for group in (together, alone):
        for parameter, gradient in zip(group, gradients, strict=True):
            parameter.grad = gradient.clone()
    for optimizer in optimizers:
        optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_only_matrices() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=1.0)
