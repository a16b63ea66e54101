"""The RFC 6962 Merkle tree: hashes, compact range, inclusion and consistency proofs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poa.ledger.refusal import Refusal

EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH = 32


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data). RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right). RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree as its complete subtrees, largest first: all that appending needs, O(log n) hashes.

    `peaks` holds one hash per set bit of `size`.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaves: Iterable[bytes]) -> Frontier:
        """The tree with further leaf hashes."""
        size, peaks = self.size, list(self.peaks)
        for leaf in leaves:
            node, position = leaf, size
            while position & 1:
                node = node_hash(peaks.pop(), node)
                position >>= 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The tree head; SHA-256 of nothing where the tree is empty."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node

    def to_bytes(self) -> bytes:
        """The peaks, one after another."""
        return b"".join(self.peaks)

    @staticmethod
    def from_bytes(size: int, data: bytes) -> Frontier:
        """What `to_bytes` wrote for a tree of `size`; raises `Refusal` where the number of hashes does not fit."""
        if len(data) != HASH * size.bit_count():
            raise Refusal("frontier", f"a frontier of size {size} has {len(data)} bytes")
        return Frontier(size, tuple(data[i : i + HASH] for i in range(0, len(data), HASH)))


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree head over leaf hashes."""
    return Frontier().append(leaves).root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf up. RFC 6962, section 2.1.1; raises `Refusal` unless 0 <= index < len(leaves)."""
    if not 0 <= index < len(leaves):
        raise Refusal("inclusion", f"no leaf {index} in a tree of {len(leaves)}")
    proof: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        split = low + _left_size(high - low)
        if index < split:
            proof.append(root(leaves[split:high]))
            high = split
        else:
            proof.append(root(leaves[low:split]))
            low = split
    return proof[::-1]


def consistency_proof(leaves: Sequence[bytes], size1: int) -> list[bytes]:
    """Proof that the first `size1` of `leaves` are a prefix of them. RFC 6962, section 2.1.2.

    Raises `Refusal` unless 0 < size1 <= len(leaves).
    """
    if not 0 < size1 <= len(leaves):
        raise Refusal("consistency", f"no proof from size {size1} to size {len(leaves)}")
    proof: list[bytes] = []
    low, high, whole = 0, len(leaves), True
    while size1 != high:
        split = low + _left_size(high - low)
        if size1 <= split:
            proof.append(root(leaves[split:high]))
            high = split
        else:
            proof.append(root(leaves[low:split]))
            low, whole = split, False
    if not whole:
        proof.append(root(leaves[low:high]))
    return proof[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], head: bytes) -> bool:
    """Whether leaf hash `leaf` is at `index` in the tree (size, head). RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size or any(len(h) != HASH for h in (leaf, head, *proof)):
        return False
    node, last = leaf, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and node == head


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], head1: bytes, head2: bytes) -> bool:
    """Whether the tree (size1, head1) is a prefix of (size2, head2). RFC 9162, section 2.1.4.2.

    `size1` = 0 is refused: an empty tree is a prefix of every tree, which is for the caller to know.
    """
    if size1 == size2 > 0:
        return not proof and head1 == head2
    if not 0 < size1 < size2 or any(len(h) != HASH for h in (head1, head2, *proof)):
        return False
    path = list(proof)
    if size1 & (size1 - 1) == 0:
        path.insert(0, head1)
    if not path:
        return False
    index, last = size1 - 1, size2 - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        index, last = index >> 1, last >> 1
    return last == 0 and old == head1 and new == head2


def _left_size(size: int) -> int:
    """The largest power of two below `size` (size > 1): where RFC 6962 splits a tree."""
    return 1 << (size - 1).bit_length() - 1
