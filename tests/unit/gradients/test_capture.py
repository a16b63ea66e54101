"""Per-example gradients from captured inputs and outputs equal autograd through the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from tests.language import DoubleRun, autograd_rows
from torch import Tensor, nn

from poa.conformance import digits_mlp
from poa.errors import PoaError, Unsupported
from poa.factory.run import LoRARun
from poa.gradients.capture import example_gradients, layout
from poa.gradients.tracking import trainable
from poa.records import Corpus, Record


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


@pytest.mark.parametrize("side", ["train", "query"])
@pytest.mark.parametrize("checkpoint", [0, 1])
def test_equals_autograd_in_float64(double: DoubleRun, queries: Corpus, side: str, checkpoint: int) -> None:
    model = double.model(checkpoint)
    found = np.concatenate([example_gradients(double.task, model, [r], side).numpy() for r in queries])
    assert found.dtype == np.float64
    assert gap(found, autograd_rows(double, queries, side, checkpoint)) < 1e-10


@pytest.mark.parametrize("side", ["train", "query"])
def test_equals_autograd_in_float32(run: LoRARun, double: DoubleRun, queries: Corpus, side: str) -> None:
    found = np.concatenate([example_gradients(run.task, run.model(), [r], side).numpy() for r in queries])
    assert found.dtype == np.float32
    assert gap(found, autograd_rows(run, queries, side)) < 1e-5
    assert gap(found, autograd_rows(double, queries, side)) < 1e-4


def test_padding_and_neighbours_do_not_matter(double: DoubleRun, queries: Corpus) -> None:
    lengths = {len(double.task.tokens(record)) for record in queries}
    assert len(lengths) > 3
    together = example_gradients(double.task, double.model(), list(queries), "train").numpy()
    # Not 1e-10: transformers computes norms and the softmax in float32 whatever the dtype of the model.
    assert gap(together, autograd_rows(double, queries, "train")) < 1e-6


def test_training_and_measurement_have_one_sign(double: DoubleRun, queries: Corpus) -> None:
    model = double.model()
    train, query = (example_gradients(double.task, model, [queries[0]], side)[0] for side in ("train", "query"))
    torch.testing.assert_close(train, query, rtol=1e-12, atol=1e-12)


def test_biases_equal_autograd() -> None:
    case = digits_mlp()
    found = example_gradients(case.run.task, case.run.model(), list(case.queries), "query").numpy()
    model = case.run.model()
    for row, record in zip(found, case.queries, strict=True):
        case.run.task.measurement(model, case.run.task.batch([record])).sum().backward()
        linear = [layer for layer in model if isinstance(layer, nn.Linear)]
        grads = [torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1).flatten() for layer in linear]
        np.testing.assert_allclose(row, torch.cat(grads).numpy(), rtol=1e-10, atol=1e-13)
        model.zero_grad()


class Twice(nn.Module):
    """One layer used at two places, its output changed in place as ReLU(inplace=True) does."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5, dtype=torch.float64)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.act(self.layer(x))).pow(2).sum(-1)


class Squares:
    """A task whose loss is the output of the model."""

    def batch(self, records: Sequence[Record], whole: bool = True) -> Mapping[str, Tensor]:
        return {"x": torch.tensor([record.features for record in records], dtype=torch.float64)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return model(batch["x"])

    measurement = loss

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize("inplace", [False, True])
def test_a_reused_layer_sums_its_uses(inplace: bool) -> None:
    torch.manual_seed(0)
    model = Twice(inplace).eval()
    records = [
        Record(f"r{i}", features=tuple(row)) for i, row in enumerate(np.random.default_rng(0).normal(size=(3, 5)))
    ]
    found = example_gradients(Squares(), model, records, "query")  # type: ignore[arg-type]
    for row, record in zip(found, records, strict=True):
        model.zero_grad()
        model(torch.tensor([record.features], dtype=torch.float64)).sum().backward()
        expected = torch.cat([model.layer.weight.grad, model.layer.bias.grad[:, None]], 1).flatten()
        torch.testing.assert_close(row, expected, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_captured_is_refused(run: LoRARun, queries: Corpus) -> None:
    with pytest.raises(Unsupported, match="layer r is a ReLU without parameters"):
        layout({"r": nn.ReLU()})
    with pytest.raises(Unsupported, match="no trainable layer"):
        layout({})
    with pytest.raises(Unsupported, match="max_norm or scale_grad_by_freq"):
        layout({"e": nn.Embedding(3, 2, scale_grad_by_freq=True)})
    with pytest.raises(Unsupported, match="pads by 'circular'"):
        layout({"c": nn.Conv2d(1, 1, 2, padding_mode="circular")})
    with pytest.raises(PoaError, match="side is 'test'"):
        example_gradients(run.task, run.model(), [queries[0]], "test")


class Two(Squares):
    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        return {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(5, 5), nn.Dropout(0.1)], "layer 1 is an active dropout"),
        ([nn.Linear(5, 5), nn.BatchNorm1d(5)], "layer 1 is a BatchNorm in train mode"),
    ],
)
def test_examples_that_depend_on_luck_or_neighbours_are_refused(layers: list[nn.Module], message: str) -> None:
    model = nn.Sequential(*layers, nn.Flatten(0)).double()
    with pytest.raises(Unsupported, match=message):
        example_gradients(Two(), model.train(), [Record("r", features=(0.0,) * 5)], "query")  # type: ignore[arg-type]


