"""Objects from the configuration's `_target_`s, with a user's mistakes still said in one line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from poa.errors import PoaError
from poa.pipeline.typed import check_types


def made(config: Any, where: str = "", **options: Any) -> Any:
    """`hydra.utils.instantiate`, but a `PoaError` raised by what is made arrives as itself.

    Hydra wraps every exception into its own, which the command line would rightly take for a bug. Options of a
    dataclass are checked first: an unknown one and a wrong type are named, as `where`.NAME.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import get_object, instantiate

    told = {key: value for key, value in config.items() if not str(key).startswith("_")}
    if config.get("_target_") and is_dataclass(kind := get_object(config["_target_"])):
        where = where or str(config["_target_"]).rpartition(".")[2]
        known = [field.name for field in fields(kind)]
        for key in told:
            if key not in known:
                raise PoaError(
                    f"{where} has no option {key!r}; it has {', '.join(known) or 'none'} (where an experiment sets it: "
                    f"~{where}.{key})"
                )
        check_types(kind, told, where)
    try:
        return instantiate(config, **options)
    except InstantiationException as error:
        if isinstance(error.__cause__, PoaError):
            raise error.__cause__ from None
        raise
