"""The conformance suite: laws that every attribution method keeps, for poa's own and anybody else's.

`check(method).table()` from Python, `pytest --pyargs poa.conformance` for every installed method.
"""

from __future__ import annotations

from poa.conformance.cases import Case, digits_linear, digits_mlp, text_bigram
from poa.conformance.law import ConformanceError, Law, NotApplicable
from poa.conformance.suite import Outcome, Results, check, judge, laws
from poa.conformance.views import RunView, duplicated, foreign, isolated, permuted

__all__ = [
    "Case",
    "ConformanceError",
    "Law",
    "NotApplicable",
    "Outcome",
    "Results",
    "RunView",
    "check",
    "digits_linear",
    "digits_mlp",
    "duplicated",
    "foreign",
    "isolated",
    "judge",
    "laws",
    "permuted",
    "text_bigram",
]
