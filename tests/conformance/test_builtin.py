"""Every built-in method keeps every law on every run."""

from __future__ import annotations

import pytest
from tests.conformance.conftest import RUNS

from poa.conformance import Case, Law, judge, laws
from poa.conformance.subjects import builtins, subject

# Hundreds of passes over a language model for every query: minutes a law. Their scores on this run are held to the
# explicit ones in tests/unit/methods/test_exact_influence.py, and the laws to the other three runs.
SLOW = ("exact_influence", "ekfac_cg", "astra")
# MAGIC refuses this run (six records a step: it is not smooth in their weights), after retraining it 17 times for every
# law. LoRA under it is held to torch in tests/unit/factory/test_programs.py.
REFUSED = ("magic",)
# Sixteen trainings of a language model a law; the same programs.
RETRAINED = ("kernel_shap",)


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.name.replace(" ", "-"))
@pytest.mark.parametrize("name", sorted(builtins()))
def test_law(name: str, law: Law, case: Case) -> None:
    if name in SLOW and case.name == "lora":
        pytest.skip("hundreds of passes over a language model for every query")
    if name in REFUSED and case.name == "lora":
        pytest.skip("this run is not smooth in its records' weights")
    if name in RETRAINED and case.name == "lora":
        pytest.skip("sixteen trainings of a language model")
    verdict, detail = judge(law, subject(name), case)
    if verdict in ("unsupported", "not applicable", "exempt"):
        pytest.skip(f"{verdict}: {detail}")
    assert verdict == "pass", detail


@pytest.mark.parametrize("name", sorted(builtins()))
def test_every_builtin_supports_some_run(name: str) -> None:
    shape = {law.name: law for law in laws()}["shape"]
    assert any(judge(shape, subject(name), make())[0] != "unsupported" for make in RUNS.values())
