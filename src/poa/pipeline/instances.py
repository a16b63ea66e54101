"""Objects from the configuration's `_target_`s, with a user's mistakes still said in one line."""

from __future__ import annotations

from typing import Any

from poa.errors import PoaError


def made(config: Any, **options: Any) -> Any:
    """`hydra.utils.instantiate`, but a `PoaError` raised by what is made arrives as itself.

    Hydra wraps every exception into its own, which the command line would rightly take for a bug.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(config, **options)
    except InstantiationException as error:
        if isinstance(error.__cause__, PoaError):
            raise error.__cause__ from None
        raise
