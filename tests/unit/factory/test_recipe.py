"""The LoRA recipe: its configuration is its Python twin, and wrong values are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from poa.errors import PoaError
from poa.factory.recipe import LoRARecipe

CONF = Path(__file__).parents[3] / "conf" / "recipe"


@pytest.mark.parametrize(("name", "twin"), [("lora", LoRARecipe()), ("qlora", LoRARecipe(quantise="4bit"))])
def test_the_configuration_makes_its_python_twin(name: str, twin: LoRARecipe) -> None:
    plain = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | {"seed": 0}
    made = instantiate(plain, _convert_="object")
    assert made == twin
    assert repr(made) == repr(twin)
    assert hash(made) == hash(twin)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rate": 0.0}, {"rate": 1.0}, {"quantise": "8bit"}, {"epochs": 0}])
def test_wrong_values_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(PoaError, match=f"recipe.{next(iter(wrong))} is "):
        LoRARecipe(**wrong)  # type: ignore[arg-type]
