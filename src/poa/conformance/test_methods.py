"""`pytest --pyargs poa.conformance`: every method, built in or announced by an installed package, against every law."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poa.conformance.cases import Case, digits_linear, digits_mlp, text_bigram
from poa.conformance.law import Law
from poa.conformance.subjects import announced, builtins, subject
from poa.conformance.suite import judge, laws


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name.replace(" ", "-"))
@pytest.mark.parametrize("make", [digits_linear, digits_mlp, text_bigram], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", sorted({*builtins(), *announced()}))
def test_law(name: str, make: Callable[[], Case], law: Law) -> None:
    verdict, detail = judge(law, subject(name), make())
    if verdict == "fail":
        pytest.fail(f"{name}: {law.name}: {detail}", pytrace=False)
    if verdict != "pass":
        pytest.skip(f"{verdict}: {detail}")
