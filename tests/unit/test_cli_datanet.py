"""`poa datanet`: list, show, import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poa import cli
from poa.datanets.snapshot import Snapshot
from poa.datanets.sources import SOURCES

SENTENCE = "the quick brown fox jumps over the lazy dog and runs away from it as fast as it can"
ROWS = [
    {"id": "a", "answer": SENTENCE, "contributor": "ada", "registered": 1},
    {"id": "b", "answer": SENTENCE, "contributor": "bob", "registered": 2},
    {"id": "c", "answer": "an honest sentence about something else altogether", "contributor": "cyd"},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_the_sources_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datanet", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SOURCES)


def test_a_file_is_imported_once_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["datanet", "import", "rows.jsonl", "--out", "snap", "--column", "text=answer", "--name", "mine"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    snapshot = Snapshot.load("snap")
    assert snapshot.corpus.datanets == ("mine", "mine")
    assert f"root {snapshot.root}\n" in out
    assert "b repeats a (exact)" in out
    assert cli.main(words) == 2
    assert "snap exists already" in capsys.readouterr().err
    assert cli.main(["datanet", "show", "snap"]) == 0
    shown = capsys.readouterr().out
    assert f"root {snapshot.root}\n" in shown
    assert "contributors: 2\n" in shown


def test_copies_can_be_kept() -> None:
    words = ["datanet", "import", "rows.jsonl", "--out", "snap", "--column", "text=answer", "--duplicates", "keep"]
    assert cli.main(words) == 0
    assert len(Snapshot.load("snap").corpus) == 3


def test_a_source_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datanet", "show", "jsonl", "--path", "rows.jsonl", "--column", "text=answer"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 records, digest ")
    assert "contributors: 3\n" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "medqad"], "did you mean 'medquad'?"),
        (["show", "jsonl"], "needs the option 'path'"),
        (["show", "jsonl", "--path", "missing.jsonl"], "missing.jsonl"),
        (["import", "rows.jsonl", "--out", "snap"], "rows.jsonl:1"),
        (["import", "rows.txt", "--out", "snap"], "rows.txt is of no known format"),
        (["import", "rows.jsonl", "--out", "snap", "--column", "text"], "--column 'text' must be FIELD=NAME"),
        (["import", "rows.jsonl", "--out", "snap", "--column", "txt=answer"], "txt"),
        (
            ["import", "rows.jsonl", "--out", "s", "--column", "text=answer", "--duplicates", "drp"],
            "duplicates is 'drp'",
        ),
        (["import", "rows.jsonl"], "--out"),
        (["improt", "rows.jsonl"], "did you mean 'import'?"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["datanet", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("poa: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
