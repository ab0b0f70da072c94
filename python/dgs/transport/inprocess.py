# SPDX-License-Identifier: Apache-2.0
"""Links between threads of one process, for tests and simulations: the same contract, no sockets."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch import Tensor

from dgs_ext import wire

from ..errors import LinkClosedError, LinkTimeoutError
from .base import Link, Listener
from .frames import check_cap, parse_json

_END = None


class InProcessLink(Link):
    """One end of a pair of queues."""

    def __init__(self, inbox: queue.Queue[Any], outbox: queue.Queue[Any]) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._peer: InProcessLink
        self._cap = 0
        self._closed = threading.Event()
        self._beaten = time.monotonic()

    @staticmethod
    def pair() -> tuple[InProcessLink, InProcessLink]:
        """Two connected ends."""
        a: queue.Queue[Any] = queue.Queue()
        b: queue.Queue[Any] = queue.Queue()
        one, two = InProcessLink(a, b), InProcessLink(b, a)
        one._peer, two._peer = two, one
        return one, two

    def tell(self, message: Mapping[str, Any]) -> None:
        self._put(json.dumps(message))

    def hear(self, timeout: timedelta) -> dict[str, Any]:
        return parse_json(self._get(timeout))

    def open(self, session: str, cap: int, timeout: timedelta) -> None:
        self._put(("open", session))
        if self._get(timeout) != ("open", session):
            raise LinkClosedError(f"session {session}: the other end opened another")
        self._cap, self._beaten = cap, time.monotonic()

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        check_cap(frame.numel() - wire.HEADER_BYTES, self._cap)
        self._put(frame.clone())

    def receive(self, timeout: timedelta | None) -> Tensor:
        frame: Tensor = self._get(timeout)
        check_cap(wire.parse_header(frame).payload_length, self._cap)
        return frame

    def beat(self) -> None:
        self._peer._beaten = time.monotonic()

    def silence(self) -> float:
        return time.monotonic() - self._beaten

    def interrupt(self) -> None:
        self._closed.set()
        self._inbox.put(_END)

    def close(self) -> None:
        self._closed.set()
        self._outbox.put(_END)

    def _put(self, item: Any) -> None:
        if self._closed.is_set() or self._peer._closed.is_set():
            raise LinkClosedError("the other end is closed")
        self._outbox.put(item)

    def _get(self, timeout: timedelta | None) -> Any:
        if self._closed.is_set():
            raise LinkClosedError("this end is closed")
        try:
            item = self._inbox.get(timeout=None if timeout is None else timeout.total_seconds())
        except queue.Empty:
            self.close()
            raise LinkTimeoutError(f"nothing came within {timeout}") from None
        if item is _END:
            self.close()
            raise LinkClosedError("the other end is closed")
        return item


class InProcessListener(Listener):
    """A meeting point that workers of the same process reach by `dial`."""

    def __init__(self) -> None:
        self._joins: queue.Queue[InProcessLink] = queue.Queue()
        self._lock = threading.Lock()  # no link comes after `close`
        self._closed = False

    def dial(self) -> InProcessLink:
        """A worker's end of a new link."""
        mine, theirs = InProcessLink.pair()
        with self._lock:
            if self._closed:
                raise LinkClosedError("the server is closed")
            self._joins.put(theirs)
        return mine

    def accept(self, timeout: timedelta) -> InProcessLink | None:
        try:
            return self._joins.get(timeout=timeout.total_seconds())
        except queue.Empty:
            return None

    def close(self) -> None:
        with self._lock:
            self._closed = True
        while not self._joins.empty():
            self._joins.get().close()
