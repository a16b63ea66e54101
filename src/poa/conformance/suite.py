"""The list of laws, and `check`, which holds a method against all of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from poa.conformance import contract, invariance, stored, truth
from poa.conformance.cases import Case, digits_linear, digits_mlp, text_bigram
from poa.conformance.law import ConformanceError, Law, NotApplicable
from poa.errors import Unsupported

if TYPE_CHECKING:
    from poa.protocols import Attributor

Verdict: TypeAlias = Literal["pass", "fail", "exempt", "unsupported", "not applicable"]

_ROUNDING = "1e-9 of the row's largest (float64 models), else 1e-5"

_LAWS = (
    Law("protocol", str(contract.protocol.__doc__), "exact", contract.protocol),
    Law("untouched", str(contract.untouched.__doc__), "exact bytes", contract.untouched),
    Law("shape", str(contract.shape.__doc__), "exact", contract.shape),
    Law("unsupported", str(contract.unsupported.__doc__), "exact", contract.unsupported),
    Law("foreign query", str(contract.foreign_query.__doc__), "exact", contract.foreign_query),
    Law("determinism", str(invariance.determinism.__doc__), "exact bytes", invariance.determinism),
    Law("query batching", str(invariance.query_batching.__doc__), "exact bytes", invariance.query_batching, True),
    Law(
        "query permutation",
        str(invariance.query_permutation.__doc__),
        "exact bytes",
        invariance.query_permutation,
        True,
    ),
    Law("train permutation", str(invariance.train_permutation.__doc__), _ROUNDING, invariance.train_permutation, True),
    Law("duplicates", str(invariance.duplicates.__doc__), _ROUNDING, invariance.duplicates, True),
    Law("conservation", str(invariance.conservation.__doc__), "1e-9 of the row's total", invariance.conservation),
    Law("save and load", str(stored.save_load.__doc__), "exact bytes", stored.save_load),
    Law("foreign run", str(stored.foreign_run.__doc__), "always", stored.foreign_run),
    Law("tampering", str(stored.tampering.__doc__), "always", stored.tampering),
    Law("sign", str(truth.sign.__doc__), f"mean Spearman > {truth.LEAST_CORRELATION}", truth.sign, True),
    Law("self-influence", str(truth.self_influence.__doc__), _ROUNDING, truth.self_influence, True),
)


@dataclass(frozen=True)
class Outcome:
    """One law, one method, one run."""

    method: str
    run: str
    law: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Results:
    """All outcomes of a check, in the order of runs and laws."""

    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.verdict == "fail")

    @property
    def passed(self) -> bool:
        """No law failed, and at least one run was supported."""
        held = any(outcome.verdict == "pass" and outcome.law != "unsupported" for outcome in self.outcomes)
        return held and not self.failures

    def table(self) -> str:
        """Plain text, one line per outcome."""
        rows = [("method", "run", "law", "verdict", "detail")]
        rows += [(o.method, o.run, o.law, o.verdict, o.detail) for o in self.outcomes]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join("  ".join([*(row[c].ljust(widths[c]) for c in range(4)), row[4]]).rstrip() for row in rows)

    def require(self) -> Results:
        """These results, or `ConformanceError` listing the failures (or that nothing could be checked)."""
        if not self.passed:
            raise ConformanceError(Results(self.failures).table() if self.failures else "no law could be checked")
        return self


def laws() -> tuple[Law, ...]:
    """Every law with its statement and tolerance."""
    return _LAWS


def exemptions(method: Attributor) -> Mapping[str, str]:
    """Law name -> reason, from the class variable `exempt`; `ConformanceError` for a law without exemptions."""
    claimed: Mapping[str, str] = getattr(type(method), "exempt", {})
    open_to = {law.name for law in _LAWS if law.exemptable}
    for name, reason in claimed.items():
        if name not in open_to:
            raise ConformanceError(f"{type(method).__name__} is exempt from {name!r}; only {sorted(open_to)} can be")
        if not reason.strip():
            raise ConformanceError(f"{type(method).__name__} gives no reason for its exemption from {name!r}")
    return claimed


def judge(law: Law, method: Attributor, case: Case) -> tuple[Verdict, str]:
    """Hold one method against one law on one run; an exception that no law allows is a failure, not a crash."""
    try:
        exempt = exemptions(method)
        if law.name in exempt:
            return "exempt", exempt[law.name]
        with _restored():
            law.check(method, case.run, case.queries)
    except NotApplicable as reason:
        return "not applicable", str(reason)
    except ConformanceError as error:
        return "fail", str(error)
    except Exception as error:
        if isinstance(error, Unsupported) and _refuses(method, case):
            return "unsupported", str(error)
        return "fail", f"{type(error).__name__}: {error}"
    return "pass", ""


def check(method: Attributor, runs: Sequence[Case] | None = None) -> Results:
    """Hold `method` against every law on every run (default: logistic regression, an MLP and a tiny text model).

    Never raises for a broken method: read `results.table()`, or call `results.require()`.
    """
    cases = (digits_linear(), digits_mlp(), text_bigram()) if runs is None else runs
    return Results(
        tuple(
            Outcome(type(method).__name__, case.name, law.name, *judge(law, method, case))
            for case in cases
            for law in _LAWS
        )
    )


@contextmanager
def _restored() -> Generator[None]:
    """Give torch's global state back afterwards: what one law catches must not fail, or hide from, the next."""
    import torch

    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def _refuses(method: Attributor, case: Case) -> bool:
    """Whether `fit` itself raises `Unsupported`: later is too late."""
    from poa.conformance.views import isolated

    with isolated(case.run) as view:
        try:
            method.fit(view)
        except Unsupported:
            return True
    return False
