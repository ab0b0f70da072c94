# SPDX-License-Identifier: Apache-2.0
"""Links over torch.distributed's gloo: a two-rank group per worker, met through a TCPStore (meeting.py).

A worker takes a ticket in the store, and both sides exchange JSON under the ticket's keys; `open` builds the group.
gloo aborts the process when a message is larger than the buffer posted for it, so a frame travels as its first FIRST
bytes, for which there is always room, and then exactly the rest that its header declares. A second message costs a
round trip beside its bytes (it goes when the other end has posted its receive), so that it is to be for large frames,
where that is little. Room that no frame reaches is memory that is never touched, and takes none.

Ctrl-C ends a wait, not what was waited for: that is kept, as gloo takes a message apart whose work is dropped.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from dgs_ext import wire

from ..errors import FrameError, LinkClosedError, LinkTimeoutError, TransportError
from .base import Link
from .frames import check_cap, parse_json
from .mailbox import Mailbox, Store, dist, first_line

log = logging.getLogger(__name__)

FIRST = 1 << 23  # bytes of a frame's first message at most
SERVER, WORKER = 0, 1
_FOREVER, _AT_ONCE = timedelta(days=365), timedelta(milliseconds=1)  # gloo takes 0 for its default
_FIRST_TAG, _REST_TAG, _WAKE_TAG = 0, 1, 2
_SMALLER = (
    4  # frames in a row that needed less than a quarter of what is touched of the buffer: that is given back
)
_LITTLE = 1 << 20  # bytes: so much is kept

_WAITING = "waiting for a frame"


class GlooLink(Link):
    """One end of a session. Owns a store connection of its own and, once open, a two-rank group.

    Args:
        store: a connection that nothing else uses.
        run: the prefix of the run's keys.
        ticket: the number under which worker and server meet.
        rank: 0 on the server, 1 on the worker.
        address: the local address for gloo, or a function of the worker's address that gives it.
        devices: gloo's devices (a listening socket and a thread each) by address, shared by a process's links.
        left: where it puts, when it is closed, the keys that its session has left in the store.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        ticket: int,
        rank: int,
        address: str | Callable[[str], str],
        devices: dict[str, Any] | None = None,
        left: deque[str] | None = None,
    ) -> None:
        self._mail = Mailbox(store, run, ticket)
        self._devices = {} if devices is None else devices
        self._left = deque() if left is None else left
        self._ticket, self._rank, self._address = ticket, rank, address
        self._told = self._heard = 0
        self._group: Any = None
        self._session = ""  # under which gloo's ends found each other
        self._cap = 0
        self._buffer = torch.empty(FIRST, dtype=torch.uint8)
        self._touched = self._smaller = 0
        self._sending: list[Any] = []  # gloo's works, of which some wait was broken off or is to come
        self._first: Any = None  # those of a frame that has not been received whole
        self._rest: Any = None
        self._beats, self._last_beat, self._seen = 0, b"", time.monotonic()

    def tell(self, message: Mapping[str, Any]) -> None:
        self._mail.put(self._mail.key(self._rank, self._told), json.dumps(message))
        self._told += 1

    def hear(self, timeout: timedelta) -> dict[str, Any]:
        text = self._mail.take(self._mail.key(1 - self._rank, self._heard), timeout)
        self._heard += 1
        return parse_json(text)

    def open(self, session: str, cap: int, timeout: timedelta) -> None:
        address = self._local_address(timeout)
        options = dist.ProcessGroupGloo._Options()
        options._threads = 1
        options._timeout = timeout
        self._session = prefix = self._mail.key("session", session)
        try:
            if address not in self._devices:
                self._devices.setdefault(address, dist.ProcessGroupGloo.create_device(hostname=address))
            options._devices = [self._devices[address]]
            self._group = self._mail.use(
                lambda store: dist.ProcessGroupGloo(dist.PrefixStore(prefix, store), self._rank, 2, options)
            )
        except RuntimeError as error:
            raise _translated(error, f"session {session} from {address}") from None
        if self._mail.interrupted:  # before there was a group that `interrupt` could end
            raise LinkClosedError("this end is closed")
        self._cap, self._seen = cap, time.monotonic()

    def _local_address(self, timeout: timedelta) -> str:
        key = self._mail.key("address")
        if callable(self._address):
            return self._address(self._mail.take(key, timeout).decode(errors="replace"))
        self._mail.put(key, self._address)
        return self._address

    def send(self, frame: Tensor, timeout: timedelta) -> None:
        for work in self._post(frame):
            self._finish(work, timeout, "sending a frame")
        self._sending = self._unfinished()

    def ask(self, frame: Tensor, timeout: timedelta) -> Iterator[Tensor]:
        self._post(frame)
        while True:
            yield self.receive(timeout)

    def _post(self, frame: Tensor) -> list[Any]:
        """Begins to send a frame."""
        check_cap(frame.numel() - wire.HEADER_BYTES, self._cap)
        group, peer, before = self._open_group(), 1 - self._rank, self._unfinished()
        try:
            self._sending = [*before, group.send([frame[:FIRST]], peer, _FIRST_TAG)]
            if frame.numel() > FIRST:
                self._sending.append(group.send([frame[FIRST:]], peer, _REST_TAG))
        except RuntimeError as error:
            raise self._failure(error, "sending a frame") from None
        return self._sending[len(before) :]

    def _unfinished(self) -> list[Any]:
        return [work for work in self._sending if not work.is_completed()]

    def receive(self, timeout: timedelta | None) -> Tensor:
        try:
            frame = self._received(timeout)
        except (TransportError, FrameError):
            self._first = self._rest = None
            raise
        self._first = self._rest = None
        return frame

    def _received(self, timeout: timedelta | None) -> Tensor:
        """The next frame, or the rest of one for which a wait was broken off."""
        header = self._buffer[: wire.HEADER_BYTES]
        if self._first is None:
            header.zero_()  # so that a message shorter than one is none
            self._first = self._post_receive(self._buffer[:FIRST], _FIRST_TAG)
        self._finish(self._first, timeout, _WAITING)
        payload = wire.parse_header(header).payload_length
        check_cap(payload, self._cap)
        total = wire.HEADER_BYTES + payload
        if self._rest is None:
            self._make_room(total)
            if total > FIRST:
                self._rest = self._post_receive(self._buffer[FIRST:total], _REST_TAG)
        if self._rest is not None:
            self._finish(self._rest, timeout, _WAITING)
        return self._buffer[:total]

    def _make_room(self, total: int) -> None:
        """Grows the buffer, which holds a first message, to a frame's size; takes a new one behind a snapshot."""
        self._touched = max(self._touched, total)
        small = total < self._touched // 4 and self._touched > _LITTLE
        self._smaller = self._smaller + 1 if small else 0
        if total <= self._buffer.numel() and self._smaller < _SMALLER:
            return
        self._touched, self._smaller = total, 0
        room = torch.empty(max(FIRST, total + total // 4), dtype=torch.uint8)
        room[: min(FIRST, total)] = self._buffer[: min(FIRST, total)]
        self._buffer = room

    def _post_receive(self, buffer: Tensor, tag: int) -> Any:
        try:
            return self._open_group().recv([buffer], 1 - self._rank, tag)
        except RuntimeError as error:
            raise self._failure(error, _WAITING) from None

    def _finish(self, work: Any, timeout: timedelta | None, doing: str) -> None:
        if work.is_completed():  # by a wait that was broken off
            return
        try:
            work.wait(_FOREVER if timeout is None else max(timeout, _AT_ONCE))
        except RuntimeError as error:
            raise self._failure(error, doing) from None

    def _open_group(self) -> Any:
        group = self._group
        if group is None or self._mail.interrupted:
            raise LinkClosedError("the link is not open")
        return group

    def _failure(self, error: RuntimeError, doing: str) -> TransportError:
        if self._mail.interrupted:
            return LinkClosedError(f"this end was closed while {doing}")
        return _translated(error, doing)

    def beat(self) -> None:
        self._beats += 1
        self._mail.put(self._mail.key("beat", self._rank), str(self._beats))

    def silence(self) -> float:
        # Until there is a group there are no beats, and a wait may occupy the connection. A closed one raises.
        if self._group is not None or self._mail.closed:
            beat = self._mail.look(self._mail.key("beat", 1 - self._rank))
            if beat is not None and beat != self._last_beat:
                self._last_beat, self._seen = beat, time.monotonic()
        return time.monotonic() - self._seen

    def interrupt(self) -> None:
        self._mail.interrupt()
        group = self._group
        if group is None:
            return
        # Neither abort() nor shutdown() wakes a waiter; a second receive that times out ends the pair and does.
        try:
            group.recv([torch.empty(1, dtype=torch.uint8)], 1 - self._rank, _WAKE_TAG).wait(_AT_ONCE)
        except RuntimeError as error:
            log.debug("link %d ended: %s", self._ticket, first_line(error))

    def close(self) -> None:
        if self._session:
            ranks = (SERVER, WORKER)
            self._left.extend(self._mail.key("beat", rank) for rank in ranks)
            self._left.extend(f"{self._session}/0/{rank}" for rank in ranks)  # by gloo
            self._session = ""
        self._mail.close()
        self._group = None
        self._sending, self._first, self._rest = [], None, None


def _translated(error: RuntimeError, doing: str) -> TransportError:
    text = first_line(error)
    if "timed out" in text.lower() or "timeout" in text.lower():
        return LinkTimeoutError(f"timed out {doing}: {text}")
    return LinkClosedError(f"the other end is gone ({doing}): {text}")