def test_a_reduced_or_coarse_loss_is_refused() -> None:
    records = [Record(f"r{i}", features=(float(i),) * 5) for i in range(2)]
    model = Twice(inplace=False).eval()

    class Mean(Squares):
        def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            return model(batch["x"]).mean()

    class Half(Squares):
        def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            return model(batch["x"]).bfloat16()

    with pytest.raises(Unsupported, match=r"loss has shape \(\) for 2 records"):
        example_gradients(Mean(), model, records, "train")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="loss is bfloat16"):
        example_gradients(Half(), model, records, "train")  # type: ignore[arg-type]


def test_rows_that_belong_to_all_examples_are_refused() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Embedding(1, 5, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.place(torch.zeros(1, dtype=torch.long))).sum(-1)

    records = [Record(f"r{i}", features=(float(i),) * 5) for i in range(2)]
    with pytest.raises(Unsupported, match="layer place sees 1 rows for 2 records"):
        example_gradients(Two(), Shared().eval(), records, "query")  # type: ignore[arg-type]
    assert example_gradients(Two(), Shared().eval(), records[:1], "query").shape == (1, 5)  # type: ignore[arg-type]


class ByHand(nn.Module):
    """Words are looked up in a table and told by the same table, which the second time is used by hand."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5, dtype=torch.float64)
        self.head = nn.Linear(5, 3, bias=False, dtype=torch.float64)
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.inner(x))
        again = x @ self.head.weight.T if self.by_hand else self.head(x)
        return (self.head(x) + again).pow(2).sum(-1)


class Unheard(nn.Module):
    """A layer that holds two parameters and is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5, dtype=torch.float64)
        self.table = nn.ParameterList([torch.ones(5, dtype=torch.float64)])
        self.unused = nn.Linear(5, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) * self.table[0]).pow(2).sum(-1)


def test_a_weight_that_is_used_past_its_layer_is_refused() -> None:
    records = [Record(f"r{i}", features=(float(i),) * 5) for i in range(2)]
    example_gradients(Two(), ByHand(False).eval(), records, "query")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="a parameter of layer head 2 times, but the layer is called 1 times"):
        example_gradients(Two(), ByHand(True).eval(), records, "query")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="a parameter of layer table 1 times, but the layer is called 0 times"):
        example_gradients(Two(), Unheard().eval(), records, "query")  # type: ignore[arg-type]


def test_a_layer_that_takes_no_part_has_no_gradient() -> None:
    model = Unheard().eval()
    model.table.requires_grad_(False)

    class Trained(Two):
        def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
            return trainable(model)

    rows = example_gradients(Trained(), model, [Record("r", features=(1.0,) * 5)], "query")  # type: ignore[arg-type]
    assert rows.shape == (1, 60)
    assert rows[0, :30].abs().sum() > 0
    assert rows[0, 30:].abs().sum() == 0


def test_biases_alone_can_be_what_was_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))

    class Trained(Two):
        def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
            return trainable(model)

    records = [Record(f"r{i}", features=(float(i), 1.0, -1.0, 0.5, 2.0)) for i in range(3)]
    found = example_gradients(Trained(), model, records, "query")  # type: ignore[arg-type]
    for row, record in zip(found, records, strict=True):
        out = model(torch.tensor([record.features], dtype=torch.float64)).sum()
        grads = torch.autograd.grad(out, [p for p in model.parameters() if p.requires_grad])
        torch.testing.assert_close(row, torch.cat([g.flatten() for g in grads]), rtol=1e-10, atol=1e-12)


class Shifted(nn.Embedding):
    """A table that is read two rows further down, as OPT's positions are."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids + 2)


def test_an_embedding_that_reads_otherwise_is_differentiated_as_it_is() -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = Shifted(9, 4, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x.long()).pow(2).sum((1, 2))

    model = Lookup().eval()
    (row,) = example_gradients(Two(), model, [Record("r", features=(0.0, 1.0, 1.0))], "query")  # type: ignore[arg-type]
    model(torch.tensor([[0.0, 1.0, 1.0]])).sum().backward()
    torch.testing.assert_close(row, model.table.weight.grad.flatten())  # type: ignore[union-attr]


def test_hooks_are_gone_afterwards(run: LoRARun, queries: Corpus) -> None:
    model = run.model()
    example_gradients(run.task, model, [queries[0]], "query")
    assert not any(module._forward_hooks for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
