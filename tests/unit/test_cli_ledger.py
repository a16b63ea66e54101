"""`poa ledger` on a small ledger, whole and damaged."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from poa import cli
from poa.ledger import ActorKey, Author, Event, Ledger, Signer, journal

ORIGIN = "example.test/cli"


@pytest.fixture
def events() -> list[Event]:
    return [
        journal.register(Author(ActorKey.simulated(name), ORIGIN, ts=1), [role], name)
        for name, role in (("op", "operator"), ("bob", "contributor"), ("ada", "contributor"))
    ]


@pytest.fixture
def signer() -> Signer:
    return Signer(ORIGIN, b"\x07" * 32)


@pytest.fixture
def path(tmp_path: Path, events: list[Event], signer: Signer) -> str:
    with Ledger.init(tmp_path / "ledger.sqlite", ORIGIN, signer) as ledger:
        ledger.append(events[:2])
        ledger.append(events[2:])
    return str(tmp_path / "ledger.sqlite")


def flip(path: str, seq: int) -> None:
    with sqlite3.connect(path) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        (body,) = database.execute("SELECT body FROM ev WHERE seq = ?", (seq,)).fetchone()
        broken = body[:40] + bytes([body[40] ^ 1]) + body[41:]
        database.execute("UPDATE ev SET body = ? WHERE seq = ?", (broken, seq))
    database.close()


def test_a_whole_ledger_is_verified(
    path: str, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ledger", "verify", path]) == 0
    out = capsys.readouterr().out
    assert out.startswith("verified: ")
    assert "size 3, root " in out
    assert "--vkey checks whose ledger it is" in out
    (tmp_path / "key").write_text(signer.verifier.vkey + "\n")
    for key in (signer.verifier.vkey, str(tmp_path / "key")):
        assert cli.main(["ledger", "verify", path, "--vkey", key]) == 0
        assert "whose ledger" not in capsys.readouterr().out


def test_a_flipped_byte_gives_code_1_and_names_the_entry(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip(path, 1)
    assert cli.main(["ledger", "verify", path]) == 1
    out = capsys.readouterr().out
    assert out.startswith("WRONG: entry 1")
    assert "[rule " in out


def test_another_key_gives_code_1(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = Signer(ORIGIN, b"\x08" * 32).verifier.vkey
    assert cli.main(["ledger", "verify", path, "--vkey", other]) == 1
    assert "another key was given" in capsys.readouterr().out


def test_a_log_that_was_cut_back_is_caught_by_a_remembered_head(
    path: str, signer: Signer, events: list[Event], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger.open(path) as ledger:
        (tmp_path / "seen").write_text(ledger.head().note)
    with Ledger.init(tmp_path / "short.sqlite", ORIGIN, signer) as ledger:
        ledger.append(events[:2])
    words = ["--vkey", signer.verifier.vkey, "--remembered", str(tmp_path / "seen")]
    assert cli.main(["ledger", "verify", path, *words]) == 0
    assert cli.main(["ledger", "verify", str(tmp_path / "short.sqlite"), *words]) == 1


def test_exported_files_verify_and_a_flipped_byte_does_not(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["ledger", "export", path, "--out", str(out)]) == 0
    assert cli.main(["ledger", "verify", str(out)]) == 0
    assert cli.main(["ledger", "export", path, "--out", str(out)]) == 2
    assert "exists already; choose another --out" in capsys.readouterr().err
    (bundle,) = [path for path in (out / "tile" / "entries").rglob("*") if path.is_file()]
    data = bytearray(bundle.read_bytes())
    data[60] ^= 1
    bundle.write_bytes(bytes(data))
    assert cli.main(["ledger", "verify", str(out)]) == 1
    assert "entry 0" in capsys.readouterr().out


def test_one_event_is_proven_and_checked(
    path: str, events: list[Event], signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "one"
    assert cli.main(["ledger", "prove", path, events[1].id, "--out", str(out)]) == 0
    assert cli.main(["ledger", "verify", str(out), "--vkey", signer.verifier.vkey]) == 0
    assert '"label": "bob"' in capsys.readouterr().out
    data = (out / "event.json").read_bytes()
    (out / "event.json").write_bytes(data.replace(b"bob", b"bod"))
    assert cli.main(["ledger", "verify", str(out), "--vkey", signer.verifier.vkey]) == 1
    assert "WRONG: entry 1" in capsys.readouterr().out
    assert cli.main(["ledger", "verify", str(out)]) == 2
    assert "give the log's key with --vkey" in capsys.readouterr().err


def test_show_lists_and_prints_events(path: str, events: list[Event], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "show", path]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{ORIGIN}: 3 entries, root ")
    assert "3  actor.register" in out
    assert all(event.id in out for event in events)
    assert cli.main(["ledger", "show", path, "--last", "1"]) == 0
    shown = capsys.readouterr().out
    assert [event.id in shown for event in events] == [False, False, True]
    for name in ("2", events[2].id):
        assert cli.main(["ledger", "show", path, "--event", name]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(events[2].raw)
    assert cli.main(["ledger", "show", path, "--type", "epoch.close"]) == 0
    assert "register" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify", "missing"], "missing"),
        (["show", "missing"], "no ledger at missing"),
        (["prove", "{path}", "nope", "--out", "o"], "nope"),
        (["show", "{path}", "--event", "9"], "no event '9'"),
        (["verify", "{path}", "--vkey", "junk"], "a key must be name+hash+base64"),
        (["verify", "{path}", "--remembered", "missing"], "cannot read missing"),
        (["verfy", "{path}"], "unknown action of `poa ledger` 'verfy'; did you mean 'verify'?"),
        (["verify", "{path}", "--vkye", "x"], "did you mean '--vkey'?"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    path: str,
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ledger", *(word.format(path=path) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("poa: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.sqlite"]
