# SPDX-License-Identifier: Apache-2.0
"""Virtual time: what is to happen, in an order that depends on nothing but the times and the workers' numbers."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """A queue of events. Those of one moment happen by the worker's number, one worker's as they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._serial = itertools.count()

    def at(self, time: float, worker: int, action: Callable[[], None]) -> None:
        """Plans `action` for `time` seconds, not before now."""
        heapq.heappush(self._events, (max(time, self.now), worker, next(self._serial), action))

    def run(self) -> None:
        """Lets everything happen until nothing is planned."""
        while self._events:
            self.now, _, _, action = heapq.heappop(self._events)
            action()
