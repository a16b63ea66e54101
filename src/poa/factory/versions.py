"""The library versions that a training result depends on."""

from __future__ import annotations

import platform
from importlib.metadata import version


def library_versions() -> dict[str, str]:
    """Versions that may change the numbers of a training run; part of every recipe digest."""
    names = ("torch", "transformers", "peft", "tokenizers", "numpy")
    here = {"python": platform.python_version(), "machine": platform.machine()}
    return {name: version(name) for name in names} | here
