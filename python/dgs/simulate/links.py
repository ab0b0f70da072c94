# SPDX-License-Identifier: Apache-2.0
"""Links whose server's end is called, not waited for: the transport of a simulation (contract: transport/base.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from torch import Tensor

from dgs_ext import wire

from ..errors import LinkClosedError, LinkTimeoutError
from ..transport import Link
from ..transport.frames import check_cap


class _End(Link):
    """What both ends share: a mailbox, and no time of their own."""

    def __init__(self) -> None:
        self.inbox: deque[Any] = deque()
        self.closed = False
        self._cap = 0

    def hear(self, timeout: timedelta) -> dict[str, Any]:
        message: dict[str, Any] = self._next()
        return message

    def open(self, session: str, cap: int, timeout: timedelta) -> None:
        self._cap = cap

    def receive(self, timeout: timedelta | None) -> Tensor:
        frame: Tensor = self._next()
        return frame

    def beat(self) -> None:
        """Nobody listens: in virtual time a worker dies when it is told to."""

    def silence(self) -> float:
        return 0.0

    def interrupt(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def _check(self, frame: Tensor) -> Tensor:
        if self.closed:
            raise LinkClosedError("the other end is closed")
        check_cap(frame.numel() - wire.HEADER_BYTES, self._cap)
        return frame.clone()

    def _next(self) -> Any:
        if self.inbox:
            return self.inbox.popleft()
        if self.closed:
            raise LinkClosedError("the other end is closed")
        raise LinkTimeoutError("nothing has arrived at this virtual time")


class ServerEnd(_End):
    """The server's end: what it sends is collected in `replies`."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Tensor] = []
        self.told: list[dict[str, Any]] = []

    def tell(self, message: Mapping[str, Any]) -> None:
        self.told.append(dict(message))

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        self.replies.append(self._check(frame))

    def take(self) -> list[Tensor]:
        """What has been sent since the last call."""
        sent, self.replies = self.replies, []
        return sent


class WorkerEnd(_End):
    """The worker's end.

    While `direct` is set a frame goes to the server at once, and the answer is there before `send` returns: so a
    worker joins and leaves. Else it is kept in `outbox`, for someone who knows how long it travels.

    Args:
        meet: takes a message of the join; returns the answers.
        deliver: takes a frame; returns the replies, or None if the server has ended the session.
    """

    def __init__(
        self,
        meet: Callable[[Mapping[str, Any]], list[dict[str, Any]]],
        deliver: Callable[[Tensor], list[Tensor] | None],
    ) -> None:
        super().__init__()
        self._meet, self._deliver = meet, deliver
        self.direct = True
        self.outbox: list[Tensor] = []
        self.bytes_up = self.bytes_down = 0  # that went directly

    def tell(self, message: Mapping[str, Any]) -> None:
        self.inbox.extend(self._meet(message))

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        frame = self._check(frame)
        if not self.direct:
            self.outbox.append(frame)
            return
        replies = self.deliver(frame)
        self.bytes_up += frame.numel()
        self.bytes_down += sum(r.numel() for r in replies)
        self.inbox.extend(replies)

    def deliver(self, frame: Tensor) -> list[Tensor]:
        """Gives the server a frame; returns its replies. Closes this end if the server has closed its own."""
        replies = self._deliver(frame)
        if replies is None:
            self.close()
        return replies or []

    def take(self) -> list[Tensor]:
        """What has been sent, and not directly, since the last call."""
        sent, self.outbox = self.outbox, []
        return sent
