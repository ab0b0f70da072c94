# SPDX-License-Identifier: Apache-2.0
"""What the two ends of a link tell each other through a TCPStore, before they have a group of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed

from ..errors import LinkClosedError, LinkTimeoutError

log = logging.getLogger(__name__)

dist: Any = torch.distributed  # its gloo and store classes are untyped
Store = Any

_LATE = timedelta(seconds=20)  # within which a wait that is over is woken

T = TypeVar("T")


class Mailbox:
    """Texts under the keys of one ticket. One thread uses it at a time, but `interrupt`.

    A wait occupies the connection. One that runs out has C++ print warnings, so it is ended like one that is
    interrupted: through another connection, by an empty text where none has come.

    Args:
        store: a connection that nothing else uses.
        run: the prefix of the run's keys.
        ticket: the number under which worker and server meet.
    """

    def __init__(self, store: Store, run: str, ticket: int) -> None:
        self._store: Store | None = store
        self._prefix = f"{run}/{ticket}"
        self._awaited: str | None = None
        self.interrupted = False

    @property
    def closed(self) -> bool:
        return self._store is None

    def key(self, *parts: object) -> str:
        return "/".join(map(str, (self._prefix, *parts)))

    def put(self, key: str, text: str) -> None:
        """Raises LinkClosedError."""
        self.use(lambda store: store.set(key, text))

    def look(self, key: str) -> bytes | None:
        """What is under a key, if anything is; it stays. Raises LinkClosedError."""
        return bytes(self.use(lambda store: store.get(key))) if self.use(lambda s: s.check([key])) else None

    def take(self, key: str, timeout: timedelta) -> bytes:
        """What is put under a key, once it is there. Raises LinkClosedError, LinkTimeoutError."""
        self._wait(key, timeout)
        text = bytes(self.use(lambda store: store.get(key)))
        self.use(lambda store: store.delete_key(key))
        if text:
            return text
        if self.interrupted:
            raise LinkClosedError("this end is closed")
        raise LinkTimeoutError(f"the other end said nothing within {timeout.total_seconds():g} s")

    def _wait(self, key: str, timeout: timedelta) -> None:
        timer = threading.Timer(timeout.total_seconds(), self._wake, [key])
        timer.daemon = True
        self._awaited = key  # `interrupt` looks at the one when it has set the other
        try:
            if self.interrupted:
                raise LinkClosedError("this end is closed")
            timer.start()
            self.use(lambda store: store.wait([key], timeout + _LATE))
        finally:
            self._awaited = None
            timer.cancel()

    def _wake(self, key: str) -> None:
        try:
            self.use(lambda store: store.clone().append(key, ""))
        except LinkClosedError as error:  # the wait has ended too
            log.debug("%s: %s", key, error)

    def interrupt(self) -> None:
        """Ends a wait of another thread, and those to come, with LinkClosedError."""
        self.interrupted = True
        awaited = self._awaited
        if awaited is not None:
            self._wake(awaited)

    def use(self, action: Callable[[Store], T]) -> T:
        """What `action` returns of the connection. Raises LinkClosedError when it is closed or lost."""
        store = self._store
        if store is None:
            raise LinkClosedError("this end is closed")
        try:
            return action(store)
        except RuntimeError as error:
            raise LinkClosedError(f"the meeting point is gone: {first_line(error)}") from None

    def close(self) -> None:
        """Frees the connection."""
        self.interrupted = True
        self._store = None


def first_line(error: BaseException) -> str:
    """What went wrong, without the trace that torch's C++ appends."""
    return str(error).partition("\n")[0].partition(". This is typically")[0]
