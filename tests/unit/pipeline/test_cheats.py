"""Outcomes of attacks are computed once per configuration, and what was kept is checked."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from poa.errors import Corrupt
from poa.factory.run import LoRARun
from poa.gaming import NoiseFarm, Outcome, PrintedRule
from poa.pipeline import cheats
from poa.records import Corpus


def test_outcomes_are_computed_once_and_checked(
    run: LoRARun, queries: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path))
    monkeypatch.setattr(cheats, "workers", nullcontext)
    calls: list[Any] = []

    def compared(*told: Any, pool: Any) -> list[Outcome]:
        calls.append(told)
        return [Outcome("p", "noise_farm", "cook", 0.25, 1 / 3, 5, 7, 20, 21, 40, 3, 1)]

    monkeypatch.setattr(cheats, "compare", compared)
    ask = (run, run.corpus, queries, [NoiseFarm()], [PrintedRule()])
    first = cheats.outcomes(*ask, 10)
    assert cheats.outcomes(*ask, 10) == first
    assert len(calls) == 1
    cheats.outcomes(*ask, 11)
    cheats.outcomes(run, run.corpus, queries, [NoiseFarm(times=2)], [PrintedRule()], 10)
    cheats.outcomes(run, run.corpus, queries[:3], [NoiseFarm()], [PrintedRule()], 10)
    assert len(calls) == 4
    for path in (tmp_path / "attacks").iterdir():
        path.write_text(path.read_text().replace('"paid_after": 7', '"paid_after": 8'))
    with pytest.raises(Corrupt, match="does not have the digest"):
        cheats.outcomes(*ask, 10)
