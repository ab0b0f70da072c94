# SPDX-License-Identifier: Apache-2.0
"""One worker's session on the server: receives its frames and sends the answers until the worker leaves."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from datetime import timedelta

from torch import Tensor

from dgs_ext import wire

from ..errors import LinkClosedError, TransportError
from ..observer import Exchanged
from ..transport import Link
from .exchange import Exchange, Goodbye, Shared
from .record import WorkerRecord

log = logging.getLogger(__name__)

_STUCK = 5.0  # seconds that a session which was dropped has to end by itself
_FAREWELL = timedelta(seconds=10)  # as long as a worker waits; nobody watches its beats any more


class Session:
    """Owns its link, and how it ends; `run` or `handle` is called from one thread.

    That thread receives and sends. What lies between, from unpacking to packing, is done at a desk.
    """

    def __init__(self, link: Link, worker: WorkerRecord, shared: Shared) -> None:
        self.link, self.worker, self._shared = link, worker, shared
        self.exchange = Exchange(worker, shared)
        self._echo: Tensor | None = None  # of the goodbye
        self.dropped = ""  # why the server ended it, if it did
        self._dropped_at = 0.0
        self._given_up = False
        self._turn = threading.Lock()  # held while a frame is answered
        self._dismissal = threading.Lock()  # taken once, for good
        self.thread: threading.Thread | None = None  # that runs it
        self.ended = threading.Event()  # set when nothing more will be applied

    def run(self) -> tuple[str, str]:
        """Serves the worker until its goodbye; returns the outcome that it told (a Report's), and why.

        The goodbye is answered by `farewell`.

        Raises:
            TransportError, FrameError, ProtocolError: the session is to be dropped; θ is whole.
        """
        while True:
            told = self.handle(self.link.receive(None))
            if told is not None:
                return told

    def drop(self, why: str) -> None:
        """Ends `run` from another thread, if the link can."""
        if not self.dropped:
            self.dropped, self._dropped_at = why, time.monotonic()
        self.link.interrupt()

    def give_up(self) -> bool:
        """Whether a session that was dropped and has not ended applies nothing from now on.

        gloo wakes nobody who waits for the rest of a message whose sender has died.
        """
        late = self.dropped and time.monotonic() - self._dropped_at > _STUCK
        if not late or not self._turn.acquire(blocking=False):
            return False
        self._given_up = True
        self._turn.release()
        return True

    def dismissed(self) -> bool:
        """Whether it has been dismissed before this call."""
        return not self._dismissal.acquire(blocking=False)

    def handle(self, frame: Tensor) -> tuple[str, str] | None:
        """Does what one frame asks and sends the answer, if it has one; of a goodbye returns what `run` returns."""
        with self._turn:
            if self._given_up:
                raise LinkClosedError("the server has given this session up")
            return self._handle(frame)

    def _handle(self, frame: Tensor) -> tuple[str, str] | None:
        worker, desks = self.worker, self._shared.desks
        began, exchanges, before = time.perf_counter(), worker.exchanges, worker.bytes_down
        worker.bytes_up += frame.numel()
        with ExitStack() as sent:  # the memory of what is packed is another session's after it
            if wire.parse_header(frame).kind is wire.Kind.REQUEST:
                sent.enter_context(self._shared.snapshots)  # here, and not at a desk, which others wait for
            answers = desks.run(lambda desk: self.exchange.answer(frame, desk, sent))
            if isinstance(answers, Goodbye):
                self._echo = answers.echo
                return answers.outcome, answers.reason
            for answer in answers:
                self._send(answer, self._shared.timeout)
        if worker.exchanges > exchanges:
            seconds, down = time.perf_counter() - began, worker.bytes_down - before
            made = Exchanged(self.exchange.held, worker.staleness, frame.numel(), down, seconds)
            self._shared.observer.exchanged(worker, made)
        return None

    def farewell(self) -> None:
        """Echoes the goodbye, if there was one; once the worker has left, so that it may rely on that."""
        echo, self._echo = self._echo, None
        if echo is None:
            return
        try:
            self._send(echo, min(self._shared.timeout, _FAREWELL))
        except TransportError as error:
            log.debug("worker %d did not wait for the echo of its goodbye: %s", self.worker.rank, error)

    def _send(self, frame: Tensor, timeout: timedelta) -> None:
        self.worker.bytes_down += frame.numel()
        self.link.send(frame, timeout)
