"""SHA-256 identities: of bytes, of plain data, of files and folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def sha256(data: bytes) -> str:
    """Lowercase hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def plain_digest(value: object) -> str:
    """SHA-256 of JSON-able plain data with sorted keys; the identity of recipes and options.

    Not for ledger leaves: those use the restricted canonical JSON of `poa.ledger.encoding`.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode())


def file_digest(path: Path) -> str:
    """SHA-256 of one file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over the named files of a folder: names, sizes and bytes, in sorted order."""
    return plain_digest([[name, file_digest(folder / name)] for name in sorted(names)])
