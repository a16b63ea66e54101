"""Options of the wrong type are named before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from poa.errors import PoaError
from poa.factory.recipe import LoRARecipe
from poa.methods.graddot import GradDot
from poa.pipeline.settings import Answers, Select, Stages
from poa.pipeline.typed import check_types


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Select, {"records": "abc"}, r"o\.records is 'abc', must be an integer"),
        (Select, {"contributors": 1.5}, r"o\.contributors is 1.5, must be an integer or a list of texts"),
        (Select, {"contributors": ["a", 3]}, r"o\.contributors is \['a', 3\]"),
        (Stages, {"truth": ["a"]}, r"o\.truth is \['a'\], must be a list of integers"),
        (Stages, {"pay": "yes"}, r"o\.pay is 'yes', must be true or false"),
        (Stages, {"fee": True}, r"o\.fee is True, must be an integer"),
        (Answers, {"texts": "one"}, r"o\.texts is 'one', must be a list of texts"),
        (LoRARecipe, {"betas": [0.9]}, r"o\.betas is \[0.9\], must be a list of 2 of number"),
        (LoRARecipe, {"rate": "fast"}, r"o\.rate is 'fast', must be a number"),
        (GradDot, {"checkpoints": 3}, r"o\.checkpoints is 3, must be a text"),
    ],
)
def test_wrong_types(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        check_types(kind, given, "o")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Select, {"contributors": 3, "records": 4}),
        (Select, {"contributors": ["a", "b"]}),
        (Stages, {"truth": [0, 1], "compare": []}),
        (LoRARecipe, {"rate": 1, "betas": [0.9, 0.99], "quantise": "none"}),
        (dict, {"anything": object()}),
    ],
)
def test_right_types(kind: Any, given: dict[str, Any]) -> None:
    check_types(kind, given, "o")
