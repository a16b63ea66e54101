"""What holds for every test: no network, and a cache of its own."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest


class NetworkRefused(AssertionError):
    """A test tried to reach another machine."""


def is_local(family: int, address: Any) -> bool:
    """Whether a socket address stays on this machine: a path, localhost or a loopback number."""
    if family == getattr(socket, "AF_UNIX", -1) or not isinstance(address, tuple):
        return True
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


refusing = True


@pytest.fixture(scope="session", autouse=True)
def refuse_network() -> Iterator[None]:
    """Connections, datagrams and name look-ups that leave this machine raise `NetworkRefused`."""
    patch = pytest.MonkeyPatch()

    def guarded(name: str, where: int) -> None:
        real = getattr(socket.socket, name)

        def call(self: socket.socket, *args: Any) -> Any:
            if refusing and not is_local(self.family, args[where]):
                raise NetworkRefused(f"socket.{name} to {args[where]!r}: tests run off the network")
            return real(self, *args)

        patch.setattr(socket.socket, name, call)

    guarded("connect", 0)
    guarded("connect_ex", 0)
    guarded("sendto", -1)
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if refusing and host is not None and not is_local(socket.AF_INET, (host, 0)):
            raise NetworkRefused(f"name look-up of {host!r}: tests run off the network")
        return look_up(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def allow_network_where_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests marked `network` may connect; they run only when asked for."""
    global refusing
    refusing = request.node.get_closest_marker("network") is None
    yield
    refusing = True


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`POA_CACHE` is a folder of this session, or `POA_TEST_CACHE` to keep expensive results between sessions."""
    patch = pytest.MonkeyPatch()
    base = tmp_path_factory.getbasetemp()
    # The workers of one parallel session share what they make: caches are written atomically.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    patch.setenv("POA_CACHE", os.environ.get("POA_TEST_CACHE") or str(shared / "poa-cache"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.setenv(name, "1")
    yield
    patch.undo()
