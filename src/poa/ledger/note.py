"""C2SP signed notes with Ed25519: a short text that a named key vouches for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from poa.errors import PoaError
from poa.ledger.durable import sync_folder
from poa.ledger.refusal import Refusal

ED25519 = b"\x01"
_SIGNATURE = re.compile("— ([^ \n]+) ([A-Za-z0-9+/]+=*)")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
_SECRET = "PRIVATE+KEY"


@dataclass(frozen=True)
class Verifier:
    """A named Ed25519 public key. Text form (vkey): `name+hash+base64(0x01 || key)`."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise PoaError(f"key name {self.name!r} must be non-empty, without spaces, control characters and +")
        check_public_key(self.key)

    @property
    def id(self) -> bytes:
        """First 4 bytes of SHA-256(name, newline, 0x01, key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.key).decode()}"

    @staticmethod
    def parse(vkey: str) -> Verifier:
        """Reads a vkey; raises `PoaError` naming what is wrong."""
        name, tag, secret = _split_key(vkey.strip(), 0)
        verifier = Verifier(name, secret)
        if verifier.id.hex() != tag:
            raise PoaError(f"verifier key of {name!r}: the hash {tag!r} does not belong to this name and key")
        return verifier

    def open(self, note: str) -> str:
        """The text of a note that this key signed.

        Lines of unknown keys are ignored; a line of this key that does not verify condemns the note. Raises `Refusal`
        with rule "note" for that, for a malformed note and for one without a signature of this key.
        """
        text, signatures = split_note(note)
        verified = False
        for name, blob in signatures:
            if name == self.name and blob[:4] == self.id:
                if not signature_holds(self.key, text.encode(), blob[4:]):
                    raise Refusal("note", f"the signature of {self.name} does not verify")
                verified = True
        if not verified:
            raise Refusal("note", f"no signature of {self.name}+{self.id.hex()}")
        return text


@dataclass(frozen=True)
class Signer:
    """A named Ed25519 secret key (32-byte seed)."""

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise PoaError(f"the seed of key {self.name!r} has {len(self.seed)} bytes, must be 32")
        if not _is_name(self.name):
            raise PoaError(f"key name {self.name!r} must be non-empty, without spaces, control characters and +")

    @staticmethod
    def generate(name: str) -> Signer:
        """A fresh key from the operating system's randomness."""
        return Signer(name, os.urandom(32))

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, bytes(SigningKey(self.seed).verify_key))

    def sign(self, text: str) -> str:
        """The note of `text`, which must end in a newline."""
        if not text.endswith("\n") or _CONTROL.search(text):
            raise PoaError("the text of a note must end in a newline and contain no control characters")
        signature = SigningKey(self.seed).sign(text.encode()).signature
        blob = base64.b64encode(self.verifier.id + signature).decode()
        return f"{text}\n— {self.name} {blob}\n"

    def save(self, path: Path) -> None:
        """Write the key to a new file that only its owner can read (mode 0600); an existing file is never replaced."""
        line = f"{_SECRET}+{self.name}+{self.verifier.id.hex()}+{base64.b64encode(ED25519 + self.seed).decode()}\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(path.parent)
        except OSError as error:
            raise PoaError(f"cannot write key file {path}: {error.strerror}") from error

    @staticmethod
    def load(path: Path) -> Signer:
        """Read a key file; refuses one that others can read."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise PoaError(f"key file {path} has mode {mode:04o}; run chmod 600 on it")
            line = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PoaError(f"cannot read key file {path}: {error}") from error
        if not line.startswith(_SECRET + "+"):
            raise PoaError(f"{path} is not a key file: it must begin with {_SECRET}")
        name, tag, seed = _split_key(line, 2)
        signer = Signer(name, seed)
        if signer.verifier.id.hex() != tag:
            raise PoaError(f"key file {path}: the hash {tag!r} does not belong to this name and key")
        return signer


def check_public_key(key: bytes) -> None:
    """Raises `PoaError` unless `key` is the canonical 32 bytes of a point of the prime-order subgroup.

    Small-order keys verify one signature for every message in some libraries and none in others, so verifiers would
    disagree about a log.
    """
    if len(key) != 32:
        raise PoaError(f"an Ed25519 public key has {len(key)} bytes, must be 32")
    if not crypto_core_ed25519_is_valid_point(key):
        raise PoaError(f"public key {key.hex()} is no Ed25519 point of prime order (small-order keys are refused)")


def signature_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes; any other length is False) over `message` is by the Ed25519 `key`."""
    if len(signature) != 64:
        return False
    try:
        VerifyKey(key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text (with its final newline) and (name, key id || signature) of every signature line; raises `Refusal`."""
    if _CONTROL.search(note):
        raise Refusal("note", "a note contains a control character")
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise Refusal("note", "a note must be text, an empty line and signature lines, each ending in a newline")
    signatures: list[tuple[str, bytes]] = []
    for line in tail[:-1].split("\n"):
        found = _SIGNATURE.fullmatch(line)
        if not found or not _is_name(found[1]):
            raise Refusal("note", f"not a signature line: {line[:80]!r}")
        blob = strict_base64(found[2])
        if len(blob) < 5:
            raise Refusal("note", f"the signature of {found[1]} is too short")
        signatures.append((found[1], blob))
    return head + "\n", signatures


def strict_base64(text: str) -> bytes:
    """Bytes of standard base64 in its one spelling; raises `Refusal` on any other (spaces, unused bits set)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("note", f"not base64: {text[:80]!r}") from error
    if base64.b64encode(data).decode() != text:
        raise Refusal("note", f"base64 with unused bits set: {text[:80]!r}")
    return data


def _is_name(name: str) -> bool:
    forbidden = any(c == "+" or c.isspace() or unicodedata.category(c) in ("Cc", "Cs") for c in name)
    return bool(name) and not forbidden


def _split_key(text: str, prefix: int) -> tuple[str, str, bytes]:
    # base64 may contain +, so only the first separators count.
    parts = text.split("+", prefix + 2)[prefix:]
    if len(parts) != 3:
        raise PoaError("a key must be name+hash+base64")
    name, tag, encoded = parts
    blob = strict_base64(encoded)
    if len(blob) != 33 or blob[:1] != ED25519:
        raise PoaError(f"key {name!r} must be an Ed25519 log key: type 0x01 and 32 bytes")
    return name, tag, blob[1:]
