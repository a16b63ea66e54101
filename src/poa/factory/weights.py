"""Weights that come from elsewhere: read, checked against the model that they are for, loaded, identified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from poa.digests import plain_digest, sha256
from poa.errors import Corrupt, Mismatch, PoaError

State = Mapping[str, Tensor]


def read_state(source: State | str | Path) -> dict[str, Tensor]:
    """Tensors by name: copies of a state dict's, or those of a safetensors file. Pickled weights are never read."""
    if isinstance(source, Mapping):
        wrong = [str(name) for name, value in source.items() if not isinstance(value, Tensor)]  # pyright: ignore[reportUnnecessaryIsInstance]
        if wrong:
            raise PoaError(f"{wrong[0]!r} in a state dict is no tensor; give model.state_dict() alone")
        return {name: value.detach().cpu().clone() for name, value in source.items()}
    from safetensors.torch import load_file

    path = Path(source)
    if path.suffix != ".safetensors":
        raise PoaError(f"{path} is no .safetensors file; pickled weights are never read: save them with safetensors")
    if not path.is_file():
        raise PoaError(f"{path} does not exist")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise Corrupt(f"{path} is not a safetensors file: {error}") from error


def check_state(model: nn.Module, state: State, what: str) -> None:
    """Raise `Mismatch` that names every tensor in which `state` differs from what `model` needs, or is not finite.

    A frozen parameter may be missing (the model has it), and so may one of the names of a tied parameter.
    """
    own: dict[str, Any] = model.state_dict(keep_vars=True)
    there = {id(own[name]) for name in state if name in own}
    missing = [
        name
        for name, value in own.items()
        if name not in state
        and id(value) not in there
        and not (isinstance(value, nn.Parameter) and not value.requires_grad)
    ]
    problems = [f"{name} is missing" for name in missing]
    problems += [f"{name} is unexpected" for name in state if name not in own]
    for name, value in state.items():
        if name not in own:
            continue
        mine: Tensor = own[name]
        if value.shape != mine.shape:
            problems.append(f"{name} has shape {tuple(value.shape)}, the model's has {tuple(mine.shape)}")
        elif value.dtype != mine.dtype:
            problems.append(f"{name} is {_plain(value.dtype)}, the model's is {_plain(mine.dtype)}")
        elif value.is_floating_point() and not bool(torch.isfinite(value).all()):
            problems.append(f"{name} is not finite")
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise Mismatch(f"{what} does not fit the model: " + "; ".join(problems[:8]) + more)


def load_state(model: nn.Module, state: State) -> None:
    """Put checked tensors into `model`."""
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def state_digest(state: State) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of names."""
    return plain_digest([[name, _plain(v.dtype), list(v.shape), _bytes(v)] for name, v in sorted(state.items())])


def _bytes(value: Tensor) -> str:
    # bytes of any dtype, bfloat16 included, which numpy does not know
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return sha256(flat.numpy().tobytes())


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
