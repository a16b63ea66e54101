"""Print the versions that results depend on."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import poa

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "numpy", "pyarrow", "numba", "faiss-cpu", "hydra-core")


def configure(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:
    """Name and version per line; read from package metadata, so nothing heavy is imported."""
    print(f"poa {poa.__version__}")
    print(f"python {platform.python_version()} ({platform.system()} {platform.machine()})")
    for name in LIBRARIES:
        print(f"{name} {_installed(name)}")
    return 0


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
