"""The HTTP interface: answers with receipts, one error form, nothing without the key, nothing unrecorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.ledger import verify
from poa.serving.access import Access, new_key
from poa.serving.app import app
from poa.serving.desk import Desk
from poa.serving.founding import found
from poa.serving.receipts import LEDGER, TRACES, ReceiptBook
from poa.serving.tracing import Tracer

KEY = "a-key-for-these-tests"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def folder(run: LoRARun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("serving") / "book"
    found(made, "poa.example/http-test", run)
    return made


@pytest.fixture(scope="module")
def desk(folder: Path, tracer: Tracer) -> Iterator[Desk]:
    with Desk.open("docs", tracer, folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[TestClient]:
    with TestClient(app(desk, Access.of(KEY), most_bytes=2000), headers=HEADERS) as made:
        yield made


def ask(client: TestClient, **body: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"prompt": "The matrix of", "max_tokens": 6, "temperature": 0} | body)


def refused(response: Any, status: int, code: str, param: str | None = None) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert "\n" not in error["message"]
    return str(error["message"])


def test_an_answer_has_its_receipt_and_trace_when_it_arrives(client: TestClient, desk: Desk, folder: Path) -> None:
    response = ask(client)
    assert response.status_code == 200, response.text
    answer = response.json()
    name = answer["poa"]["receipt_id"]
    assert response.headers["x-receipt-id"] == answer["id"] == name
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    receipt = client.get(f"/v1/receipts/{name}").json()
    assert (receipt["status"], receipt["event"]["id"]) == ("ready", name)
    raw = client.get(f"/v1/traces/{name}").content
    assert hashlib.sha256(raw).hexdigest() == answer["poa"]["trace"]
    assert (folder / TRACES / f"{name}.json").read_bytes() == raw
    trace = json.loads(raw)
    assert trace["output"]["text"] == answer["choices"][0]["text"]
    assert [one["id"] for one in trace["methods"]] == ["graddot", "bm25", "repsim"]
    assert receipt["event"]["body"]["adapter"] == trace["digests"]["adapter"] == desk.adapter
    assert verify(folder / LEDGER).ok


def test_answers_are_those_of_the_tracer(client: TestClient, tracer: Tracer) -> None:
    from poa.serving.generate import Sampling

    sampled = ask(client, temperature=1.2, top_p=0.9, seed=7).json()["choices"][0]
    trace = tracer.trace("The matrix of", None, Sampling(6, 1.2, 0.9, 7))
    assert (sampled["text"], sampled["finish_reason"]) == (trace.output.text, trace.output.finish_reason)


@pytest.mark.parametrize("route", ["/v1/receipts/x", "/v1/traces/x"])
@pytest.mark.parametrize("header", [{}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer wrong"}])
def test_nothing_is_told_without_the_key(desk: Desk, route: str, header: dict[str, str]) -> None:
    with TestClient(app(desk, Access.of(KEY)), headers=header) as stranger:
        refused(stranger.get(route), 401, "invalid_api_key")
        refused(ask(stranger), 401, "invalid_api_key")
        assert stranger.get("/healthz").json() == {"status": "ok", "model": "docs"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream": True}, "stream"),
        ({"n": 2}, "n"),
        ({"max_token": 3}, "max_token"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"model": 5}, "model"),
    ],
)
def test_wrong_and_unsupported_fields_are_named(client: TestClient, body: dict[str, Any], param: str) -> None:
    assert param in refused(ask(client, **body), 400, "invalid_request", param)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 1500])
def test_a_body_that_is_no_object_is_refused(client: TestClient, data: bytes) -> None:
    response = client.post("/v1/completions", content=data)
    assert response.status_code == 400
    assert response.json()["error"]["code"] in ("invalid_json", "invalid_request")


def test_a_prompt_beyond_the_context_is_refused_and_leaves_nothing(
    client: TestClient, desk: Desk, folder: Path
) -> None:
    ask(client)
    before = (sorted((folder / TRACES).iterdir()), len(desk.book.written))
    said = refused(ask(client, max_tokens=500), 400, "invalid_prompt", "prompt")
    assert "max_tokens is 500" in said
    assert "context of 128" in said
    refused(ask(client, prompt="  "), 400, "invalid_prompt", "prompt")
    assert (sorted((folder / TRACES).iterdir()), len(desk.book.written)) == before


def test_a_long_body_is_refused(client: TestClient) -> None:
    refused(ask(client, prompt="x" * 3000), 413, "body_too_large")


def test_models_are_known_by_name_and_digest(client: TestClient, desk: Desk) -> None:
    assert ask(client, model="docs").status_code == 200
    assert ask(client, model=f"sha256:{desk.adapter}").status_code == 200
    refused(ask(client, model="gpt"), 404, "model_not_found", "model")


@pytest.mark.parametrize("name", ["rcpt_0", "..%2f..%2flog.key", "rcpt_00000000-0000-7000-8000-000000000000"])
def test_unknown_receipts_look_alike(client: TestClient, name: str) -> None:
    for kind in ("receipts", "traces"):
        response = client.get(f"/v1/{kind}/{name}")
        assert response.status_code == 404
        assert "error" in response.json()


def test_routes_and_methods_that_do_not_exist_have_the_error_form(client: TestClient) -> None:
    refused(client.get("/v1/nothing"), 404, "unknown_route")
    refused(client.get("/v1/completions"), 405, "method_not_allowed")


def test_without_a_receipt_there_is_no_answer(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PoaError("database or disk is full")

    assert ask(client).status_code == 200  # so that there is a trace to compare with, whichever test runs first
    before = sorted((folder / TRACES).iterdir())
    assert before
    monkeypatch.setattr("poa.ledger.Ledger.append", full)
    assert "disk is full" in refused(ask(client), 503, "receipts_unavailable")
    assert sorted((folder / TRACES).iterdir()) == before


def test_a_defect_is_not_told_to_the_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(ReceiptBook, "record", broken)
    with TestClient(app(desk, Access.of(KEY)), headers=HEADERS, raise_server_exceptions=False) as made:
        assert "secret" not in refused(ask(made), 500, "internal_error")


def test_a_full_queue_is_said(desk: Desk) -> None:
    with TestClient(app(desk, Access.of(KEY), most_waiting=0), headers=HEADERS) as busy:
        response = ask(busy)
        refused(response, 429, "queue_full")
        assert response.headers["retry-after"] == "1"


def test_parallel_requests_get_receipts_of_their_own(client: TestClient, folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [one.json() for one in pool.map(lambda seed: ask(client, seed=seed, temperature=1.0), range(8))]
    names = {answer["poa"]["receipt_id"] for answer in answers}
    assert len(names) == 8
    assert {client.get(f"/v1/receipts/{name}").status_code for name in names} == {200}
    assert verify(folder / LEDGER).ok


def test_keys_are_long_and_only_their_digest_is_kept() -> None:
    assert Access.of(key := new_key()).granted(f"Bearer {key}")
    assert not Access.of(new_key()).granted(f"Bearer {key}")
    assert not Access.of(KEY).granted(None)
    assert KEY not in repr(Access.of(KEY))
    with pytest.raises(PoaError, match="16 visible"):
        Access.of("short")
