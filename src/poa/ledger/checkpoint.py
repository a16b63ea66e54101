"""C2SP tlog-checkpoint: the signed head of a log, three lines of text and no extension."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from poa.ledger.note import Signer, Verifier, strict_base64
from poa.ledger.refusal import Refusal

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """The head of log `origin`: `size` entries under the 32-byte `root`; `note` is the signed text it came from."""

    origin: str
    size: int
    root: bytes
    note: str = ""

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def signed(self, signer: Signer) -> Checkpoint:
        """The same head with a note by the log key, whose name must be the origin."""
        if signer.name != self.origin:
            raise Refusal("checkpoint", f"the log key is named {signer.name!r}, the log {self.origin!r}")
        return Checkpoint(self.origin, self.size, self.root, signer.sign(self.text))

    @staticmethod
    def open(note: str, verifier: Verifier) -> Checkpoint:
        """The head in a note signed by the log key; raises `Refusal` on a bad signature, format or origin."""
        text = verifier.open(note)
        lines = text.split("\n")
        if len(lines) != 4 or not _SIZE.fullmatch(lines[1]):
            raise Refusal("checkpoint", "a checkpoint must be origin, size and root, one line each, and nothing more")
        root = strict_base64(lines[2])
        if lines[0] != verifier.name or len(root) != 32:
            raise Refusal("checkpoint", f"root of {len(root)} bytes under origin {lines[0]!r}, not {verifier.name!r}")
        return Checkpoint(lines[0], int(lines[1]), root, note)
