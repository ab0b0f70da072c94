# SPDX-License-Identifier: Apache-2.0
"""What workers do in virtual time: they join, compute, exchange, leave and die."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dgs_ext.wire import Kind, parse_header

from .clock import Clock
from .compute import Compute
from .place import Place
from .recorder import Recorder
from .wires import Wires


class Simulation:
    """Runs workers against a server (or, without wires, one alone), in one thread.

    A gradient is taken at the weights held when its computation began: they change only in `settle`.

    Args:
        clock: the time.
        places: the workers, not connected.
        wires: lead to the server; None for mode sgd.
        compute: how long a gradient takes.
        overlap: a worker computes its next gradient while its push and the reply travel.
        recorder: the log.
    """

    def __init__(
        self,
        clock: Clock,
        places: Sequence[Place],
        wires: Wires | None,
        compute: Compute,
        overlap: bool,
        recorder: Recorder,
    ) -> None:
        self._clock, self._places, self._wires = clock, places, wires
        self._compute, self._overlap, self._recorder = compute, overlap, recorder

    def run(self) -> None:
        """Lets everything happen; all optimizers are closed then."""
        for place in self._places:
            index, presence = place.node.index, place.presence
            handshake = 0.0 if self._wires is None else self._wires.handshake
            self._clock.at(presence.joins + handshake, index, partial(self._join, place))
            if presence.dies is not None:
                self._clock.at(presence.dies, index, partial(self._die, place))
        try:
            self._clock.run()
        finally:
            for place in self._places:
                place.node.optimizer.close("failed", "the simulation was broken off")

    def _join(self, place: Place) -> None:
        if place.gone:  # it has died before it came
            return
        place.alive = True
        size = place.node.connect()
        ready = self._clock.now if self._wires is None else self._wires.snapshot(place, size)
        place.at(self._clock, ready, partial(self._begin, place))

    def _begin(self, place: Place) -> None:
        """The next gradient, unless it is time to go."""
        now, leaves = self._clock.now, place.presence.leaves
        if place.node.optimizer.done or (leaves is not None and now >= leaves):
            if place.awaiting:
                place.ending = True
            else:
                self._leave(place)
            return
        seconds = self._compute(place.node.index, place.node.draw)
        place.computing += seconds
        place.computing_until = now + seconds
        place.at(self._clock, now + seconds, partial(self._computed, place))

    def _computed(self, place: Place) -> None:
        place.steps += 1
        self._recorder.step(self._clock.now, place.node.index, place.node.gradient())
        if place.awaiting:
            place.computed = True
        else:
            self._post(place)

    def _post(self, place: Place) -> None:
        node = place.node
        place.computed = False
        frames = node.post()
        self._note(place)
        if self._wires is None:
            self._recorder.version(self._clock.now, node.optimizer.version, node.show)
            self._begin(place)
            return
        place.awaiting = any(parse_header(frame).kind is Kind.PUSH for frame in frames)
        place.pushes += place.awaiting
        self._wires.upload(place, frames, partial(self._replied, place))
        if self._overlap or not place.awaiting:
            self._begin(place)

    def _replied(self, place: Place) -> None:
        """A reply is in the inbox, or the link is closed."""
        place.awaiting = False
        if place.ending:
            self._leave(place)
        elif place.computed:
            self._post(place)
        elif not self._overlap:
            self._settle(place)

    def _settle(self, place: Place) -> None:
        assert self._wires is not None
        self._wires.upload(place, place.node.settle(), lambda: None)
        self._note(place)
        # A send returns when the other end has it all: the next gradient waits until then.
        place.at(self._clock, max(self._clock.now, place.sending_until), partial(self._begin, place))

    def _leave(self, place: Place) -> None:
        place.node.take_in()
        self._note(place)
        place.node.leave()
        self._note(place)
        self._end(place)

    def _die(self, place: Place) -> None:
        if place.alive:
            place.computing -= max(0.0, place.computing_until - self._clock.now)
            place.node.die()
        self._end(place)

    def _end(self, place: Place) -> None:
        if not place.gone:
            place.alive, place.gone, place.left = False, True, self._clock.now

    def _note(self, place: Place) -> None:
        """Counts the staleness of a push once its reply has been taken in."""
        traffic = place.node.optimizer.traffic
        if traffic.exchanges > place.exchanges:
            place.exchanges = traffic.exchanges
            self._recorder.staleness[traffic.staleness] += 1
