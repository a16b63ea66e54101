"""A training that happened elsewhere: read as it was, refused by name where parts do not belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from poa.conformance import check, digits_mlp
from poa.conformance.cases import Case
from poa.errors import Corrupt, Mismatch, PoaError, Unsupported
from poa.factory.brought import TorchRun
from poa.factory.digits import digits
from poa.factory.supervised import Supervised
from poa.methods import DataInf, GradCos, GradDot, KNNShapley, LoGra, RepSim, TracInCP, method
from poa.protocols import Moments, Optimizer
from poa.records import Corpus, Record
from poa.steplog import StepLog

CORPUS = digits(30, contributors=3, classes=(0, 1, 2))
TRAIN, QUERIES = CORPUS[:24], CORPUS[24:]
TASK = Supervised(64, 3, "float64")


class ConvNet(nn.Module):
    """Flat pixels become 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x.view(-1, 1, 8, 8)))).flatten(1))


def network() -> ConvNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvNet().double()


def trained(steps: int = 6, batch: int = 7) -> tuple[ConvNet, dict[int, dict[str, Tensor]], StepLog]:
    """A loop as anybody writes it: plain SGD on the mean of the batch, a checkpoint every second step."""
    model, rng = network(), np.random.default_rng(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    kept: dict[int, dict[str, Tensor]] = {}
    rows = np.stack([rng.permutation(len(TRAIN))[:batch] for _ in range(steps)])
    for step, row in enumerate(rows):
        x = torch.tensor([TRAIN[int(i)].features for i in row], dtype=torch.float64)
        y = torch.tensor([TRAIN[int(i)].label for i in row])
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        if (step + 1) % 2 == 0:
            kept[step + 1] = {name: value.clone() for name, value in model.state_dict().items()}
    log = StepLog(rows, np.full(steps, 0.2), np.full(steps, float(batch)), np.zeros(steps))
    return model, kept, log


@pytest.fixture(scope="module")
def parts() -> tuple[ConvNet, dict[int, dict[str, Tensor]], StepLog]:
    return trained()


@pytest.fixture
def bring(parts: Any, tmp_path: Path) -> Callable[..., TorchRun]:
    model, kept, log = parts

    def of(**changes: Any) -> TorchRun:
        told = {"checkpoints": kept, "corpus": TRAIN, "task": TASK, "steps": log, "cache": tmp_path} | changes
        return TorchRun.of(told.pop("model", model), **told)

    return of


def slopes(model: nn.Module, record: Record, side: str) -> Tensor:
    batch = TASK.batch([record])
    value = TASK.measurement(model, batch) if side == "query" else -TASK.loss(model, batch)
    return torch.cat([g.flatten() for g in torch.autograd.grad(value.sum(), list(model.parameters()))])


def test_tracin_is_the_sum_over_checkpoints(bring: Callable[..., TorchRun]) -> None:
    run = bring()
    found = TracInCP().fit(run).attribute(QUERIES).values
    expected = np.zeros_like(found)
    for position, step in enumerate(run.checkpoints):
        model = run.model(position)
        for i, record in enumerate(TRAIN):
            weight = sum(0.2 / 7 for t in range(step - 2, step) for j in run.steps.records[t] if j == i)
            rows = slopes(model, record, "train")
            for q, query in enumerate(QUERIES):
                expected[q, i] += weight * float(slopes(model, query, "query") @ rows)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_convolutional_network_keeps_the_laws(bring: Callable[..., TorchRun]) -> None:
    run = bring(initial=network().state_dict())
    results = check(GradDot(), [Case("digits-conv", run, QUERIES[:3])])
    results.require()


@pytest.mark.parametrize("method", [GradDot(), GradCos(), DataInf(), LoGra(), RepSim(), KNNShapley()])
def test_methods_run_without_a_step_log(bring: Callable[..., TorchRun], method: Any) -> None:
    run = bring(steps=None)
    assert run.checkpoints == (2, 4, 6)
    values = method.fit(run).attribute(QUERIES[:2]).values
    assert values.shape == (2, len(TRAIN))
    assert np.isfinite(values).all()
    assert np.ptp(values) > 0


def test_what_was_not_brought_is_named(bring: Callable[..., TorchRun]) -> None:
    run = bring(steps=None)
    with pytest.raises(Unsupported, match=r"without a step log.*steps=poa.StepLog"):
        TracInCP().fit(run)
    with pytest.raises(Unsupported, match="without its initial weights"):
        run.base()
    with pytest.raises(Unsupported, match="by which optimizer"):
        run.moments()
    with pytest.raises(Unsupported, match="without the optimizer's state"):
        bring(optimizer=Optimizer("adamw")).moments()
    assert bring(optimizer=Optimizer("sgd")).moments() is None


def test_what_does_not_fit_is_refused_in_words(bring: Callable[..., TorchRun], parts: Any) -> None:
    model, kept, _ = parts
    with pytest.raises(PoaError, match="model must be a torch module or a function that makes one, got int"):
        bring(model=3)
    with pytest.raises(PoaError, match=r"corpus must be a poa\.Corpus, got list"):
        bring(corpus=list(TRAIN))
    with pytest.raises(Mismatch, match="the model's weights are float64 and the task's features float32"):
        GradDot().fit(TorchRun.of(model, kept, TRAIN, Supervised(64, 3), cache=bring().cache / "single"))
    narrow = Corpus([replace(record, features=record.features[:60]) for record in TRAIN])
    task = Supervised(60, 3, "float64")
    with pytest.raises(Mismatch, match=r"the model does not take features \(1, 60\)"):
        GradDot().fit(TorchRun.of(model, kept, narrow, task, cache=bring().cache / "narrow"))


@pytest.mark.parametrize("name", ["graddot", "random", "repsim", "exact_influence"])
def test_queries_that_are_no_corpus_are_refused(bring: Callable[..., TorchRun], name: str) -> None:
    index = method(name).fit(bring())
    with pytest.raises(PoaError, match=r"must be a poa\.Corpus, got list"):
        index.attribute(list(QUERIES))  # pyright: ignore[reportArgumentType]


def flat_run(folder: Path) -> TorchRun:
    """A model that gives all classes the same logit, whatever its weights are: no record has a gradient."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) * 0.0

    model = Flat().eval()
    return TorchRun.of(model, [model.state_dict()], TRAIN, TASK, cache=folder)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("influence", "datainf", "kfac", "ekfac", "logra", "trak", "relatif", "trackstar")),
        *((name, {}) for name in ("exact_influence", "lorif", "grass")),
        ("influence", {"blocks": "layers"}),
    ],
)
def test_curvature_of_nothing_is_refused(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="all training gradients are zero"):
        method(name, **options).fit(flat_run(tmp_path)).attribute(QUERIES)


def test_the_same_weights_give_the_same_bytes_as_the_trainer_of_the_house(tmp_path: Path) -> None:
    case = digits_mlp()
    own: Any = case.run
    task = Supervised(64, 4, "float64")
    kept = dict(zip(own.checkpoints, own.states, strict=True))
    run = TorchRun.of(own.model, kept, own.corpus, task, steps=own.steps, initial=own.initial, cache=tmp_path)
    for asked in (GradDot(), TracInCP(), RepSim(), KNNShapley()):
        ours, theirs = (asked.fit(r).attribute(case.queries) for r in (own, run))
        assert ours.values.tobytes() == theirs.values.tobytes()
    assert {name: tuple(labels) for name, labels in own.groups.items()} == run.groups


def test_files_and_lists_are_checkpoints_too(bring: Callable[..., TorchRun], parts: Any, tmp_path: Path) -> None:
    _, kept, log = parts
    paths = {step: tmp_path / f"{step}.safetensors" for step in kept}
    for step, path in paths.items():
        save_file(kept[step], path)
    assert bring(checkpoints=paths).digest == bring().digest
    assert bring(checkpoints=list(paths.values()), steps=None).checkpoints == (1, 2, 3)
    assert bring(checkpoints=[paths[6]]).checkpoints == (log.steps,)
    with pytest.raises(PoaError, match="each checkpoint needs its place"):
        bring(checkpoints=list(paths.values()))
    with pytest.raises(PoaError, match="pickled weights are never read"):
        bring(checkpoints=[tmp_path / "a.pt"], steps=None)
    with pytest.raises(PoaError, match="does not exist"):
        bring(checkpoints=[tmp_path / "a.safetensors"], steps=None)
    paths[2].write_bytes(b"no tensors")
    with pytest.raises(Corrupt, match="is not a safetensors file"):
        bring(checkpoints=[paths[2]], steps=None)


def test_a_function_that_makes_the_model_will_do(bring: Callable[..., TorchRun]) -> None:
    assert bring(model=network).digest == bring().digest


def test_nothing_that_happens_to_the_users_model_matters_later(bring: Callable[..., TorchRun], parts: Any) -> None:
    _, kept, _ = parts
    model = network().train()
    live = {step: {name: value.clone() for name, value in state.items()} for step, state in kept.items()}
    run = bring(model=model, checkpoints=live)
    before = run.model(0).head.weight.clone()
    assert model.training
    with torch.no_grad():
        model.head.weight.zero_()
        live[2]["head.weight"].zero_()
        run.model(0).head.weight.zero_()
    assert torch.equal(run.model(0).head.weight, before)
    assert not run.model().training


def changed(state: Mapping[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    told = {name.replace("_", "."): value for name, value in changes.items()}
    return {name: value for name, value in (dict(state) | told).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head_bias": None}, "checkpoint 6 does not fit the model: head.bias is missing"),
        ({"tail_weight": torch.zeros(1)}, "tail.weight is unexpected"),
        ({"head_bias": torch.zeros(4, dtype=torch.float64)}, r"head.bias has shape \(4,\), the model's has \(3,\)"),
        ({"head_bias": torch.zeros(3)}, "head.bias is float32, the model's is float64"),
        ({"head_bias": torch.full((3,), torch.nan, dtype=torch.float64)}, "head.bias is not finite"),
        ({"head_bias": None, "more_bias": torch.zeros(1)}, "head.bias is missing; more.bias is unexpected"),
    ],
)
def test_weights_of_another_architecture_are_named(
    bring: Callable[..., TorchRun], parts: Any, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Mismatch, match=says):
        bring(checkpoints={6: changed(parts[1][6], **changes)})
    with pytest.raises(Mismatch, match=says.replace("checkpoint 6", "initial")):
        bring(initial=changed(parts[1][6], **changes))


def test_frozen_parameters_may_stay_with_the_model(bring: Callable[..., TorchRun], parts: Any) -> None:
    model = network()
    model.conv.requires_grad_(False)
    tuned = {6: {name: value for name, value in parts[1][6].items() if not name.startswith("conv")}}
    run = bring(model=model, checkpoints=tuned)
    assert torch.equal(run.model().conv.weight, model.conv.weight)
    assert list(run.task.tracked(run.model())) == ["norm", "head"]
    other = network()
    other.conv.requires_grad_(False)
    with torch.no_grad():
        other.conv.bias.add_(1)
    assert bring(model=other, checkpoints=tuned).digest != run.digest


def test_one_name_of_a_tied_parameter_is_enough(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    corpus = Corpus([Record("r", features=(1.0, 2.0, 3.0), label=0)])
    state = {"a.weight": torch.eye(3) * 2}
    run = TorchRun.of(Tied, [state], corpus, Supervised(3, 3), cache=tmp_path)
    model: Any = run.model()
    assert model.b.weight is model.a.weight
    assert torch.equal(model.b.weight, state["a.weight"])
    assert GradDot().fit(run).attribute(corpus).values.shape == (1, 1)


def test_checkpoints_are_distinct_and_in_order(bring: Callable[..., TorchRun], parts: Any) -> None:
    model, kept, _ = parts
    with pytest.raises(PoaError, match=r"checkpoints 2 and 4 hold the same weights.*keep clones"):
        bring(checkpoints={2: model.state_dict(), 4: model.state_dict()})
    with pytest.raises(PoaError, match=r"at steps \[4, 2\]; step counts must ascend"):
        bring(checkpoints={4: kept[4], 2: kept[2]})
    with pytest.raises(PoaError, match="at least one checkpoint"):
        bring(checkpoints=[])
    with pytest.raises(PoaError, match="is one state dict; give a list"):
        bring(checkpoints=kept[2])
    with pytest.raises(PoaError, match="'weights' in a state dict is no tensor"):
        bring(checkpoints=[{"weights": kept[2]}])


def test_a_log_of_other_records_is_refused(bring: Callable[..., TorchRun], parts: Any) -> None:
    log = parts[2]
    with pytest.raises(PoaError, match="records outside 0 to 9"):
        bring(corpus=TRAIN[:10])
    with pytest.raises(PoaError, match="has 4 steps, the last checkpoint was taken after 6"):
        bring(steps=StepLog(log.records[:4], log.rate[:4], log.denominator[:4], log.loss[:4]))
    with pytest.raises(PoaError, match="one rate and one denominator per step"):
        bring(steps=StepLog(log.records, log.rate[:4], log.denominator, log.loss))
    with pytest.raises(PoaError, match="a denominator that is not above 0"):
        bring(steps=StepLog(log.records, log.rate, log.denominator * 0, log.loss))
    with pytest.raises(PoaError, match="group 'owner' has 2 labels for 24 records"):
        bring(groups={"owner": ("a", "b")})
    with pytest.raises(PoaError, match="corpus is empty"):
        bring(corpus=Corpus([]))


def test_the_digest_covers_all_that_matters(bring: Callable[..., TorchRun], parts: Any) -> None:
    _, kept, log = parts
    pair = {name: (value, value**2) for name, value in kept[6].items()}
    moments = [Moments(pair, step, (0.9, 0.99), 1e-8) for step in kept]
    runs = [
        bring(),
        bring(checkpoints={1: kept[2], 4: kept[4], 6: kept[6]}),
        bring(steps=None),
        bring(steps=StepLog(log.records, log.rate * 2, log.denominator, log.loss)),
        bring(initial=network().state_dict()),
        bring(task=replace(TASK, layers=("head",))),
        bring(corpus=Corpus([*TRAIN[:-1], replace(TRAIN[-1], contributor="somebody")])),
        bring(optimizer=Optimizer("adamw")),
        bring(optimizer=Optimizer("adamw"), moments=moments),
        bring(groups={"owner": TRAIN.contributors}),
    ]
    assert len({run.digest for run in runs}) == len(runs)
    assert runs[8].moments(1) is moments[1]
    with pytest.raises(PoaError, match="there are 1 moments for 3 checkpoints"):
        bring(moments=moments[:1])


def test_layers_choose_what_is_read() -> None:
    model = network()
    assert list(TASK.tracked(model)) == ["conv", "norm", "head"]
    assert list(replace(TASK, layers=("head", "conv")).tracked(model)) == ["conv", "head"]
    with pytest.raises(PoaError, match="no module 'haed'; did you mean 'head'"):
        replace(TASK, layers=("haed",)).tracked(model)


def test_the_task_refuses_what_does_not_fit() -> None:
    model = network()
    with pytest.raises(PoaError, match="record 'r' has 2 features; this task takes 64"):
        TASK.batch([Record("r", features=(1.0, 2.0), label=0)])
    with pytest.raises(PoaError, match="record 'r' has label -1"):
        TASK.batch([Record("r", features=(0.0,) * 64)])
    with pytest.raises(Mismatch, match=r"gives shape \(1, 3\) for 1 records, the task wants logits \(1, 4\)"):
        replace(TASK, classes=4).loss(model, TASK.batch(QUERIES[:1]))
    with pytest.raises(Unsupported, match="this model has none"):
        TASK.hidden(nn.Identity(), TASK.batch(QUERIES[:1]))
    with pytest.raises(Unsupported, match="not a token sequence"):
        TASK.tokens(QUERIES[0])
    hidden = TASK.hidden(model, TASK.batch(QUERIES))
    torch.testing.assert_close(model.head(hidden), model(TASK.batch(QUERIES)["x"]))
