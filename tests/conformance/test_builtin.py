"""Every built-in method keeps every law on every run."""

from __future__ import annotations

import pytest
from tests.conformance.conftest import RUNS

from poa.conformance import Case, Law, judge, laws
from poa.conformance.subjects import builtins, subject


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name.replace(" ", "-"))
@pytest.mark.parametrize("name", sorted(builtins()))
def test_law(name: str, law: Law, case: Case) -> None:
    verdict, detail = judge(law, subject(name), case)
    if verdict in ("unsupported", "not applicable", "exempt"):
        pytest.skip(f"{verdict}: {detail}")
    assert verdict == "pass", detail


@pytest.mark.parametrize("name", sorted(builtins()))
def test_every_builtin_supports_some_run(name: str) -> None:
    shape = {law.name: law for law in laws()}["shape"]
    verdicts = {judge(shape, subject(name), make())[0] for make in RUNS.values()}
    assert verdicts - {"unsupported"}
