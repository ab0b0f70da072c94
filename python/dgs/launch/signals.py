# SPDX-License-Identifier: Apache-2.0
"""Signals as something to read, beside the pipes of the children."""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Self

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """In a `with` block of the main thread, those that end a process, and SIGCHLD, are read instead of acted on.

    What is ignored, as SIGHUP is under nohup, stays so.
    """

    def __enter__(self) -> Self:
        self._read, write = socket.socketpair()
        self._write = write
        for end in (self._read, write):
            end.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        ends = [number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, _noted) for number in (*ends, signal.SIGCHLD)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        """Readable when one has come."""
        return self._read.fileno()

    def take(self) -> list[signal.Signals]:
        """Those that have come."""
        try:
            came = self._read.recv(4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in came if number in self._handlers]  # not a timer's, say


def _noted(number: int, frame: FrameType | None) -> None:
    """A handler of Python's is what makes it write to the wakeup socket."""
