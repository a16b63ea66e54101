"""Controls: an honest gradient method passes the kit, and every deliberate fault is found by the law it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from poa.conformance import Case, check, digits_linear, digits_mlp, judge, laws, text_bigram
from poa.errors import PoaError, Unsupported
from poa.indexes import Columns, load_columns, save_index
from poa.records import Corpus
from poa.scores import Scores


@dataclass(frozen=True)
class GradDot:
    """Dot product of autograd gradients at the last checkpoint, with a `fault` that some law must find."""

    citation: ClassVar[str] = "control"
    family: ClassVar[str] = "gradient"

    fault: str = ""

    def fit(self, run: Any) -> GradDotIndex:
        if self.fault == "mute refusal":
            raise Unsupported("")
        if self.fault == "global state":
            torch.set_default_dtype(torch.float64)
        if self.fault == "one index":
            return SHARED.setdefault(run.digest, self._fit(run))
        if self.fault == "trained model":
            run.source.states[-1]["0.weight"].add_(1e-3)
        if self.fault == "nameless cache":
            path = run.cache / "rows.npy"
            if not path.exists():
                np.save(path, self._fit(run).rows)
            return replace(self._fit(run), rows=np.load(path))
        return self._fit(run)

    def _fit(self, run: Any) -> GradDotIndex:
        model = run.model()
        rows = np.stack([-gradient(run.task, model, record, run.task.loss) for record in run.corpus])
        digests = [record.digest for record in run.corpus]
        if self.fault == "first come":
            rows *= np.asarray([digest not in digests[:i] for i, digest in enumerate(digests)])[:, None]
        if self.fault == "manifest order":
            rows *= 1 + np.arange(len(rows))[:, None]
        return GradDotIndex(Columns.of(run), self, rows, run.task, model)


SHARED: dict[str, Any] = {}


@dataclass(frozen=True)
class ClippedScores(Scores):
    """Scores that forget what hurt."""

    def by(self, group: str) -> Scores:
        return replace(Scores(np.maximum(self.values, 0), self.query_ids, self.train_ids, self.groups).by(group))


@dataclass(frozen=True, eq=False)
class GradDotIndex:
    """Gradients of the records and the model for those of queries."""

    columns: Columns
    method: GradDot
    rows: np.ndarray
    task: Any
    model: Any

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    def attribute(self, queries: Corpus) -> Scores:
        fault = self.method.fault
        if fault == "late refusal":
            raise Unsupported("too late")
        if fault == "crash" and queries.ids == ("stranger",):
            raise KeyError("x")
        values = [self._row(query) for query in queries]
        if fault == "sign":
            values = [-row for row in values]
        if fault == "noise":
            noise = np.random.default_rng()
            values = [row + 1e-12 * noise.normal(size=len(row)) for row in values]
        if fault == "batch" and values:
            values = [row - np.mean(values, axis=0) for row in values]
        if fault == "last bit" and len(values) > 1:
            values[0] = np.nextafter(values[0], np.inf)
        if fault == "query order":
            values = [row + 1e-6 * i for i, row in enumerate(values)]
        if fault == "nan" and values:
            values[0] = values[0] * np.nan
        scores = self.columns.scores(values, queries, self.method)
        return self._spoiled(scores)

    def _spoiled(self, scores: Scores) -> Scores:
        fault = self.method.fault
        if fault == "late nan":
            scores.values[:1] = np.nan
        if fault == "transposed":
            return Scores(scores.values.T, scores.train_ids, scores.query_ids, method=scores.method)
        if fault == "no groups":
            return replace(scores, groups={})
        if fault == "other name":
            return replace(scores, method="GradDot")
        if fault == "clipped":
            return ClippedScores(**{name: getattr(scores, name) for name in Scores.__dataclass_fields__})
        return scores

    def _row(self, query: Any) -> np.ndarray:
        return (self.rows * gradient(self.task, self.model, query, self.task.measurement)).sum(1)

    def save(self, folder: Path) -> None:
        if self.method.fault == "unchecked bytes":
            folder.mkdir(parents=True)
            np.save(folder / "rows.npy", self.rows)
            return
        rows = self.rows.astype(np.float32) if self.method.fault == "coarse" else self.rows
        meta = {"columns": self.columns.plain(), "method": asdict(self.method)}
        save_index(folder, "control", {"rows": rows}, meta)

    @staticmethod
    def load(folder: Path, run: Any) -> GradDotIndex:
        if (folder / "rows.npy").exists():
            rows = np.load(folder / "rows.npy")
            return GradDotIndex(Columns.of(run), GradDot("unchecked bytes"), rows, run.task, run.model())
        if run.digest != run.source.digest and GULLIBLE:
            return GradDot("any run").fit(run)
        columns, arrays, meta = load_columns(folder, "control", run)
        return GradDotIndex(columns, GradDot(**meta["method"]), arrays["rows"], run.task, run.model())


GULLIBLE: set[str] = set()


def gradient(task: Any, model: Any, record: Any, scalar: Any) -> np.ndarray:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    value = scalar(model, task.batch([record])).sum()
    return np.concatenate([slope.numpy().ravel() for slope in torch.autograd.grad(value, trained)])


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    SHARED.clear()
    GULLIBLE.clear()


def failing(method: Any, case: Case) -> set[str]:
    return {outcome.law for outcome in check(method, [case]).failures}


@pytest.mark.parametrize("make", [digits_linear, digits_mlp, text_bigram])
def test_the_honest_control_passes(make: Any) -> None:
    results = check(GradDot(), [make()])
    assert results.passed, results.table()
    checked = {outcome.law for outcome in results.outcomes if outcome.verdict == "pass"}
    assert {law.name for law in laws()} - checked <= {"unsupported", "sign"}


FAULTS = [
    ("sign", {"sign", "self-influence"}),
    ("noise", {"determinism"}),
    ("batch", {"query batching"}),
    ("last bit", {"query batching", "query permutation"}),
    ("query order", {"query batching", "query permutation"}),
    ("nan", {"shape"}),
    ("late nan", {"shape", "train permutation", "duplicates", "conservation"}),
    ("transposed", {"shape"}),
    ("no groups", {"shape"}),
    ("other name", {"shape"}),
    ("manifest order", {"train permutation", "duplicates"}),
    ("first come", {"duplicates"}),
    ("clipped", {"conservation"}),
    ("one index", {"protocol"}),
    ("global state", {"untouched"}),
    ("nameless cache", {"train permutation"}),
    ("mute refusal", {"unsupported"}),
    ("late refusal", {"shape"}),
    ("crash", {"foreign query"}),
    ("coarse", {"save and load"}),
    ("unchecked bytes", {"foreign run", "tampering"}),
]


@pytest.mark.parametrize(("fault", "broken"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_every_fault_is_found(fault: str, broken: set[str]) -> None:
    assert broken <= failing(GradDot(fault), digits_linear())


@pytest.mark.parametrize("fault", ["sign", "noise", "first come", "coarse", "crash", "global state"])
def test_a_fault_is_not_blamed_on_other_laws(fault: str) -> None:
    noisy = {"query batching", "query permutation", "save and load"} if fault == "noise" else set()
    assert failing(GradDot(fault), digits_linear()) == dict(FAULTS)[fault] | noisy


def test_an_index_that_takes_any_run_is_found() -> None:
    GULLIBLE.add("yes")
    assert failing(GradDot(), digits_linear()) == {"foreign run"}


def test_a_method_that_trains_the_users_model_is_found() -> None:
    from poa.factory.classifier import train_classifier

    case = digits_linear()
    spoilt = Case("own", train_classifier(case.run.corpus, steps=5, batch=48), case.queries)
    law = {law.name: law for law in laws()}["untouched"]
    verdict, detail = judge(law, GradDot("trained model"), spoilt)
    assert verdict == "fail"
    assert "run.model(" in detail


@dataclass
class Mutable:
    """A method whose hyper-parameters can change after fitting."""

    citation: ClassVar[str] = "control"
    family: ClassVar[str] = "gradient"

    def fit(self, run: Any) -> GradDotIndex:
        return GradDot().fit(run)


@dataclass(frozen=True)
class Secretive:
    """A method whose repr hides a hyper-parameter."""

    citation: ClassVar[str] = "control"
    family: ClassVar[str] = "gradient"

    damping: float = field(default=0.1, repr=False)

    def fit(self, run: Any) -> GradDotIndex:
        return GradDot().fit(run)


@dataclass(frozen=True)
class Undocumented:
    citation: ClassVar[str] = "control"
    family: ClassVar[str] = "gradient"

    def fit(self, run: Any) -> GradDotIndex:
        return GradDot().fit(run)


@dataclass(frozen=True)
class Unfamiliar:
    """A method of a family that does not exist."""

    citation: ClassVar[str] = "control"
    family: ClassVar[str] = "magic"

    def fit(self, run: Any) -> GradDotIndex:
        return GradDot().fit(run)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Mutable, "not frozen"), (Secretive, "damping"), (Undocumented, "no docstring"), (Unfamiliar, "magic")],
)
def test_a_class_that_is_no_method_is_found(kind: type, reason: str) -> None:
    law = laws()[0]
    verdict, detail = judge(law, kind(), digits_linear())
    assert law.name == "protocol"
    assert verdict == "fail"
    assert reason in detail


@dataclass(frozen=True)
class Privileged(GradDot):
    """A method that excuses itself."""

    exempt: ClassVar[dict[str, str]] = {"determinism": "it is hard"}


@dataclass(frozen=True)
class Excused(GradDot):
    """A method with a declared and open exemption."""

    exempt: ClassVar[dict[str, str]] = {"duplicates": "position matters"}


def test_only_open_laws_have_exemptions() -> None:
    assert failing(Privileged(), digits_linear()) == {law.name for law in laws()}
    outcome = {o.law: o for o in check(Excused("first come"), [digits_linear()]).outcomes}["duplicates"]
    assert (outcome.verdict, outcome.detail) == ("exempt", "position matters")


@dataclass(frozen=True)
class Nowhere(GradDot):
    """A method that supports nothing."""

    def fit(self, run: Any) -> GradDotIndex:
        raise Unsupported("nothing is supported")


def test_supporting_nothing_is_not_passing() -> None:
    results = check(Nowhere(), [digits_linear()])
    assert not results.failures
    assert not results.passed
    with pytest.raises(AssertionError, match="no law could be checked"):
        results.require()


def test_failures_are_listed() -> None:
    with pytest.raises(AssertionError, match=r"sign +fail +mean Spearman with leave-one-out truth is -0\."):
        check(GradDot("sign"), [digits_linear()]).require()


def test_every_law_states_itself() -> None:
    names = [law.name for law in laws()]
    assert len(set(names)) == len(names)
    for law in laws():
        assert law.statement.endswith(".")
        assert "\n" not in law.statement
        assert law.tolerance


def test_unknown_and_broken_methods_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from poa.conformance import subjects

    def found(group: str, name: str = "") -> Any:
        entries = [EntryPoint("torn", "poa_no_such_package:Method", group)]
        return [entry for entry in entries if entry.name == name]

    monkeypatch.setattr(subjects, "entry_points", found)
    with pytest.raises(PoaError, match=r"'torn' \(poa_no_such_package:Method\) cannot be made: ModuleNotFoundError"):
        subjects.subject("torn")
    monkeypatch.undo()
    with pytest.raises(PoaError, match="no method 'bm52'"):
        subjects.subject("bm52")
