"""The valid name that a misspelt one most resembles."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from poa.errors import PoaError


def unknown(what: str, name: str, known: Iterable[str]) -> PoaError:
    """The error for a `what` called `name` that is none of `known`: one line with the nearest and all valid names."""
    names = sorted(known)
    if not names:
        return PoaError(f"unknown {what} {name!r}: there is none to choose from")
    near = get_close_matches(name, names, 1, 0.0)[0]
    listed = ", ".join(names if len(names) <= 24 else [*names[:24], f"and {len(names) - 24} more"])
    return PoaError(f"unknown {what} {name!r}; did you mean {near!r}? (valid: {listed})")
