# SPDX-License-Identifier: Apache-2.0
"""When each stage of an exchange ends, told by the parts of a server that are its own but for the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor

from dgs.frames import Packer
from dgs.room import Room
from dgs.server import ServerState
from dgs.server.state import Mirror
from dgs.transport import Link, Listener
from dgs_ext.selection import Selection
from dgs_ext.wire import Codec, Decoded, Header

STAGES = ("receive", "wait", "decode", "push", "pull", "encode", "send")

_now = time.monotonic  # the same clock in all processes of a machine


class Clock:
    """The ends of an exchange's stages on the server, by worker and sequence; a desk's thread has its own."""

    def __init__(self) -> None:
        self._received: dict[int, float] = {}  # by the frame's address, which is its session's own
        self._here = threading.local()
        self.exchanges: dict[tuple[int, int], list[float]] = {}

    def received(self, frame: Tensor) -> None:
        """The frame has come, and waits for a desk."""
        self._received[frame.data_ptr()] = _now()

    def begin(self, frame: Tensor) -> None:
        """It has one."""
        self._here.marks = [self._received[frame.data_ptr()], _now()]

    def mark(self) -> None:
        """The next stage has ended."""
        self._here.marks.append(_now())

    def end(self, worker: int, sequence: int) -> None:
        """The answer is packed: from here on it is sending."""
        self.mark()
        self.exchanges[worker, sequence] = self._here.marks

    def stages(self, worker: int, sequence: int, began: float, ended: float) -> list[float]:
        """Seconds of each of STAGES, between the times at which the worker began to send and had the answer."""
        ends = [*self.exchanges[worker, sequence], ended]
        return [end - begin for begin, end in zip([began, *ends[:-1]], ends, strict=True)]


class TimedLink:
    """A link that tells when a frame has come (to `clock`, on the server), and when the last one was sent."""

    def __init__(self, link: Link, clock: Clock | None = None) -> None:
        self._link, self._clock = link, clock
        self.sent = self.received = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        self.sent = _now()
        self._link.send(frame, timeout)

    def receive(self, timeout: timedelta | None) -> Tensor:
        frame = self._link.receive(timeout)
        self.received = _now()
        if self._clock is not None:
            self._clock.received(frame)
        return frame


class TimedListener(Listener):
    """A listener whose links are timed."""

    def __init__(self, listener: Listener, clock: Clock) -> None:
        self._listener, self._clock = listener, clock

    def accept(self, timeout: timedelta) -> Link | None:
        link = self._listener.accept(timeout)
        return None if link is None else cast(Link, TimedLink(link, self._clock))

    def close(self) -> None:
        self._listener.close()


class TimedState(ServerState):
    """The server's state, with a clock: set before the first worker comes."""

    clock: Clock

    def push_sparse(self, indices: Tensor, values: Tensor) -> int | None:
        made = super().push_sparse(indices, values)
        self.clock.mark()
        return made

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        pulled = super().pull(mirror, counts, codec, room)
        self.clock.mark()
        return pulled


class PlainState(TimedState):
    """The same arithmetic in plain torch: index, subtract, a topk for each tensor, scatter. Codec: float32."""

    def push_sparse(self, indices: Tensor, values: Tensor) -> int | None:
        with self._lock.exclusive():
            self._theta[indices] -= values
            made = self._advance()
        self.clock.mark()
        return made

    def pull(self, mirror: Mirror, counts: Tensor, codec: Codec, room: Room) -> tuple[int, Selection]:
        with self._lock.shared():
            version = self._version
            difference = self._theta - mirror.weights
        sizes, found = self.layout.offsets.diff().tolist(), []
        for offset, part, k in zip(
            self.layout.offsets, difference.split(sizes), counts.tolist(), strict=False
        ):
            at = (
                torch.arange(k)
                if k == part.numel()
                else part.abs().topk(k, sorted=False).indices.sort().values
            )
            found.append(at + offset)
        indices = torch.cat(found)
        values = difference[indices]
        mirror.weights[indices] += values
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        self.clock.mark()
        return version, Selection(indices, values, starts, counts)


@contextmanager
def timed_packers(clock: Clock) -> Iterator[None]:
    """Until the end of the block new sessions tell `clock` when a frame is unpacked and its answer packed."""

    class TimedPacker(Packer):
        def decode(self, frame: Tensor) -> Decoded:
            clock.begin(frame)
            decoded = super().decode(frame)
            clock.mark()
            return decoded

        def sparse(self, header: Header, meta: bytes, selection: Selection) -> Tensor:
            frame = super().sparse(header, meta, selection)
            clock.end(header.worker, header.sequence)
            return frame

    with patch("dgs.server.exchange.Packer", TimedPacker), patch("dgs.server.desks.Packer", TimedPacker):
        yield
