"""Loggers: the null one, and Weights & Biases without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import wandb
import yaml
from hydra.utils import instantiate

from poa.errors import MissingExtra, PoaError
from poa.integrations.wandb import Quiet, Wandb

CONF = Path(__file__).parents[2] / "conf" / "logger"


def test_offline_run_writes_its_files_and_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):  # a sweep opens one log after the other in one process
        log = Wandb(project="test", tags=("a",)).start("first", {"seed": number}, tmp_path / f"job{number}", "both")
        log.log({"lds": 0.5})
        log.log({"lds": 0.75})
        log.table("top", [{"record": "a", "score": 1.0}, {"record": "b", "score": -2.0}])
        (tmp_path / f"job{number}" / "scores.bin").write_bytes(b"1234")
        log.artifact("scores of it", "scores", [tmp_path / f"job{number}" / name for name in ("scores.bin", "none")])
        log.finish()
    # wandb's own process closes its files a little after `finish`; waiting for its end makes them whole.
    wandb.teardown()
    for folder in (tmp_path / "job0", tmp_path / "job1"):
        (stored,) = folder.rglob("*.wandb")
        body = stored.read_bytes()
        assert b"lds" in body
        assert b"seed" in body
        assert b"both" in body
        assert b"scores-of-it" in body
        assert b"scores.bin" in body
        (table,) = folder.rglob("*.table.json")
        assert '"b"' in table.read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["job0", "job1"]


def test_a_table_with_uneven_rows_is_refused(tmp_path: Path) -> None:
    log = Wandb().start("uneven", {}, tmp_path)
    try:
        with pytest.raises(PoaError, match="table 'top', row 1"):
            log.table("top", [{"a": 1}, {"b": 1}])
    finally:
        log.finish()


def test_without_wandb_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"poa\[wandb\]"):
        Wandb().start("x", {}, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(PoaError, match=r"logger\.mode is 'offlin'"):
        Wandb(mode="offlin")


def test_quiet_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = Quiet().start("x", {}, tmp_path)
    log.log({"a": 1.0})
    log.table("t", [{"a": 1}])
    log.artifact("a", "kind", [tmp_path / "none"])
    log.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "twin"), [("none", Quiet()), ("wandb", Wandb())])
def test_the_configurations_make_their_python_twins(name: str, twin: object) -> None:
    made = instantiate(yaml.safe_load((CONF / f"{name}.yaml").read_text()), _convert_="object")
    assert repr(made) == repr(twin)
    assert hash(made) == hash(twin)
