"""Which versions of whom a result belongs to."""

from __future__ import annotations

from importlib.metadata import version

from poa.benchmarks import environment

PEERS = ("captum", "dattri", "kronfluence", "traker", "bergson")


def versions() -> dict[str, str | int]:
    """poa's description of the machine and its libraries, and the peers' versions."""
    return environment() | {name: version(name) for name in PEERS}
