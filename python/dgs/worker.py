# SPDX-License-Identifier: Apache-2.0
"""The worker's end of a session: joins, exchanges, looks at the server's model, says goodbye."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch import Tensor

from dgs_ext import wire
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec, Header, Kind

from . import buffers, protocol
from .config import Settings
from .errors import (
    FrameError,
    LinkClosedError,
    ProtocolError,
    ServerLostError,
    ServerUnreachableError,
    TransportError,
)
from .exchange import Arrival, BackgroundFlight, Flight, Model, Reply, Traffic
from .frames import Packer
from .heart import Heart
from .introduction import Dial, make_hello, meet
from .layout import Layout
from .observed import Observed
from .protocol import Welcome
from .transport import Link

log = logging.getLogger(__name__)

_GOODBYE_TIMEOUT = timedelta(seconds=10)


class Worker:
    """Owns the link, and the threads of the heartbeat and, with `overlap`, of the exchange under way.

    Used from one thread. Between `push` and `pull` nothing else may be called, but `close`; that, twice too.

    Args:
        layout: the segments.
        settings: see dgs.config.
        dense: the method's kind.
        dial: makes a new link to the server, waiting at most that long for one.
    """

    def __init__(self, layout: Layout, settings: Settings, dense: bool, dial: Dial) -> None:
        self.layout, self.settings, self.dense, self._dial = layout, settings, dense, dial
        self.traffic, self.observed = Traffic(), Observed()
        self._watched = self._asked = False  # whether the server ever asks of what was observed, and does now
        self.version = self.sequence = 0
        self.held = 0  # the version of the weights that this worker trains on
        self.active = 1
        self.done = False
        self.welcome: Welcome | None = None
        self._identity = uuid.uuid4().hex
        self._timeout = timedelta(seconds=settings.exchange_timeout)
        self._packer = Packer(layout)
        self._link: Link | None = None
        self._flight: Flight | None = None
        self._heart: Heart | None = None
        self._process = os.getpid()

    @property
    def connected(self) -> bool:
        """Whether there is a session, and this process (not one forked from it) has it."""
        return self._link is not None and os.getpid() == self._process

    def join(self, timeout: timedelta) -> Model:
        """Joins the run and returns the weights to start from: the server's mirror of this worker is their copy.

        Raises:
            ServerUnreachableError: no server came within `timeout`.
            RefusedError: the server does not take this worker; the message says why.
        """
        self._meet(timeout, None)
        return self._first_snapshot()

    def resume(self, timeout: timedelta, digest: str) -> Model | None:
        """Joins the run with weights of that digest; None if the server takes them as they are.

        That is so where this worker paused with them; else the same as `join`, which also says what is raised.
        """
        welcome = self._meet(timeout, digest)
        if welcome.resumed is None:
            return self._first_snapshot()
        self.version = self.held = welcome.resumed
        self.sequence = welcome.applied
        log.info("worker %d goes on after %d pushes, without a snapshot", welcome.rank, welcome.applied)
        return None

    def _meet(self, timeout: timedelta, digest: str | None) -> Welcome:
        hello = make_hello(self.layout, self.settings, self.dense, self._identity, self.sequence, digest)
        link, self.welcome = meet(self._dial, self.settings.token, hello, timeout)
        self._link, self._heart = link, Heart(link, self.settings.heartbeat)
        return self.welcome

    def _first_snapshot(self) -> Model:
        try:
            return self._snapshot(mirror=True)
        except BaseException:
            self._hang_up()
            raise

    def rejoin(self) -> tuple[bool, Model]:
        """Joins again after a lost link. Returns whether the last push was applied after all, and the weights.

        Raises:
            ServerLostError: the server did not take this worker back within `rejoin_timeout`.
        """
        self._hang_up()
        before, version = self.sequence, self.version
        deadline = time.monotonic() + self.settings.rejoin_timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                model = self.join(timedelta(seconds=left))
                break
            except TransportError as error:
                if left <= 0 or isinstance(error, ServerUnreachableError):
                    raise ServerLostError(
                        f"the server is lost at version {self.version} and could not be joined again within "
                        f"{self.settings.rejoin_timeout:g} s: {error}"
                    ) from error
                time.sleep(0.2)
        if self.version < version:
            log.warning(
                "another server answers: it is at version %d and this worker was at %d; training goes on from its "
                "weights, and schedules that follow the version go back with it",
                self.version,
                version,
            )
        else:
            log.warning("joined the server again at version %d, with a fresh snapshot", self.version)
        assert self.welcome is not None
        self.sequence = self.welcome.applied
        return self.welcome.applied > before, model

    def push(
        self,
        update: Selection | Tensor,
        codec: Codec,
        density: float,
        digest: tuple[int, str],
        held: int | None = None,
        *,
        background: bool = False,
    ) -> None:
        """Sends `update` (on the CPU); `pull` returns what comes back, and raises what went wrong here.

        Args:
            density: what the server takes as the worker's when it chooses how much to send back.
            digest: a segment and the hash of its weights.
            held: the version of the weights that the gradient was computed at, by default of those of now.
            background: sends, and receives the reply, in a thread of their own.
        """
        header = self._header(Kind.PUSH, codec, self.sequence + 1, held)
        if isinstance(update, Selection):
            frame = self._packer.sparse(header, protocol.meta(density=density, digest=digest, **self._told()), update)
        else:
            frame = self._packer.dense(header, protocol.meta(density=1.0, **self._told()), update)
        began = time.perf_counter()
        flight = BackgroundFlight if background else Flight
        self._flight = flight(lambda: self._send(frame), self._next)
        self.traffic.bytes_up += frame.numel()
        self.traffic.waiting += time.perf_counter() - began

    def _told(self) -> dict[str, Any]:
        """What a push tells beside the update: nothing, unless the server has asked."""
        asked, self._asked = self._asked, False
        return {"told": self.observed.take(self.traffic.waiting)} if asked else {}

    @property
    def awaiting(self) -> bool:
        """Whether a push is under way, whose reply `pull` returns."""
        return self._flight is not None

    def pull(self) -> Reply:
        """The reply to the last push.

        Raises:
            TransportError, FrameError: the link is lost; whether the push was applied is known after `rejoin`.
            RefusedError: the server refused the push and applied nothing.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            raise LinkClosedError("the exchange was broken off")
        began = time.perf_counter()
        try:
            arrival = flight.result()
        except (KeyboardInterrupt, SystemExit):
            self._flight = flight if flight.goes_on else None
            raise
        self.traffic.waiting += time.perf_counter() - began
        meta = self._accept(arrival, Kind.PULL)
        self.held = self.version
        self.traffic.bytes_down += arrival.length
        applied = meta.get("applied") is True
        self._asked = meta.get("tell") is True
        self._watched = self._watched or self._asked
        if applied:
            self.sequence += 1
            self.traffic.exchanges += 1
        self.traffic.staleness = _count(meta, "staleness", 0)
        return Reply(applied, arrival.decoded)

    def entries(self, reply: Reply) -> tuple[Tensor, Tensor]:
        """Indices and values of a sparse reply, on the CPU; valid until the next frame."""
        return self._packer.entries(reply.decoded)

    def values(self, reply: Reply) -> Tensor:
        """The vector of a dense reply, on the CPU; valid until the next frame."""
        return self._packer.values(reply.decoded)

    def look(self) -> Model:
        """The server's model now; this worker's weights and mirror stay as they are."""
        return self._snapshot(mirror=False)

    def restart(self) -> Model:
        """A fresh snapshot that becomes this worker's weights and mirror."""
        return self._snapshot(mirror=True)

    def send_buffers(self, packed: Tensor) -> None:
        """Sends the worker's buffers, uint8; there is no reply."""
        frame = self._packer.opaque(self._header(Kind.BUFFERS, Codec.BYTES, self.sequence), b"", packed)
        self.traffic.other_bytes += frame.numel()
        self._send(frame)

    def close(self, outcome: str = "finished", reason: str = "", digest: str | None = None) -> None:
        """Says goodbye and frees the link, its threads and sockets; `digest`: of the weights of one that pauses."""
        if self._link is None or not self.connected:
            return
        if self._flight is not None and not self._flight.landed(_GOODBYE_TIMEOUT.total_seconds()):
            log.warning("no goodbye was said: an exchange is under way and does not end")
            self._link.interrupt()
            self._hang_up()
            return
        try:
            header = self._header(Kind.GOODBYE, Codec.BYTES, self.sequence)
            self._asked = self._watched
            meta = protocol.meta(outcome=outcome, reason=reason[:1000], digest=digest, **self._told())
            # In memory of its own: that of a push whose wait was broken off may not have been sent.
            for frame in self._link.ask(Packer(self.layout).opaque(header, meta), _GOODBYE_TIMEOUT):
                if wire.parse_header(frame).kind is Kind.GOODBYE:  # else the reply to what was broken off
                    break
        except (TransportError, FrameError) as error:
            log.warning("the goodbye did not reach the server: %s", error)
        finally:
            self._hang_up()

    def close_at_exit(self) -> None:
        """The goodbye of a process that ends without `close`: failed if an exception ended it."""
        if self.ends_by_error():
            self.close("failed", repr(sys.last_value))
        else:
            self.close()

    @staticmethod
    def ends_by_error() -> bool:
        """Whether an uncaught exception is ending the process; `sys.exit` with any status is none."""
        return getattr(sys, "last_value", None) is not None

    def _snapshot(self, mirror: bool) -> Model:
        header = self._header(Kind.REQUEST, Codec.BYTES, self.sequence)
        self._send(self._packer.opaque(header, protocol.meta(mirror=mirror)))
        packer = Packer(self.layout)  # of its own: a dense model's room is not kept for sparse replies
        model = self._receive(Kind.SNAPSHOT, packer)
        theta = packer.values(model.decoded)
        if mirror:
            self.held = self.version
        packed = self._receive(Kind.BUFFERS)
        self.traffic.other_bytes += model.length + packed.length
        if packed.decoded.body is None:
            raise ProtocolError("a BUFFERS frame came without bytes")
        spec = (*self.layout.buffers, *self.layout.frozen) if mirror else self.layout.buffers
        return Model(model.decoded.header.version, theta, buffers.unpack(packed.decoded.body, spec))

    def _header(self, kind: Kind, codec: Codec, sequence: int, held: int | None = None) -> Header:
        return Header(
            kind=kind,
            codec=codec,
            worker=self.welcome.rank if self.welcome else 0,
            fingerprint=self.layout.fingerprint,
            sequence=sequence,
            version=self.held if held is None else held,
        )

    def _send(self, frame: Tensor) -> None:
        self._open().send(frame, self._timeout)

    def _receive(self, expected: Kind, packer: Packer | None = None) -> Arrival:
        arrival = self._next(packer)
        self._accept(arrival, expected)
        return arrival

    def _next(self, packer: Packer | None = None) -> Arrival:
        """The next frame, whatever it is."""
        frame = self._open().receive(self._timeout)
        return Arrival((packer or self._packer).decode(frame), frame.numel())

    def _accept(self, arrival: Arrival, expected: Kind) -> dict[str, Any]:
        """Takes note of what a frame says about the run, and returns its metadata."""
        header, meta = arrival.decoded.header, protocol.parse_meta(arrival.decoded.meta)
        if header.kind == Kind.ERROR:
            protocol.raise_refusal(meta)
        if header.kind != expected:
            raise ProtocolError(f"the server sent {header.kind.name} where {expected.name} was due")
        self.version = header.version
        self.done = self.done or header.done
        self.active = max(1, _count(meta, "active", self.active))
        return meta

    def _open(self) -> Link:
        if self._link is None:
            raise LinkClosedError("the worker is not connected")
        return self._link

    def _hang_up(self) -> None:
        heart, link = self._heart, self._link
        self._heart = self._link = self._flight = None
        if heart is not None:
            heart.stop()
        if link is not None:
            link.close()


def _count(meta: Mapping[str, Any], name: str, default: int) -> int:
    """A number in a reply; ProtocolError when it is none."""
    value = meta.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolError(f"a reply's {name} must be an integer of at least 0, got {value!r:.100}")
    return value
