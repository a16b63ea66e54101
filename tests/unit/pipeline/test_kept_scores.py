"""Scores that were made once are read again, unless what makes them is another."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from poa.conformance import digits_mlp
from poa.pipeline.attribution import attribute

SOURCE = """
from dataclasses import dataclass
from typing import ClassVar
from poa.methods.graddot import GradDot

CALLS = []

@dataclass(frozen=True)
class Mine:
    family: ClassVar[str] = "gradient"

    def fit(self, run):
        CALLS.append(run)
        return GradDot({options}).fit(run)
"""


def imported(path: Path, options: str) -> Any:
    path.write_text(SOURCE.format(options=options))
    spec = importlib.util.spec_from_file_location("mine_for_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mine_for_a_test"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("POA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("mine_for_a_test", None)


def test_scores_are_made_once_and_anew_when_the_method_s_source_changes(tmp_path: Path) -> None:
    case = digits_mlp()
    module = imported(tmp_path / "mine.py", "")
    first = attribute("mine", module.Mine(), case.run, [case.queries])
    again = attribute("mine", module.Mine(), case.run, [case.queries])
    assert first.scores.digest == again.scores.digest
    assert len(module.CALLS) == 1
    module = imported(tmp_path / "mine.py", "checkpoints='all'")
    attribute("mine", module.Mine(), case.run, [case.queries])
    assert len(module.CALLS) == 1  # it was asked, although its name and options are the same


def test_what_has_no_source_file_is_not_found_again_elsewhere(tmp_path: Path) -> None:
    case = digits_mlp()
    module = imported(tmp_path / "mine.py", "")
    del module.__file__
    attribute("mine", module.Mine(), case.run, [case.queries])
    module = imported(tmp_path / "mine.py", "")
    del module.__file__
    attribute("mine", module.Mine(), case.run, [case.queries])
    assert len(module.CALLS) == 1
