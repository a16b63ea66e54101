"""The methods to hold against the laws: poa's own and those that installed packages announce."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.protocols import Attributor

GROUP = "poa.methods"


def builtins() -> dict[str, Any]:
    """poa's own methods by name."""
    from poa.methods import available

    return available()


def announced() -> tuple[str, ...]:
    """Names in the entry-point group `poa.methods`, sorted; nothing is imported."""
    return tuple(sorted(entry_points(group=GROUP).names))


def subject(name: str) -> Attributor:
    """The method `name` with its default hyper-parameters.

    Raises `PoaError` that names an unknown method, a plug-in that cannot be imported and one without defaults.
    """
    own = builtins()
    if name in own:
        return cast("Attributor", own[name]())
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise PoaError(f"no method {name!r}; known are {sorted((*own, *announced()))}")
    try:
        return cast("Attributor", found[0].load()())
    except Exception as error:
        raise PoaError(f"method {name!r} ({found[0].value}) cannot be made: {type(error).__name__}: {error}") from error
