# SPDX-License-Identifier: Apache-2.0
"""What a worker's exchanges are made of: what comes back, what is counted, and a frame that is under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dgs_ext.wire import Decoded

from .errors import FrameError, TransportError


@dataclass
class Traffic:
    """What went over the wire, in whole frames, and how long the worker waited for it."""

    exchanges: int = 0
    bytes_up: int = 0  # pushes
    bytes_down: int = 0  # pulls
    other_bytes: int = 0  # snapshots, buffers, goodbyes
    waiting: float = 0.0  # seconds
    staleness: int = 0  # of the last push


@dataclass(frozen=True, slots=True)
class Model:
    """The server's parameters float32 [N] and buffers, at a version; of a join, the frozen parameters as well."""

    version: int
    theta: Tensor
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to a push: whether it was applied, and the difference or model that came back."""

    applied: bool
    decoded: Decoded


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that came, unpacked, and its length in bytes."""

    decoded: Decoded
    length: int


class Flight:
    """A push that is sent at once; its reply is received when `result` is called.

    Args:
        send: sends the push.
        receive: waits for the reply.
    """

    goes_on: ClassVar[bool] = False  # when Ctrl-C ends the wait for its result

    def __init__(self, send: Callable[[], None], receive: Callable[[], Arrival]) -> None:
        self._receive = receive
        self._lost: Exception | None = None
        try:
            send()
        except (TransportError, FrameError) as error:
            self._lost = error

    def result(self) -> Arrival:
        """The reply; raises the TransportError or FrameError that either half of the exchange met."""
        if self._lost is not None:
            raise self._lost
        return self._receive()

    def landed(self, seconds: float) -> bool:
        """Whether nothing uses the link any more, waiting so long for that."""
        return True


class BackgroundFlight(Flight):
    """A push that is sent, and its reply received, in a thread of their own.

    Until `landed` the link, the frame and what the reply is unpacked into are that thread's.
    """

    goes_on = True

    def __init__(self, send: Callable[[], None], receive: Callable[[], Arrival]) -> None:
        self._arrived: Arrival | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, args=(send, receive), name="dgs-exchange", daemon=True).start()

    def _run(self, send: Callable[[], None], receive: Callable[[], Arrival]) -> None:
        try:
            send()
            self._arrived = receive()
        except BaseException as error:  # whatever it is, it belongs to the thread that asks for the result
            self._error = error
        self._ended.set()

    def result(self) -> Arrival:
        self._ended.wait()
        if self._arrived is None:
            assert self._error is not None
            raise self._error
        return self._arrived

    def landed(self, seconds: float) -> bool:
        return self._ended.wait(seconds)
