# SPDX-License-Identifier: Apache-2.0
"""The transport contract: what a link between one worker and the server does, whatever carries it.

A link begins with JSON messages (`tell`, `hear`): the hello, the answer. After `open` on both ends it carries frames
(docs/wire_format.md). One thread uses a link at a time, except that `interrupt`, `beat` and `silence` may be called
from any. A TransportError from `send` or `receive` leaves the link dead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from torch import Tensor

MAX_JSON = 4 << 20


class Link(ABC):
    """One end of a connection between a worker and the server."""

    @abstractmethod
    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a JSON message, before `open`. Raises TransportError."""

    @abstractmethod
    def hear(self, timeout: timedelta) -> dict[str, Any]:
        """The next JSON message, before `open`. Raises LinkTimeoutError, ProtocolError if it is no JSON object."""

    @abstractmethod
    def open(self, session: str, cap: int, timeout: timedelta) -> None:
        """Turns to frames of at most `cap` bytes of payload. Both ends call it, with the same session and cap."""

    @abstractmethod
    def send(self, frame: Tensor, timeout: timedelta) -> None:
        """Sends a whole frame, uint8 [64 + payload]. Its memory may be reused on return.

        Raises FrameTooLargeError (nothing was sent, the link lives), LinkClosedError, LinkTimeoutError.
        """

    def ask(self, frame: Tensor, timeout: timedelta) -> Iterator[Tensor]:
        """Sends a frame, whose memory stands until the last of the frames that come: these, each as by `receive`.

        The other end may send others before it receives this one, and cannot do so unless they are taken.
        """
        self.send(frame, timeout)
        while True:
            yield self.receive(timeout)

    @abstractmethod
    def receive(self, timeout: timedelta | None) -> Tensor:
        """The next frame, uint8 [64 + payload], with its header verified; valid until the next `receive`.

        None waits until the peer sends, dies, or `interrupt` is called. Raises LinkClosedError, LinkTimeoutError,
        FrameTooLargeError (the header declares more than the cap), FrameError (the header is not one).
        """

    @abstractmethod
    def beat(self) -> None:
        """Tells the other end that this process lives."""

    @abstractmethod
    def silence(self) -> float:
        """Seconds since the other end was last seen to beat (or since `open`)."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ends a `receive` of another thread with LinkClosedError; the link is dead."""

    @abstractmethod
    def close(self) -> None:
        """Frees sockets, threads and files. May be called twice."""


class Listener(ABC):
    """The server's end of the meeting point."""

    @abstractmethod
    def accept(self, timeout: timedelta) -> Link | None:
        """The next worker that asks to join, or None when none came in time."""

    @abstractmethod
    def close(self) -> None:
        """Frees the port. May be called twice."""
