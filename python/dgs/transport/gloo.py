# SPDX-License-Identifier: Apache-2.0
"""Links over torch.distributed's gloo: a two-rank group per worker, met through a TCPStore.

A worker takes a ticket in the store, and both sides exchange JSON under the ticket's keys; `open` builds the group.
gloo aborts the process when a message is larger than the buffer posted for it, so a frame travels as its 64-byte
header and then exactly the payload that the header declares.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from dgs_ext import wire

from ..errors import (
    LinkClosedError,
    LinkTimeoutError,
    PortInUseError,
    ServerUnreachableError,
    TransportError,
)
from .address import is_loopback, listen, routed
from .base import Link, Listener
from .frames import check_cap, parse_json

log = logging.getLogger(__name__)

dist: Any = torch.distributed  # whose stubs lack the stores and gloo's options
Store = Any

_POLL = 0.01
_FOREVER = timedelta(days=365)
_STORE_TIMEOUT = timedelta(seconds=30)
_HEADER_TAG, _PAYLOAD_TAG, _WAKE_TAG = 0, 1, 2
_SERVER, _WORKER = 0, 1


class GlooLink(Link):
    """One end of a session. Owns a store connection of its own and, once open, a two-rank group.

    Args:
        store: a connection that nothing else uses.
        run: the prefix of the run's keys.
        ticket: the number under which worker and server meet.
        rank: 0 on the server, 1 on the worker.
        address: the local address for gloo, or a function of the worker's address that gives it.
    """

    def __init__(
        self, store: Store, run: str, ticket: int, rank: int, address: str | Callable[[str], str]
    ) -> None:
        self._store, self._run, self._rank, self._address = store, run, rank, address
        self._ticket = ticket
        self._told = self._heard = 0
        self._group: Any = None
        self._cap = 0
        self._buffer = torch.empty(wire.HEADER_BYTES, dtype=torch.uint8)
        self._interrupted = False
        self._beats, self._last_beat, self._seen = 0, b"", time.monotonic()

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, (self._run, self._ticket, *parts)))

    def tell(self, message: Mapping[str, Any]) -> None:
        self._on_store(lambda: self._store.set(self._key(self._rank, self._told), json.dumps(message)))
        self._told += 1

    def hear(self, timeout: timedelta) -> dict[str, Any]:
        text = self._take(self._key(1 - self._rank, self._heard), timeout)
        self._heard += 1
        return parse_json(text)

    def _take(self, key: str, timeout: timedelta) -> bytes:
        # Polled: a wait of the store that runs out prints warnings from C++.
        deadline = time.monotonic() + timeout.total_seconds()
        while not self._on_store(lambda: self._store.check([key])):
            if self._interrupted:
                raise LinkClosedError("this end is closed")
            if time.monotonic() > deadline:
                raise LinkTimeoutError(f"the other end said nothing within {timeout.total_seconds():g} s")
            time.sleep(_POLL)
        text = self._on_store(lambda: self._store.get(key))
        self._on_store(lambda: self._store.delete_key(key))
        return bytes(text)

    def _on_store(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except RuntimeError as error:
            raise LinkClosedError(f"the meeting point is gone: {_first_line(error)}") from None

    def open(self, session: str, cap: int, timeout: timedelta) -> None:
        address = self._local_address(timeout)
        options = dist.ProcessGroupGloo._Options()
        options._threads = 1
        options._timeout = timeout
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        try:
            self._group = dist.ProcessGroupGloo(
                dist.PrefixStore(self._key("session", session), self._store), self._rank, 2, options
            )
        except RuntimeError as error:
            raise _translated(error, f"session {session} from {address}") from None
        self._cap, self._seen = cap, time.monotonic()

    def _local_address(self, timeout: timedelta) -> str:
        if callable(self._address):
            return self._address(self._take(self._key("address"), timeout).decode())
        self._on_store(lambda: self._store.set(self._key("address"), self._address))
        return self._address

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        payload = frame.numel() - wire.HEADER_BYTES
        check_cap(payload, self._cap)
        header, body = frame[: wire.HEADER_BYTES], frame[wire.HEADER_BYTES :]
        peer = 1 - self._rank
        try:
            works = [self._open_group().send([header], peer, _HEADER_TAG)]
            if payload:
                works.append(self._open_group().send([body], peer, _PAYLOAD_TAG))
            for work in works:
                work.wait(timeout)
        except RuntimeError as error:
            raise self._failure(error, "sending a frame") from None

    def receive(self, timeout: timedelta | None) -> Tensor:
        self._receive_into(self._buffer[: wire.HEADER_BYTES], _HEADER_TAG, timeout)
        payload = wire.parse_header(self._buffer[: wire.HEADER_BYTES]).payload_length
        check_cap(payload, self._cap)
        total = wire.HEADER_BYTES + payload
        if total > self._buffer.numel():
            grown = torch.empty(total + total // 4, dtype=torch.uint8)
            grown[: wire.HEADER_BYTES] = self._buffer[: wire.HEADER_BYTES]
            self._buffer = grown
        if payload:
            self._receive_into(self._buffer[wire.HEADER_BYTES : total], _PAYLOAD_TAG, timeout)
        return self._buffer[:total]

    def _receive_into(self, buffer: Tensor, tag: int, timeout: timedelta | None) -> None:
        try:
            self._open_group().recv([buffer], 1 - self._rank, tag).wait(timeout or _FOREVER)
        except RuntimeError as error:
            raise self._failure(error, "waiting for a frame") from None

    def _open_group(self) -> Any:
        if self._group is None:
            raise LinkClosedError("the link is not open")
        return self._group

    def _failure(self, error: RuntimeError, doing: str) -> TransportError:
        if self._interrupted:
            return LinkClosedError(f"this end was closed while {doing}")
        return _translated(error, doing)

    def beat(self) -> None:
        self._beats += 1
        self._on_store(lambda: self._store.set(self._key("beat"), str(self._beats)))

    def silence(self) -> float:
        if self._on_store(lambda: self._store.check([self._key("beat")])):
            beat = bytes(self._on_store(lambda: self._store.get(self._key("beat"))))
            if beat != self._last_beat:
                self._last_beat, self._seen = beat, time.monotonic()
        return time.monotonic() - self._seen

    def interrupt(self) -> None:
        self._interrupted = True
        group = self._group
        if group is None:
            return
        # Neither abort() nor shutdown() wakes a waiter; a second receive that times out ends the pair and does.
        try:
            group.recv([torch.empty(1, dtype=torch.uint8)], 1 - self._rank, _WAKE_TAG).wait(
                timedelta(milliseconds=1)
            )
        except RuntimeError as error:
            log.debug("link %d ended: %s", self._ticket, _first_line(error))

    def close(self) -> None:
        self._interrupted = True
        self._group = None


class GlooListener(Listener):
    """The server's store, listening at `host`:`port` (port 0: any), or torchrun's where its agent owns the port.

    Args:
        host: the master's name or address; loopback binds to loopback alone.
        address: the local address for gloo; by default the one that routes to each worker.
        agent_run: where the port is torchrun's agent's, a name for the run in its store; its store is used then.

    Raises:
        PortInUseError: the port is taken.
    """

    def __init__(
        self, host: str, port: int, *, address: str | None = None, agent_run: str | None = None
    ) -> None:
        self._address, self._run = address, _prefix(agent_run)
        if agent_run is not None:
            store: Store = _client(host, port, _STORE_TIMEOUT)
            self.port = port
        else:
            try:
                server = listen(host, port)
            except OSError as error:
                raise PortInUseError(f"cannot listen at {host}:{port}: {error.strerror or error}") from None
            self.port = int(server.getsockname()[1])
            store = dist.TCPStore(
                host,
                self.port,
                is_master=True,
                wait_for_workers=False,
                timeout=_STORE_TIMEOUT,
                master_listen_fd=server.detach(),
            )
        self._owner: Store | None = store
        self._store: Store | None = store.clone()
        self._seen = 0

    def accept(self, timeout: timedelta) -> GlooLink | None:
        deadline = time.monotonic() + timeout.total_seconds()
        while self._store is not None:
            if self._store.add(f"{self._run}/tickets", 0) > self._seen:
                self._seen += 1
                return GlooLink(self._store.clone(), self._run, self._seen, _SERVER, self._address or _beside)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        return None

    def close(self) -> None:
        self._store = self._owner = None


def _prefix(run: str | None) -> str:
    return f"dgs/{run or 'run'}"


def _beside(worker: str) -> str:
    return "127.0.0.1" if is_loopback(worker) and ":" not in worker else routed(worker)


def dial(
    host: str, port: int, timeout: timedelta, *, address: str | None = None, run: str | None = None
) -> GlooLink:
    """A worker's end of a new link to the server at `host`:`port`; waits for a server that is not there yet.

    Raises:
        ServerUnreachableError: no server within `timeout`.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    _await_port(host, port, deadline)
    store = _client(host, port, timeout)
    ticket = store.add(f"{_prefix(run)}/tickets", 1)
    return GlooLink(store, _prefix(run), ticket, _WORKER, address or routed(host))


def _await_port(host: str, port: int, deadline: float) -> None:
    said = time.monotonic()
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
            return
        except OSError as error:
            now = time.monotonic()
            if now > deadline:
                raise ServerUnreachableError(
                    f"no server at {host}:{port}: {error}. Is it started, and the port open on its machine?"
                ) from None
            if now - said > 3:
                log.warning(
                    "waiting for the server at %s:%d (%s), %.0f s more", host, port, error, deadline - now
                )
                said = now
        time.sleep(0.1)


def _client(host: str, port: int, timeout: timedelta) -> Store:
    try:
        return dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
    except RuntimeError as error:
        raise ServerUnreachableError(
            f"what listens at {host}:{port} is not a server of this library: {_first_line(error)}"
        ) from None


def _translated(error: RuntimeError, doing: str) -> TransportError:
    text = _first_line(error)
    if "imed out" in text or "timeout" in text.lower():
        return LinkTimeoutError(f"timed out {doing}: {text}")
    return LinkClosedError(f"the other end is gone ({doing}): {text}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(". This is typically")[0]
