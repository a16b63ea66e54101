"""Receipts: in the ledger with all rules kept, bound to trace and texts, and absent altogether when that fails."""

from __future__ import annotations

import json
import re
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.factory.run import LoRARun
from poa.ledger import Ledger, Signer, seal, verify
from poa.serving.document import Trace
from poa.serving.founding import found, require_adapter
from poa.serving.generate import Sampling
from poa.serving.receipts import (
    LEDGER,
    LOG_KEY,
    OPERATOR_KEY,
    TRACES,
    ReceiptBook,
    fresh_salts,
    receipt_id,
    served,
)
from poa.serving.tracing import Tracer

ORIGIN = "poa.example/serving-test"


@pytest.fixture
def book(run: LoRARun, tmp_path: Path) -> Path:
    found(tmp_path / "book", ORIGIN, run)
    return tmp_path / "book"


def traced(tracer: Tracer) -> Trace:
    return tracer.trace("The matrix", None, Sampling(6), receipt_id(), fresh_salts())


def test_ids_are_version_7_uuids_in_order_of_time() -> None:
    before = time.time_ns() // 10**6
    names = [receipt_id() for _ in range(200)]
    assert len(set(names)) == 200
    for name in names:
        assert re.fullmatch(r"rcpt_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", name)
    stamps = [int(name[5:].replace("-", "")[:12], 16) for name in names]
    assert stamps == sorted(stamps)
    assert before <= stamps[0] <= stamps[-1] <= time.time_ns() // 10**6


def test_a_founded_ledger_verifies_and_its_keys_are_private(book: Path, run: LoRARun) -> None:
    verdict = verify(book / LEDGER)
    assert verdict.ok, verdict.message
    for name in (LOG_KEY, OPERATOR_KEY):
        assert stat.S_IMODE((book / name).stat().st_mode) == 0o600
    with Ledger.open(book / LEDGER) as ledger:
        assert set(ledger.state().adapters) == {run.adapter_digest}
        assert ledger.origin == ORIGIN


def test_founding_never_touches_what_is_there(book: Path, run: LoRARun, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in book.iterdir()}
    with pytest.raises(PoaError, match="not empty"):
        found(book / LEDGER, ORIGIN, run)
    assert {path.name: path.read_bytes() for path in book.iterdir()} == before
    with pytest.raises(PoaError, match="key name"):
        found(tmp_path / "bad", "two words", run)
    assert [path.name for path in tmp_path.iterdir()] == ["book"]


def test_a_receipt_holds_to_every_rule_and_pays_nobody(book: Path, tracer: Tracer) -> None:
    trace = traced(tracer)
    with ReceiptBook.open(book) as opened:
        event = opened.record(trace)
    body = event.body
    assert body["residuals"] == {"base": "0", "below_threshold": "0", "unattributed": "1000000000"}
    assert (body["payees"], body["scores"], body["fee"], "card" in body) == ([], [], "0", False)
    assert body["adapter"] == trace.digests.adapter
    assert body["query"] == seal(bytes.fromhex(trace.salts.input), b"The matrix")
    assert body["output"] == seal(bytes.fromhex(trace.salts.output), trace.output.text.encode())
    assert body["tokens"] == {"prompt": trace.input.n_tokens, "output": len(trace.output.tokens)}
    assert "matrix" not in event.raw.decode()
    verdict = verify(book / LEDGER, opened.ledger.verifier.vkey)
    assert verdict.ok, verdict.message


def test_the_receipt_binds_the_whole_trace(book: Path, tracer: Tracer) -> None:
    trace = traced(tracer)
    with ReceiptBook.open(book) as opened:
        event = opened.record(trace)
        stored = opened.trace(trace.receipt_id)
    assert stored == trace.json.encode()
    assert event.body["served"] == plain_digest(served(trace))
    rank = replace(trace.methods[0].records[0], score="9")
    altered = replace(trace, methods=(replace(trace.methods[0], records=(rank,)), *trace.methods[1:]))
    assert plain_digest(served(altered)) != event.body["served"]


def test_receipts_survive_reopening(book: Path, tracer: Tracer) -> None:
    trace = traced(tracer)
    with ReceiptBook.open(book) as opened:
        opened.record(trace)
    with ReceiptBook.open(book / LEDGER) as again:
        found_again = again.receipt(trace.receipt_id)
        assert found_again is not None
        assert found_again["seq"] == again.ledger.head().size - 1
        assert found_again["event"]["id"] == trace.receipt_id
        assert again.ledger.verifier.open(found_again["checkpoint"]).startswith(ORIGIN)
        assert again.trace(trace.receipt_id) == trace.json.encode()
        again.record(traced(tracer))
        assert again.receipt("rcpt_" + "0" * 36) is None


def test_erased_texts_leave_the_receipt(book: Path, tracer: Tracer) -> None:
    trace = traced(tracer)
    with ReceiptBook.open(book) as opened:
        opened.record(trace)
        (book / TRACES / f"{trace.receipt_id}.json").unlink()
        assert opened.trace(trace.receipt_id) is None
        assert opened.receipt(trace.receipt_id) is not None


def test_a_refused_receipt_leaves_no_trace(book: Path, tracer: Tracer) -> None:
    trace = traced(tracer)
    foreign = replace(trace, digests=replace(trace.digests, adapter="0" * 64))
    with ReceiptBook.open(book) as opened:
        size = opened.ledger.head().size
        with pytest.raises(PoaError, match="not published"):
            opened.record(foreign)
        assert opened.ledger.head().size == size
        assert opened.receipt(trace.receipt_id) is None
        with pytest.raises(PoaError, match="must be rcpt_"):
            opened.record(replace(trace, receipt_id="../../x"))
    assert list((book / TRACES).iterdir()) == []


def test_another_adapter_is_published_before_it_answers(book: Path, sibling: LoRARun) -> None:
    with ReceiptBook.open(book) as opened:
        require_adapter(opened, sibling)
        require_adapter(opened, sibling)
        size = opened.ledger.head().size
        with Tracer.open(sibling, ()) as other:
            opened.record(traced(other))
        assert opened.ledger.head().size == size + 1
    assert verify(book / LEDGER).ok


def test_missing_parts_are_named(book: Path, run: LoRARun, tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="--init"):
        ReceiptBook.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (book / OPERATOR_KEY).rename(book / "away")
    with pytest.raises(PoaError, match=OPERATOR_KEY):
        ReceiptBook.open(book)
    Signer.generate("poa-operator").save(book / OPERATOR_KEY)
    with pytest.raises(PoaError, match="operator"):
        ReceiptBook.open(book)


def test_policies_are_chosen_among_those_that_may_pay(book: Path) -> None:
    with ReceiptBook.open(book) as opened:
        assert json.loads(json.dumps(opened.policy.to_json()))["payable"] is True
    with pytest.raises(PoaError, match="no payable policy"):
        ReceiptBook.open(book, ("other", 1))
