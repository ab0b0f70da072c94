# SPDX-License-Identifier: Apache-2.0
"""SIGTERM, as a scheduler or a spot instance sends it, as an orderly end of the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM  # of a process that it ended, as a shell says it


class Termination:
    """Raises SystemExit(143) in the main thread when SIGTERM comes: at once, or after what `deferred` encloses.

    What is deferred is not awaited when a second SIGTERM comes, or where `urgent` says so: the server is gone.
    """

    def __init__(self) -> None:
        self.urgent: Callable[[], bool] = lambda: False
        self.told: Callable[[], None] = lambda: None  # called by the handler, and so may not wait for a lock
        self._process = os.getpid()
        self._depth = 0
        self._installed = False
        self.asked = False

    def install(self) -> None:
        """Handles SIGTERM from now on, if this is the main thread and nobody else does."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handle)
            self._installed = True

    def remove(self) -> None:
        """Puts the default handler back, unless someone has installed another meanwhile."""
        if self._installed and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._installed = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What must not be cut in two: a SIGTERM that comes meanwhile ends the process after it."""
        self._depth += 1
        came = self.asked
        try:
            yield
        finally:
            self._depth -= 1
            if self.asked and not came and not self._depth:
                raise SystemExit(STATUS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked, as a data loader's are: it has no session to end
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        again, self.asked = self.asked, True
        if not again:
            self.told()
        if not self._depth or again or self.urgent():
            raise SystemExit(STATUS)
