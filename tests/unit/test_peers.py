"""The page about peers shows what the committed results say, and the comparison itself runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers/bin/python"
RESULTS = ROOT / "experiments/results/peers"
# Disagreements must be explained; where there is no explanation, this is agreement.
LEAST = 0.99


def test_the_page_is_what_the_results_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "experiments/peers/page.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_disagreement_is_explained() -> None:
    rows = json.loads((RESULTS / "parity.json").read_text())["parity"]
    compared = [row for row in rows if "skipped" not in row]
    assert len(compared) > 30
    for row in compared:
        agrees = row.get("rank", 0.0) >= LEAST and row.get("difference", 1.0) < 1e-3
        assert agrees or row["note"], f"{row['peer']} and {row['poa']} differ on {row['subject']} and nobody says why"


def test_every_failure_of_a_law_says_what_happened() -> None:
    result = json.loads((RESULTS / "conformance.json").read_text())
    for row in result["outcomes"]:
        assert row["verdict"] in ("pass", "fail", "last digits", "not applicable", "does not run", "unsupported")
        assert row["detail"] or row["verdict"] == "pass"


@pytest.mark.skipif(not PEERS.exists(), reason="needs the peers' environment: make peers")
def test_a_pair_is_compared_and_a_fault_is_shown(tmp_path: Path) -> None:
    def last_line(script: str, word: str) -> dict[str, list[dict[str, object]]]:
        done = subprocess.run(
            [PEERS, ROOT / "experiments/peers" / script, "--only", word],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={**os.environ, "POA_CACHE": str(tmp_path / "cache")},
        )
        found: dict[str, list[dict[str, object]]] = json.loads(done.stdout.splitlines()[-1])
        return found

    (pair,) = last_line("parity.py", "DataInf")["parity"]
    assert pair["rank"] == 1.0
    (fault,) = last_line("faults.py", "to 512 dimensions")["faults"]
    assert fault["there"] is True
