# SPDX-License-Identifier: Apache-2.0
"""Frames on their way: a worker's link, the server's link, the server, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .clock import Clock
from .host import Host
from .links import WorkerEnd
from .network import Line, Network, ServerCost
from .place import Place
from .recorder import Recorder

_HANDSHAKE = 6  # latencies that pass before a joiner can ask for its snapshot: link, token, hello

Replied = Callable[[], None]


class Wires:
    """Carries frames between workers and `host`; the server handles them in the order of their coming."""

    def __init__(
        self, clock: Clock, host: Host, network: Network, cost: ServerCost, recorder: Recorder
    ) -> None:
        self._clock, self._host, self._cost, self._recorder = clock, host, cost, recorder
        self._latency = network.latency
        self.incoming, self.outgoing, self.server = Line(network.server_in), Line(network.server_out), Line()

    @property
    def handshake(self) -> float:
        """Seconds of the messages before a worker's snapshot."""
        return _HANDSHAKE * self._latency

    def snapshot(self, place: Place, size: int) -> float:
        """Sends a joiner the snapshot of this moment; returns when it is there."""
        self._recorder.bytes_down += size
        return self.outgoing.carry(self._clock.now, size, place.down) + self._latency

    def upload(self, place: Place, frames: list[Tensor], replied: Replied) -> None:
        """Sends frames one after another; `replied` is called when the reply to one is in the worker's inbox."""
        end = place.node.end
        assert end is not None
        for frame in frames:
            begin = max(self._clock.now, place.sending_until)
            place.sending_until = begin + 8 * frame.numel() / place.up
            reach = partial(self._reach, place, end, frame, replied)
            place.at(self._clock, begin + self._latency, reach)

    def _reach(self, place: Place, end: WorkerEnd, frame: Tensor, replied: Replied) -> None:
        """The frame's first byte is at the server's link."""
        done = self.incoming.carry(self._clock.now, frame.numel(), place.up)
        place.at(self._clock, done, partial(self._serve, place, end, frame, replied))

    def _serve(self, place: Place, end: WorkerEnd, frame: Tensor, replied: Replied) -> None:
        """The frame is whole. The server's state changes now, in the order of coming; its time counts after it."""
        before = self._host.state.version
        replies = end.deliver(frame)
        cost = self._cost.of(frame.numel() + sum(r.numel() for r in replies))
        ready = self.server.hold(self._clock.now, cost) + cost
        self._recorder.bytes_up += frame.numel()
        version = self._host.state.version
        if version > before:
            self._recorder.version(ready, version, lambda model: self._host.snapshot().load_into(model))
        for reply in replies:
            place.at(self._clock, ready, partial(self._return, place, end, reply, replied))
        if end.closed:  # the server has ended the session, which the worker sees instead of a reply
            place.at(self._clock, ready + self._latency, replied)

    def _return(self, place: Place, end: WorkerEnd, reply: Tensor, replied: Replied) -> None:
        self._recorder.bytes_down += reply.numel()

        def arrive() -> None:
            end.inbox.append(reply)
            replied()

        done = self.outgoing.carry(self._clock.now, reply.numel(), place.down)
        place.at(self._clock, done + self._latency, arrive)
