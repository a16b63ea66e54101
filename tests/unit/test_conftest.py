"""The network guard of the tests is itself tested."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)])
def test_connections_to_other_machines_are_refused(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as link:
        with pytest.raises(AssertionError, match="off the network"):
            link.connect(address)
        with pytest.raises(AssertionError, match="off the network"):
            link.connect_ex(address)
    with socket.socket(family, socket.SOCK_DGRAM) as link, pytest.raises(AssertionError, match="off the network"):
        link.sendto(b"x", address)


def test_names_of_other_machines_are_not_looked_up() -> None:
    with pytest.raises(AssertionError, match="off the network"):
        socket.getaddrinfo("host.invalid", 80)


def test_loopback_and_unix_sockets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as link:
            assert link.getpeername()[0] == "127.0.0.1"
    monkeypatch.chdir(tmp_path)  # a path for AF_UNIX has at most about 100 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen()
        with socket.socket(socket.AF_UNIX) as link:
            link.connect("s")


def test_the_cache_is_not_the_users(tmp_path_factory: pytest.TempPathFactory) -> None:
    from poa.files import cache_home

    if "POA_TEST_CACHE" not in os.environ:
        assert tmp_path_factory.getbasetemp() in (cache_home().parent, *cache_home().parent.iterdir())
