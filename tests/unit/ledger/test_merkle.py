"""The tree against the published vectors, the recursive definition of RFC 6962, and damaged proofs."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poa.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from poa.ledger.refusal import Refusal

LEAVES = [leaf_hash(bytes([n])) for n in range(64)]


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + definition(leaves[:k]) + definition(leaves[k:])).digest()


ROOTS = [definition(LEAVES[:n]) for n in range(65)]


def _cases(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(str(file.relative_to(folder)), json.loads(file.read_text())) for file in sorted(folder.rglob("*.json"))]


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_published_inclusion_vectors(vectors: Path) -> None:
    cases = _cases(vectors / "merkle" / "inclusion")
    assert len(cases) == 98
    for name, case in cases:
        proof = [_bytes(h) for h in case["proof"] or []]
        holds = verify_inclusion(
            case["leafIdx"], case["treeSize"], _bytes(case["leafHash"]), proof, _bytes(case["root"])
        )
        assert holds is not case["wantErr"], name


def test_published_consistency_vectors(vectors: Path) -> None:
    cases = _cases(vectors / "merkle" / "consistency")
    assert len(cases) == 98
    for name, case in cases:
        proof = [_bytes(h) for h in case["proof"] or []]
        holds = verify_consistency(case["size1"], case["size2"], proof, _bytes(case["root1"]), _bytes(case["root2"]))
        assert holds is not case["wantErr"], name


def test_hashes_are_domain_separated() -> None:
    assert leaf_hash(b"ab") == hashlib.sha256(b"\x00ab").digest()
    assert node_hash(b"a", b"b") == hashlib.sha256(b"\x01ab").digest()
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_every_tree_up_to_64() -> None:
    frontier = Frontier()
    for size in range(65):
        assert frontier.root == root(LEAVES[:size]) == ROOTS[size]
        assert Frontier.from_bytes(size, frontier.to_bytes()) == frontier
        if size < 64:
            frontier = frontier.append([LEAVES[size]])


def test_every_inclusion_proof_up_to_64() -> None:
    for size in range(1, 65):
        for index in range(size):
            proof = inclusion_proof(LEAVES[:size], index)
            assert verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
            assert not verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size - 1])
            assert not verify_inclusion(index, size, leaf_hash(b"other"), proof, ROOTS[size])
            assert not verify_inclusion(index + 1, size, LEAVES[index], proof, ROOTS[size])
            assert not verify_inclusion(index, size, LEAVES[index], [*proof, LEAVES[0]], ROOTS[size])
            assert not proof or not verify_inclusion(index, size, LEAVES[index], proof[:-1], ROOTS[size])


def test_every_consistency_proof_up_to_64() -> None:
    for size in range(1, 65):
        for old in range(1, size + 1):
            proof = consistency_proof(LEAVES[:size], old)
            assert verify_consistency(old, size, proof, ROOTS[old], ROOTS[size])
            assert not verify_consistency(old, size, proof, ROOTS[old - 1], ROOTS[size])
            assert not verify_consistency(old, size, proof, ROOTS[old], ROOTS[size - 1])
            assert not verify_consistency(old, size, [*proof, LEAVES[0]], ROOTS[old], ROOTS[size])
            assert not proof or not verify_consistency(old, size, proof[:-1], ROOTS[old], ROOTS[size])


@given(st.integers(2, 64), st.data())
def test_one_flipped_byte_of_a_proof_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(LEAVES[:size], index)
    which, at = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 31))
    broken = bytearray(proof[which])
    broken[at] ^= data.draw(st.integers(1, 255))
    proof[which] = bytes(broken)
    assert not verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])


@given(st.integers(0, 2**64), st.integers(0, 2**64), st.lists(st.binary(max_size=40), max_size=70))
def test_any_input_is_answered(first: int, second: int, proof: list[bytes]) -> None:
    assert not verify_inclusion(first, second, b"x" * 32, proof, b"y" * 32)
    assert not verify_consistency(first, second, proof, b"x" * 32, b"y" * 32)


def test_random_large_trees() -> None:
    leaves = [leaf_hash(n.to_bytes(4, "big")) for n in range(3001)]
    head = root(leaves)
    for index in (0, 1, 1023, 1024, 2047, 2048, 2999, 3000):
        assert verify_inclusion(index, 3001, leaves[index], inclusion_proof(leaves, index), head)
        assert verify_consistency(
            index + 1, 3001, consistency_proof(leaves, index + 1), root(leaves[: index + 1]), head
        )


def test_empty_old_tree_is_refused() -> None:
    assert not verify_consistency(0, 5, [], EMPTY_ROOT, ROOTS[5])
    assert not verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)


def test_proofs_outside_the_tree_are_refused() -> None:
    for call in (lambda: inclusion_proof(LEAVES, 64), lambda: inclusion_proof([], 0), lambda: inclusion_proof([], -1)):
        with pytest.raises(Refusal):
            call()
    for size in (0, 65):
        with pytest.raises(Refusal):
            consistency_proof(LEAVES, size)
    with pytest.raises(Refusal, match="frontier of size 3"):
        Frontier.from_bytes(3, b"x" * 32)
