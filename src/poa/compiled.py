"""Compilation of the kernels: one decorator, and a cache folder that can always be written."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from poa.files import cache_home

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """`function` compiled by numba, releasing the interpreter lock, its machine code kept between processes.

    numba refuses to decorate where neither `NUMBA_CACHE_DIR`, the package's folder nor the user's cache can be written
    (a read-only image); then a folder chosen here is used, for these functions alone.
    """
    import numba
    from numba.core import config

    decorate = cast("Callable[[Callable[P, R]], Callable[P, R]]", numba.njit(cache=True, nogil=True))
    try:
        return decorate(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    with _caching_in(_own_folder(), config):
        return decorate(function)


@contextmanager
def _caching_in(folder: Path, config: Any) -> Generator[None]:
    # Set only while decorating: the setting is global and other libraries' functions are none of our business.
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache
def _own_folder() -> Path:
    """`cache_home()/numba`, or a fresh private folder that vanishes with the process.

    Never a guessable name in the shared temporary folder: numba unpickles what it finds in its cache.
    """
    lasting = cache_home() / "numba"
    if _writable(lasting):
        return lasting
    passing = Path(tempfile.mkdtemp(prefix="poa-numba-"))
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    return passing


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
