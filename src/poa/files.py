"""Files and folders that are either whole or absent."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from poa.errors import PoaError


def cache_home() -> Path:
    """Where expensive results live between runs: `$POA_CACHE`, else `$XDG_CACHE_HOME/poa`, else `~/.cache/poa`."""
    if chosen := os.environ.get("POA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "poa"


@contextmanager
def alone(target: Path) -> Generator[None]:
    """Keep other processes that make `target` out until the block ends; who waits should look again what is there.

    The lock is the operating system's and goes with the process, however that ends. Its file lies in the cache.
    """
    folder = cache_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:32]
    with open(folder / name, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """Yield an empty folder beside `target` that replaces it on success and vanishes on any failure.

    A full disk becomes a `PoaError` that names the folder; nothing half-written stays behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        old = None
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / "old"
            os.replace(target, old)
        os.replace(work, target)
        if old is not None:
            shutil.rmtree(old.parent)
    except OSError as error:
        raise PoaError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_atomic(target: Path, data: bytes) -> None:
    """Write `data` to `target` in one step: a reader sees the old file or the new one, never a part."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, target)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise PoaError(f"cannot write {target}: {error.strerror or error}") from error
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
