"""`poa trace` and `poa serve`: what they print, and one line with code 2 for every wrong input, leaving nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from poa import methods
from poa.cli import main
from poa.factory.run import LoRARun
from poa.files import cache_home, write_atomic
from poa.ledger import verify
from poa.serving.receipts import LEDGER
from poa.serving.terminal import bar, joined, page
from poa.serving.tracing import Tracer

ANSWER = " of the naïve number 3 is computed from the kernel"
FEW = ("--method", "graddot,bm25")


def failed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("poa: error: ")
    return err


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(argv) == 0
    return capsys.readouterr().out


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_trace_shows_answer_spans_records_and_shares(run: LoRARun, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "trace", "The kernel", "--run", str(run.folder), "--answer", ANSWER, *FEW)
    assert "[ of the naïve number 3 is computed from the kernel]" in out
    assert "\x1b" not in out
    for word in (
        "graddot (gradient, uncalibrated)",
        "bm25 (lexical, uncalibrated)",
        "a-3",
        "ada",
        "bob",
        "cyd",
        "CC0-1.0",
    ):
        assert word in out
    assert run.adapter_digest[:16] in out


def test_trace_prints_json_that_the_tracer_made(run: LoRARun, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("trace", "The kernel", "--run", str(run.folder), "--json", "--max-new-tokens", "5", *FEW)
    out = printed(capsys, *words)
    trace = json.loads(out)
    assert out == json.dumps(trace, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert len(trace["output"]["tokens"]) <= 5
    assert [one["id"] for one in trace["methods"]] == ["graddot", "bm25"]
    assert printed(capsys, *words) == out


def test_trace_finds_the_latest_quickstart(run: LoRARun, capsys: pytest.CaptureFixture[str]) -> None:
    latest = cache_home() / "quickstart" / "latest.json"
    latest.unlink(missing_ok=True)
    assert "poa run experiment=quickstart" in failed(capsys, "trace", "The kernel")
    write_atomic(latest, json.dumps({"run": str(run.folder)}).encode())
    try:
        assert run.adapter_digest in printed(capsys, "trace", "The kernel", "--answer", ANSWER, "--json", *FEW)
        latest.write_text("[]")
        assert "does not name a run" in failed(capsys, "trace", "The kernel")
    finally:
        latest.unlink()


def test_wrong_inputs_are_one_line_and_leave_nothing(
    run: LoRARun, sibling: LoRARun, stranger: LoRARun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods.method("bm25").fit(sibling).save(tmp_path / "index")
    before = files(run.folder) | files(tmp_path)
    base = ("trace", "The kernel", "--run", str(run.folder))
    cases = [
        (("trace", "matrix " * 200, *base[2:]), "context of 128"),
        ((*base, "--max-new-tokens", "500"), "context of 128"),
        ((*base, "--answer", "matrix " * 200), "context of 128"),
        ((*base, "--method", "influense"), "did you mean 'influence'"),
        ((*base, "--method", "bm25,bm25"), "once"),
        ((*base, "--adapter", str(stranger.adapter_folder)), "belongs to base"),
        ((*base, "--adapter", str(tmp_path)), "adapter_config.json"),
        ((*base, "--index", str(tmp_path / "index")), "belongs to run"),
        ((*base, "--index", str(tmp_path / "absent")), "holds no index"),
        (("trace", "The kernel", "--run", str(tmp_path)), "no training run"),
        (("trace", "", *base[2:]), "question is empty"),
        ((*base, "--seed", "-1"), "seed"),
        ((*base, "--sed", "1"), "--seed"),
    ]
    for argv, why in cases:
        assert why in failed(capsys, *argv), argv
    assert files(run.folder) | files(tmp_path) == before


def test_serve_refuses_wrong_inputs_and_leaves_no_ledger(
    run: LoRARun, stranger: LoRARun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POA_API_KEY", "a-key-for-these-tests")
    book = tmp_path / "book"
    base = ("serve", "--run", str(run.folder), "--ledger", str(book), "--port", "0")
    cases = [
        (base, "--init"),
        ((*base, "--init", "--adapter", str(stranger.adapter_folder)), "belongs to base"),
        ((*base, "--init", "--method", "nonsense"), "no method"),
        ((*base, "--init", "--port", "70000"), "65535"),
        ((*base, "--init", "--origin", "two words"), "--origin"),
        ((*base, "--init", "--host", "no such host"), "cannot listen"),
        (("serve", "--run", str(run.folder)), "--ledger"),
    ]
    for argv, why in cases:
        assert why in failed(capsys, *argv), argv
    monkeypatch.setenv("POA_API_KEY", "short")
    assert "POA_API_KEY" in failed(capsys, *base, "--init")
    assert list(tmp_path.iterdir()) == []


def test_serve_answers_and_ends_in_order(run: LoRARun, tmp_path: Path) -> None:
    """A real process: made ledger, printed key, one answer, SIGTERM, a ledger that verifies."""
    words = ["serve", "--run", str(run.folder), "--ledger", str(tmp_path / "book"), "--init", "--port", "0", *FEW]
    environment = {name: value for name, value in os.environ.items() if name != "POA_API_KEY"}
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from poa.cli import main; sys.exit(main(sys.argv[1:]))", *words],
        stderr=subprocess.PIPE, text=True, env=environment | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = "".join(process.stderr.readline() for _ in range(3))
        url, key = re.search(r"http://\S+", said), re.search(r"poa-\S{40,}", said)
        assert url, said
        assert key, said
        with httpx.Client(headers={"Authorization": f"Bearer {key[0]}"}, timeout=60, trust_env=False) as client:
            answer = client.post(f"{url[0]}/v1/completions", json={"prompt": "The kernel", "max_tokens": 5})
            assert answer.status_code == 200, answer.text
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 0, rest
        assert rest == ""
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    assert verify(tmp_path / "book" / LEDGER).ok
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_the_page_underlines_where_it_can_and_shows_no_control_characters(tracer: Tracer) -> None:
    from dataclasses import replace

    trace = tracer.trace("The kernel", ANSWER)
    assert "\x1b[4m of the naïve" in page(trace, color=True)
    hostile = replace(trace, input=replace(trace.input, text="a\x1b[31mb\x9b2Jc"))
    assert "\x1b" not in page(hostile)
    assert "\x9b" not in page(hostile)


def test_ranges_are_joined_and_bars_are_to_scale() -> None:
    assert joined([(5, 9), (0, 3), (2, 4), (9, 10)]) == [(0, 4), (5, 10)]
    assert [bar(parts).strip() for parts in (0, 125_000_000, 10**9)] == ["", "█", "████████"]
    assert {len(bar(parts)) for parts in range(0, 10**9 + 1, 10**7)} == {8}
