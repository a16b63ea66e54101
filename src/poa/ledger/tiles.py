"""C2SP tlog-tiles: how a log's hashes and entries are cut into static files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poa.ledger.merkle import node_hash
from poa.ledger.refusal import Refusal

WIDTH = 256


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """`tile/<level>/<index>[.p/<width>]`; index 1234067 is x001/x234/067; level "entries" is an entry bundle."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def spans(count: int) -> Iterator[tuple[int, int]]:
    """(index, width) of the tiles that hold `count` things; an empty tile never exists."""
    for index in range(count // WIDTH):
        yield index, WIDTH
    if count % WIDTH:
        yield count // WIDTH, count % WIDTH


def hash_tiles(leaves: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every hash tile over leaf hashes; only full tiles are hashed upward."""
    level, nodes = 0, list(leaves)
    while nodes:
        for index, width in spans(len(nodes)):
            first = index * WIDTH
            yield tile_path(level, index, width), b"".join(nodes[first : first + width])
        level += 1
        nodes = [_full_root(nodes[i * WIDTH : (i + 1) * WIDTH]) for i in range(len(nodes) // WIDTH)]


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries behind their 16-bit big-endian lengths."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def read_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle; raises `Refusal` where there are more, fewer or spare bytes."""
    entries = readable(data)
    if len(entries) != width or bundle(entries) != data:
        raise Refusal("bundle", f"the bundle holds {len(entries)} whole entries, must hold {width} and nothing else")
    return entries


def readable(data: bytes) -> list[bytes]:
    """The whole entries that a possibly damaged bundle begins with."""
    entries: list[bytes] = []
    at = 0
    while (end := at + 2 + int.from_bytes(data[at : at + 2], "big")) <= len(data):
        entries.append(data[at + 2 : end])
        at = end
    return entries


def _full_root(nodes: Sequence[bytes]) -> bytes:
    level = list(nodes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]
