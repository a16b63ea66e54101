"""Laws of form: what a method is, what it returns, what it leaves alone."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from poa.conformance.law import ConformanceError, NotApplicable, require
from poa.conformance.views import isolated
from poa.digests import plain_digest, sha256
from poa.errors import PoaError, Unsupported
from poa.records import Corpus, Record
from poa.scores import Scores

if TYPE_CHECKING:
    from torch import nn

    from poa.protocols import Attributor, TrainingRun

FAMILIES = ("baseline", "lexical", "semantic", "gradient", "span", "retraining")


def family(method: object) -> str:
    """The class variable `family`, or an empty string where a method has none."""
    return str(getattr(type(method), "family", ""))


def protocol(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A frozen, documented dataclass whose repr lists its hyper-parameters; `fit` returns a new index each time."""
    kind = type(method)
    require(is_dataclass(method), f"{kind.__name__} is not a dataclass")
    require(bool(kind.__dataclass_params__.frozen), f"{kind.__name__} is not frozen")  # type: ignore[attr-defined]
    # dataclass() writes "Name(field: type, ...)" where the author wrote nothing
    documented = bool(kind.__doc__) and not str(kind.__doc__).startswith(f"{kind.__name__}(")
    require(documented, f"{kind.__name__} has no docstring")
    require(family(method) in FAMILIES, f"{kind.__name__}.family is {family(method)!r}, must be one of {FAMILIES}")
    require(bool(str(getattr(kind, "citation", ""))), f"{kind.__name__}.citation is missing")
    _require_repr(method)
    with isolated(run) as view:
        first, second = method.fit(view), method.fit(view)
        require(first is not second, "fit returned the same object twice")
        for index in (first, second):
            require(
                index.run_digest == run.digest, f"index.run_digest is {index.run_digest!r}, the run's is {run.digest!r}"
            )


def _require_repr(method: Any) -> None:
    text = repr(method)
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ConformanceError(f"repr {text!r} is not an expression: {error.msg}") from error
    names = [field.name for field in fields(method) if field.init]
    require(isinstance(call, ast.Call) and not call.args, f"repr {text!r} is not Name(field=value, ...)")
    written = {str(word.arg): ast.unparse(word.value) for word in call.keywords} if isinstance(call, ast.Call) else {}
    require(list(written) == names, f"repr {text!r} does not list the fields {names}")
    for name in names:
        expected = ast.unparse(ast.parse(repr(getattr(method, name)), mode="eval").body)
        require(written[name] == expected, f"repr says {name}={written[name]}, the field is {expected}")
    twin = replace(method)
    require(
        twin == method and hash(twin) == hash(method) and repr(twin) == text, "a copy with equal fields is not equal"
    )


def untouched(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Fitting and attributing change neither the run nor its models nor torch's global state."""
    before = _state(run)
    with isolated(run) as view:
        method.fit(view).attribute(queries)
    after = _state(run)
    for name, value in before.items():
        require(after[name] == value, f"{name} changed from {value!r} to {after[name]!r}")


def _state(run: TrainingRun) -> dict[str, object]:
    import torch

    state: dict[str, object] = {
        "run.digest": run.digest,
        "run.corpus": run.corpus.digest,
        "run.groups": plain_digest({name: list(labels) for name, labels in run.groups.items()}),
        "run.steps": run.steps.digest,
        "run.checkpoints": run.checkpoints,
        "run.base()": _weights(run.base()),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_num_threads()": torch.get_num_threads(),
    }
    return state | {f"run.model({c})": _weights(run.model(c)) for c in range(len(run.checkpoints))}


def _weights(model: nn.Module) -> str:
    import torch

    parts: list[object] = [["training", model.training]]
    for name, value in model.state_dict().items():
        # bytes of any dtype, bfloat16 included, which numpy does not know
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts.append([name, str(value.dtype), list(value.shape), sha256(flat.tobytes())])
    parts += [[name, parameter.requires_grad] for name, parameter in model.named_parameters()]
    return plain_digest(parts)


def shape(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """Scores are finite, [query, train], and carry ids, groups, unit, method and run."""
    with isolated(run) as view:
        index = method.fit(view)
        answer = cast(object, index.attribute(queries))
        none = index.attribute(queries[:0])
    if not isinstance(answer, Scores):
        raise ConformanceError(f"attribute returned {type(answer).__name__}, must be Scores")
    scores = answer
    expected = (len(queries), len(run.corpus))
    require(scores.values.shape == expected, f"shape {scores.values.shape}, must be (query, train) = {expected}")
    require(
        none.values.shape == (0, expected[1]), f"no queries give shape {none.values.shape}, must be {(0, expected[1])}"
    )
    require(np.issubdtype(scores.values.dtype, np.floating), f"values are {scores.values.dtype}, must be floating")
    require(bool(np.isfinite(scores.values).all()), "a score is not finite")
    if scores.stderr is not None:
        require(bool((scores.stderr >= 0).all()), "a standard error is negative or NaN")
    require(scores.query_ids == queries.ids, "query_ids are not the ids of the queries, in order")
    require(scores.train_ids == run.corpus.ids, "train_ids are not the ids of the manifest, in order")
    require(dict(scores.groups) == dict(run.groups), "groups are not those of the run")
    require(scores.unit in ("nats", "uncalibrated"), f"unit is {scores.unit!r}")
    require(scores.method == repr(method), f"scores.method is {scores.method!r}, must be repr(method) {method!r}")
    require(
        scores.meta.get("run") == run.digest, f"meta['run'] is {scores.meta.get('run')!r}, must be the run's digest"
    )


def unsupported(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A task that a method cannot serve is refused by `fit` with `Unsupported` and one line that says why."""
    with isolated(run) as view:
        try:
            method.fit(view)
        except Unsupported as error:
            reason = str(error)
        else:
            raise NotApplicable("the task is supported")
        require(
            bool(reason.strip()) and "\n" not in reason, f"Unsupported must give its reason in one line, not {reason!r}"
        )


def foreign_query(method: Attributor, run: TrainingRun, queries: Corpus) -> None:
    """A query of the wrong kind gets finite scores or a `PoaError` of one line, never another exception."""
    features = bool(run.corpus[0].features)
    stranger = Record("stranger", text="a text") if features else Record("stranger", features=(1.0, 2.0), label=0)
    with isolated(run) as view:
        index = method.fit(view)
        try:
            scores = index.attribute(Corpus([stranger]))
        except PoaError as error:
            require(
                bool(str(error).strip()) and "\n" not in str(error), f"the error must be one line, not {str(error)!r}"
            )
        else:
            require(scores.values.shape == (1, len(run.corpus)), f"shape {scores.values.shape} for one query")
