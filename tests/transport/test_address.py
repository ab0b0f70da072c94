# SPDX-License-Identifier: Apache-2.0
"""This machine's addresses and ports."""

from __future__ import annotations

import logging
import socket

import pytest

from dgs.errors import ServerUnreachableError
from dgs.transport import GlooListener
from dgs.transport.address import held, is_loopback, is_own_name, listen, resolve, routed


def test_addresses() -> None:
    assert is_loopback("localhost") and is_loopback("127.0.0.1") and is_loopback("::1")
    assert not is_loopback("192.0.2.1")
    assert routed("127.0.0.1") == "127.0.0.1"
    assert resolve("192.0.2.7") == ["192.0.2.7"]
    assert not is_own_name("localhost") and not is_own_name("10.0.0.1") and not is_own_name("fe80::1")


def test_a_port_that_is_held_is_the_servers_and_nobody_elses() -> None:
    with held() as port, socket.socket() as other:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with listen("127.0.0.1", port), pytest.raises(OSError, match="in use"), held(port):
            pass
        with held(port) as again, listen("127.0.0.1", port):
            assert again == port


def test_a_master_that_is_not_local_listens_everywhere() -> None:
    try:
        address = routed("192.0.2.1")
    except ServerUnreachableError:
        pytest.skip("this machine has no address but loopback")
    with listen(address, 0) as server:
        assert server.getsockname()[0] == "0.0.0.0"


def test_a_name_of_this_machine_that_is_loopback_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real("127.0.1.1" if host == "my-host" else host, *a, **k)
    )
    assert is_loopback("my-host") and is_own_name("my-host")
    with caplog.at_level(logging.WARNING, "dgs"):
        listener = GlooListener("my-host", 0)
    listener.close()
    assert "my-host is loopback on this machine" in caplog.text
