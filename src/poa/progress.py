"""One progress bar for everything that takes longer than a moment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar on stderr; silent where stderr is not a terminal."""
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, leave=False, disable=not sys.stderr.isatty(), file=sys.stderr)
