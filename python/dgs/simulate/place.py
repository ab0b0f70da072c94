# SPDX-License-Identifier: Apache-2.0
"""A worker's place in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .clock import Clock
from .node import Node


@dataclass(frozen=True, slots=True)
class Presence:
    """When a worker comes and goes, in virtual seconds: it `leaves` after a step and a goodbye, or `dies` at once."""

    joins: float = 0.0
    leaves: float | None = None
    dies: float | None = None


@dataclass(slots=True)
class Place:
    """A node with its link's rates, and what it has done so far."""

    node: Node
    up: float  # bits per second
    down: float
    presence: Presence
    alive: bool = False
    gone: bool = False
    awaiting: bool = False  # a reply is on its way
    computed: bool = False  # a gradient is ready, and waits for that reply (overlap)
    ending: bool = False  # it leaves with that reply
    sending_until: float = 0.0
    left: float = 0.0
    computing: float = 0.0
    computing_until: float = 0.0
    steps: int = 0
    pushes: int = 0
    exchanges: int = 0  # whose staleness is in the log

    def at(self, clock: Clock, time: float, action: Callable[[], None]) -> None:
        """Plans what the worker or a frame of it does: nothing any more once the worker is gone."""

        def unless_gone() -> None:
            if self.alive:
                action()

        clock.at(time, self.node.index, unless_gone)
