# SPDX-License-Identifier: Apache-2.0
"""Which of this machine's addresses to use, and whether a name is this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ServerUnreachableError


def resolve(host: str) -> list[str]:
    """The numeric addresses of `host`, or ServerUnreachableError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServerUnreachableError(f"cannot resolve the host name {host!r}: {error}") from None
    return [str(entry[4][0]) for entry in found]


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is a loopback one."""
    return all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in resolve(host))


def is_own_name(host: str) -> bool:
    """Whether `host` is a name that this machine may have in a network: neither an address nor localhost."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def routed(host: str) -> str:
    """The local address from which packets to `host` leave: a connected UDP socket's own name (nothing is sent)."""
    target = resolve(host)[0]
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError as error:
            raise ServerUnreachableError(f"no route to {host} ({target}): {error}") from None
        return str(probe.getsockname()[0])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: on loopback alone when `host` is this machine's loopback, else on every interface."""
    loopback = is_loopback(host)
    family = socket.AF_INET6 if ":" in resolve(host)[0] else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((resolve(host)[0] if loopback else "", port))
        server.listen(1024)
    except OSError:
        server.close()
        raise
    return server


@contextmanager
def held(port: int = 0) -> Iterator[int]:
    """A port of loopback that nobody else is given, nor has a connection leave from: bound, but not listened at.

    Whoever sets SO_REUSEADDR, as `listen` does, can listen there meanwhile. Port 0: a free one. Raises OSError where
    someone listens already.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        yield int(holder.getsockname()[1])
