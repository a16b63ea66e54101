"""What is known by parameter name comes into the columns of gradient rows, for every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.unit.gradients import architectures as arch
from tests.unit.gradients.test_certificates import TEXT_LOSSES, Fixed, made, plain

from poa.errors import Mismatch
from poa.gradients.capture import capturing
from poa.gradients.moments import moment_rows, row_of
from poa.protocols import Moments

CASES = [("plain", name) for name in arch.PLAIN] + [("images", name) for name in arch.IMAGES]
CASES += [("text", name) for name in arch.TEXTS]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_gradients_by_name_are_the_sum_of_captured_rows(kind: str, name: str) -> None:
    """Adam's moments are kept like autograd's gradients: whatever lands in the wrong column would differ here."""
    if kind == "text":
        task, model = Fixed(arch.text_batch("right"), TEXT_LOSSES["sum"]), made(arch.TEXTS[name], torch.float64)
    else:
        task, model = plain(kind, name, "squares", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        rows = capture.factors(arch.RECORDS, "train").rows()
        blocks = capture.blocks
    named = {key: p for key, p in model.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(task.losses(model, task.given).sum(), list(named.values()), materialize_grads=True)
    shuffled = dict(sorted(zip(named, slopes, strict=True), reverse=True))
    found = row_of(blocks, task.tracked(model), shuffled)
    torch.testing.assert_close(found, -rows.sum(0), rtol=1e-9, atol=1e-9)


def test_moments_and_their_order() -> None:
    task, model = plain("plain", "mlp", "squares", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        blocks = capture.blocks
    state = {name: (p.detach() + 1, p.detach() ** 2) for name, p in model.named_parameters()}
    modules = task.tracked(model)
    first, second = moment_rows(blocks, modules, Moments(state, 3, (0.9, 0.99), 1e-8))
    again = moment_rows(blocks, modules, Moments(dict(reversed(state.items())), 3, (0.9, 0.99), 1e-8))
    np.testing.assert_array_equal((first - 1) ** 2, second)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_a_missing_or_misshapen_value_is_named() -> None:
    task, model = plain("plain", "mlp", "squares", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        blocks = capture.blocks
    values = {name: p.detach() for name, p in model.named_parameters()}
    with pytest.raises(Mismatch, match=r"parameter 2\.bias"):
        row_of(blocks, task.tracked(model), {k: v for k, v in values.items() if k != "2.bias"})
    with pytest.raises(Mismatch, match=r"0\.weight has shape \(8, 6\), its value \(6, 8\)"):
        row_of(blocks, task.tracked(model), values | {"0.weight": values["0.weight"].T})
