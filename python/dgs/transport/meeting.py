# SPDX-License-Identifier: Apache-2.0
"""Where gloo's links meet: the server's TCPStore, or that of torchrun's agent where it owns the port."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from datetime import timedelta
from typing import Any

from ..bounded import within
from ..errors import LinkClosedError, LinkTimeoutError, PortInUseError, ServerUnreachableError
from .address import is_loopback, is_own_name, listen, resolve, routed
from .base import Listener
from .gloo import SERVER, WORKER, GlooLink
from .mailbox import Store, dist, first_line

log = logging.getLogger(__name__)

_STORE_TIMEOUT = timedelta(seconds=30)
_HANDSHAKE = timedelta(seconds=5)
_PATIENT = timedelta(days=20)  # in milliseconds it must fit 31 bits
_ITSELF = 10.0  # seconds that a server tries to reach itself
_SAY_EVERY = 3.0  # seconds to a waiting worker's first message; twice as long to each that follows
_SAY_AT_LEAST_EVERY = 60.0


class GlooListener(Listener):
    """The server's store, listening at `host`:`port` (port 0: any), or torchrun's where its agent owns the port.

    Args:
        host: the master's name or address; loopback binds to loopback alone.
        address: the local address for gloo; by default the one that routes to each worker.
        agent_run: where the port is torchrun's agent's, a name for the run in its store; its store is used then.

    Raises:
        PortInUseError: the port is taken.
        ServerUnreachableError: `host` does not resolve, or does not lead here.
    """

    def __init__(
        self, host: str, port: int, *, address: str | None = None, agent_run: str | None = None
    ) -> None:
        self._address, self._run = address, _prefix(agent_run)
        self._devices: dict[str, Any] = {}
        self._left: deque[str] = deque()  # by sessions that are over, whatever became of their workers
        if agent_run is not None:
            store: Store = _client(host, port, _STORE_TIMEOUT)
            self.port = port
        else:
            store, self.port = _serve(host, port)
        self._owner: Store | None = store
        self._store: Store | None = store.clone()
        self._seen = store.add(_tickets_seen(self._run), 0)  # by an earlier server of the same run
        self._knocked = threading.Event()
        self._ear = threading.Thread(
            target=self._listen, args=(store.clone(),), name="dgs-listener", daemon=True
        )
        self._ear.start()
        self._store.set(_serving(self._run), "1")

    def _listen(self, store: Store) -> None:
        """Waits for knocks, on a connection of its own, which such a wait occupies."""
        while self._store is not None:
            try:
                store.wait([_knock(self._run)], _PATIENT)
                store.delete_key(_knock(self._run))
            except RuntimeError as error:  # `accept` meets it too
                log.debug("no knock is heard any more: %s", first_line(error))
                return
            finally:
                self._knocked.set()

    def accept(self, timeout: timedelta) -> GlooLink | None:
        deadline = time.monotonic() + timeout.total_seconds()
        while self._store is not None:
            self._knocked.clear()  # before the look: a knock after it is heard
            try:
                link = self._next(self._store)
            except RuntimeError as error:
                raise LinkClosedError(f"the meeting point is gone: {first_line(error)}") from None
            left = deadline - time.monotonic()
            if link is not None or left <= 0:
                return link
            self._knocked.wait(left)
        return None

    def _next(self, store: Store) -> GlooLink | None:
        while self._left:
            store.delete_key(self._left.popleft())
        if store.add(_tickets(self._run), 0) <= self._seen:
            return None
        self._seen = store.add(_tickets_seen(self._run), 1)
        address = self._address or _beside
        return GlooLink(store.clone(), self._run, self._seen, SERVER, address, self._devices, self._left)

    def close(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.delete_key(_serving(self._run))
            store.set(_knock(self._run), "1")  # wakes the thread
        except RuntimeError as error:  # the agent's store may be gone before us
            log.debug("the meeting point is gone: %s", first_line(error))
        self._ear.join(_HANDSHAKE.total_seconds())  # a store that is cut off wakes nobody
        self._owner = None


def dial(
    host: str, port: int, timeout: timedelta, *, address: str | None = None, run: str | None = None
) -> GlooLink:
    """A worker's end of a new link to the server at `host`:`port`; waits for a server that is not there yet.

    Raises:
        ServerUnreachableError: no server within `timeout`.
    """
    patience = _Patience(host, port, timeout)
    store = None
    while store is None:
        _await_port(host, port, patience)
        try:
            store = _client(host, port, min(timeout, _HANDSHAKE))
        except ServerUnreachableError as error:  # it may just be dying, to be started again
            patience.wait(error)
    prefix = _prefix(run)
    try:
        while not store.check([_serving(prefix)]):
            patience.wait("the server has not begun to serve")
        ticket = store.add(_tickets(prefix), 1)
        store.set(_knock(prefix), "1")
    except RuntimeError as error:
        raise ServerUnreachableError(f"the server at {host}:{port} went away: {first_line(error)}") from None
    return GlooLink(store, prefix, ticket, WORKER, address or routed(host))


def _serve(host: str, port: int) -> tuple[Store, int]:
    if is_own_name(host) and is_loopback(host):
        log.warning(
            "%s is loopback on this machine, so only its own workers can connect; "
            "for others give its address in the network as master",
            host,
        )
    try:
        server = listen(host, port)
    except OSError as error:
        raise PortInUseError(f"cannot listen at {host}:{port}: {error.strerror or error}") from None
    address, port = resolve(host)[0], int(server.getsockname()[1])
    try:
        _reach_itself(address, port)  # the store would try for 30 s, and not say what is wrong
        store = dist.TCPStore(
            address,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=_STORE_TIMEOUT,
            master_listen_fd=server.detach(),
        )
    except (OSError, RuntimeError) as error:
        server.close()
        raise ServerUnreachableError(
            f"the server cannot reach itself at {host}:{port}: {first_line(error)}. master must be this machine's "
            "own address as others see it (`ip -4 addr`), or one that leads back to it"
        ) from None
    return store, port


def _reach_itself(address: str, port: int) -> None:
    deadline = time.monotonic() + _ITSELF
    while True:
        left = deadline - time.monotonic()
        try:
            socket.create_connection((address, port), timeout=max(left, 0.1)).close()
            return
        except OSError:
            if left <= 0.5:  # until then: what leads back may take a moment to see that someone listens
                raise
            time.sleep(0.5)


def _prefix(run: str | None) -> str:
    return f"dgs/{run or 'run'}"


def _tickets(run: str) -> str:
    return f"{run}/tickets"


def _tickets_seen(run: str) -> str:
    return f"{run}/tickets_seen"


def _knock(run: str) -> str:
    return f"{run}/knock"


def _serving(run: str) -> str:
    return f"{run}/serving"


def _beside(worker: str) -> str:
    return "127.0.0.1" if is_loopback(worker) and ":" not in worker else routed(worker)


class _Patience:
    """Waits a little at a time until a deadline, and says now and then, ever more rarely, what for."""

    def __init__(self, host: str, port: int, timeout: timedelta) -> None:
        self._where = f"{host}:{port}"
        self._said, self._silence = time.monotonic(), _SAY_EVERY
        self._deadline = self._said + timeout.total_seconds()

    def wait(self, why: object) -> None:
        now = time.monotonic()
        if now > self._deadline:
            raise ServerUnreachableError(
                f"no server at {self._where}: {str(why).rstrip('.')}. "
                "Is it started, and the port open on its machine?"
            )
        if now - self._said > self._silence:
            left = self._deadline - now
            log.warning("waiting for the server at %s (%s), %.0f s more", self._where, why, left)
            self._said, self._silence = now, min(2 * self._silence, _SAY_AT_LEAST_EVERY)
        time.sleep(0.1)


def _await_port(host: str, port: int, patience: _Patience) -> None:
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
            return
        except OSError as error:
            patience.wait(error)


def _client(host: str, port: int, timeout: timedelta) -> Store:
    timeout = max(timeout, timedelta(seconds=1))

    def connect() -> Store:
        return dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)

    # A store's client has no limit in time against a server that accepts and is then silent; against one that refuses
    # it tries for up to three times its timeout, and must not be abandoned before.
    limit = 3 * timeout.total_seconds() + 1
    try:
        store = within(limit, connect, lambda _: None, "it did not answer")
    except (RuntimeError, LinkTimeoutError) as error:
        raise ServerUnreachableError(
            f"what listens at {host}:{port} is frozen, or not a server of this library: {first_line(error)}"
        ) from None
    store.set_timeout(_STORE_TIMEOUT)
    return store
