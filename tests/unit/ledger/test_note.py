"""Signed notes, keys and checkpoints against the published vectors and damaged text."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poa.errors import PoaError
from poa.ledger.checkpoint import Checkpoint
from poa.ledger.note import Signer, Verifier, check_public_key, signature_holds, split_note
from poa.ledger.refusal import Refusal

# The eight points of small order and the other spellings of them that some libraries accept.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
SIGNER = Signer("poa.example/test", b"\x07" * 32)


def test_published_notes(vectors: Path) -> None:
    data = json.loads((vectors / "signed_note" / "signed_note.json").read_text("utf-8"))
    checked = 0
    for vkey, cases in ((data["vkey"], data["cases"]), (data["own_vkey"], data["own_cases"])):
        verifier = Verifier.parse(vkey)
        assert verifier.vkey == vkey
        for case in cases:
            checked += 1
            if case["want"] == "accept":
                assert case["note"].startswith(verifier.open(case["note"]))
                assert case["signers"] == [verifier.name]
            else:
                with pytest.raises(Refusal):
                    verifier.open(case["note"])
    assert checked == 18


def test_published_verifier_keys(vectors: Path) -> None:
    data = json.loads((vectors / "signed_note" / "signed_note.json").read_text("utf-8"))
    assert len(data["vkeys"]) == 6
    for case in data["vkeys"]:
        if case["want"] == "accept":
            verifier = Verifier.parse(case["vkey"])
            assert (verifier.id.hex(), verifier.key.hex()) == (case["key_id"], case["public_key_hex"])
        else:
            with pytest.raises(PoaError):
                Verifier.parse(case["vkey"])
    seed = hashlib.sha256(b"poa signed_note test key 1").digest()
    assert Signer("poa.example/test", seed).verifier.vkey == data["own_vkey"]


def test_published_ed25519_cases(vectors: Path) -> None:
    data = json.loads((vectors / "ed25519" / "ed25519_test.json").read_text("utf-8"))
    seen = {"valid": 0, "invalid": 0}
    for group in data["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        check_public_key(key)
        for case in group["tests"]:
            seen[case["result"]] += 1
            holds = signature_holds(key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert holds is (case["result"] == "valid"), case["tcId"]
    assert seen == {"valid": 88, "invalid": 63}


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_small_order_keys_are_refused(key: str) -> None:
    with pytest.raises(PoaError, match="prime order"):
        check_public_key(bytes.fromhex(key))
    with pytest.raises(PoaError, match="prime order"):
        Verifier("poa.example/test", bytes.fromhex(key))
    # The identity as R with S = 0 satisfies the bare equation for such keys, whatever the message.
    assert not signature_holds(bytes.fromhex(key), b"anything", bytes.fromhex(SMALL_ORDER[0]) + bytes(32))


def test_keys_of_another_length_are_refused() -> None:
    with pytest.raises(PoaError, match="31 bytes"):
        check_public_key(b"\x01" * 31)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40), st.data())
def test_one_changed_byte_of_a_note_is_refused(text: str, data: st.DataObject) -> None:
    note = SIGNER.sign(f"{text}\n")
    assert SIGNER.verifier.open(note) == f"{text}\n"
    raw = note.encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    try:
        other = changed.decode()
    except UnicodeDecodeError:
        return
    with pytest.raises(Refusal):
        SIGNER.verifier.open(other)


def test_further_signatures_are_kept_apart() -> None:
    other = Signer("poa.example/other", b"\x08" * 32)
    note = SIGNER.sign("text\n") + other.sign("text\n").split("\n\n")[1]
    assert [name for name, _ in split_note(note)[1]] == ["poa.example/test", "poa.example/other"]
    assert SIGNER.verifier.open(note) == other.verifier.open(note) == "text\n"


def test_key_file_is_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    signer = Signer.generate("poa.example/test")
    signer.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.load(path) == signer
    assert signer.seed.hex() not in repr(signer)
    with pytest.raises(PoaError, match="cannot write key file"):
        signer.save(path)
    path.chmod(0o640)
    with pytest.raises(PoaError, match="chmod 600"):
        Signer.load(path)


def test_damaged_key_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    SIGNER.save(path)
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(PoaError):
            Signer.load(path)


def test_checkpoints_come_back() -> None:
    root = hashlib.sha256(b"root").digest()
    head = Checkpoint("poa.example/test", 7, root).signed(SIGNER)
    assert head.note.startswith(f"poa.example/test\n7\n{base64.b64encode(root).decode()}\n\n— poa.example/test ")
    assert Checkpoint.open(head.note, SIGNER.verifier) == head
    with pytest.raises(Refusal, match="log key is named"):
        Checkpoint("poa.example/other", 7, root).signed(SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        "poa.example/test\n7\n{root}\nextension\n",
        "poa.example/test\n07\n{root}\n",
        "poa.example/test\n-7\n{root}\n",
        "poa.example/test\n7\nAAAA\n",
        "poa.example/test\n7\n",
        "poa.example/other\n7\n{root}\n",
        "poa.example/test\n7\n{root}=\n",
    ],
)
def test_other_checkpoint_texts_are_refused(text: str) -> None:
    root = base64.b64encode(bytes(32)).decode()
    with pytest.raises(Refusal):
        Checkpoint.open(SIGNER.sign(text.format(root=root)), SIGNER.verifier)
