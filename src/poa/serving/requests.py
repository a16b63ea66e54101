"""A completion request as the HTTP interface takes it: checked field by field, nothing ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from poa.errors import PoaError
from poa.serving.generate import Sampling

_FIELDS = ("model", "prompt", "max_tokens", "temperature", "top_p", "seed")


class BadRequest(PoaError):
    """A request that is wrong in the field `param`."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Completion:
    """prompt: what to continue; model: the adapter that is expected to answer, empty for whichever is served."""

    prompt: str
    sampling: Sampling
    model: str = ""

    @staticmethod
    def read(body: Any) -> Completion:
        """Raises `BadRequest` naming the first field that is missing, unknown, unsupported or wrong."""
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        fields: Mapping[str, Any] = {str(name): value for name, value in body.items()}
        for name in fields:
            if name not in _FIELDS:
                near = get_close_matches(name, _FIELDS, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f" ({', '.join(_FIELDS)} are)"
                raise BadRequest(f"field {name!r} is not supported{hint}", name)
        prompt, model = fields.get("prompt"), fields.get("model", "")
        if not isinstance(prompt, str):
            raise BadRequest("prompt must be a string", "prompt")
        if not isinstance(model, str):
            raise BadRequest("model must be a string", "model")
        return Completion(prompt, _sampling(fields), model)


def _sampling(fields: Mapping[str, Any]) -> Sampling:
    limit, seed = (_number(fields, name, default, int) for name, default in (("max_tokens", 64), ("seed", 0)))
    heat, nucleus = (_number(fields, name, 1.0, float) for name in ("temperature", "top_p"))
    for param, values in (
        ("max_tokens", (limit, 0.0, 1.0, 0)),
        ("temperature", (1, heat, 1.0, 0)),
        ("top_p", (1, 0.0, nucleus, 0)),
        ("seed", (1, 0.0, 1.0, seed)),
    ):
        try:
            Sampling(int(values[0]), values[1], values[2], int(values[3]))
        except PoaError as error:
            raise BadRequest(str(error).replace("max_new_tokens", "max_tokens"), param) from error
    return Sampling(int(limit), heat, nucleus, int(seed))


def _number(fields: Mapping[str, Any], name: str, default: float, kind: type[int] | type[float]) -> float:
    value = fields.get(name, default)
    # True is an int to Python, not to a client.
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise BadRequest(f"{name} must be {'an integer' if kind is int else 'a number'}", name)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise BadRequest(f"{name} is out of range", name)
    return value
