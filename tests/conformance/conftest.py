"""The runs that methods are held against here: add a name and a function that makes a `Case`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.language import small_queries, small_run

from poa.conformance import Case, digits_linear, digits_mlp, text_bigram


def lora() -> Case:
    """LoRA on a Llama-shaped language model: 16 prompts and texts of unequal length, two checkpoints."""
    return Case("lora", small_run(), small_queries()[:6])


RUNS: dict[str, Callable[[], Case]] = {
    "digits-linear": digits_linear,
    "digits-mlp": digits_mlp,
    "text-bigram": text_bigram,
    "lora": lora,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make_case" in metafunc.fixturenames:
        metafunc.parametrize("make_case", list(RUNS.values()), ids=list(RUNS))


@pytest.fixture
def case(make_case: Callable[[], Case]) -> Case:
    return make_case()
