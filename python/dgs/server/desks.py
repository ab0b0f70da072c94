# SPDX-License-Identifier: Apache-2.0
"""Where a server works on frames: at a few desks, so that many sessions put no more kernels to work than cores.

What is packed there outlives the work by the time it takes to send, in a buffer that the next answer reuses.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from ..frames import Packer
from .state import ServerState

T = TypeVar("T")


class Desk:
    """Scratch for one frame at a time, and for the frames of any session; what it holds lasts until the next.

    On the CPU a pull is selected where its push was unpacked, which is of no more use then.

    Args:
        state: of the server.
        most: about as many entries of each segment as a pull may have, int64 [S].
    """

    def __init__(self, state: ServerState, most: Tensor) -> None:
        self._state = state
        self.room = state.room()  # what a pull selects
        self.packer = Packer(state.layout)  # what came, unpacked
        # At once for as much as there may be, as what is outgrown leaves holes in the memory. Slots that no pull has
        # reached are memory that was never touched, and take none; a device's would. What came lies there before.
        if state.device.type == "cpu":
            slots = self.room.of(most)
            self.packer = Packer(state.layout, into=(slots.indices, slots.values))

    @cached_property
    def model(self) -> Tensor:
        """Room for θ, float32 [N]: a dense method's pull."""
        return torch.zeros(self._state.layout.numel)  # written once: pages are not fetched under the lock


class Desks:
    """At most `count` desks, each with a thread that stays; with 0, one, at which the caller works.

    A frame that waits for a desk waits in its session's own buffer, and its session receives no other meanwhile: what
    comes faster than it is worked on stays with the workers.

    Args:
        state: of the server.
        count: how many at most; 0 is for callers that come one at a time.
        most: about as many entries of each segment as a pull may have, int64 [S].
    """

    def __init__(self, state: ServerState, count: int, most: Tensor) -> None:
        self._state, self._most, self._mine = state, most, threading.local()
        self._pool = ThreadPoolExecutor(count, "dgs-desk") if count else None
        self._idle: list[Packer] = []
        self._kept = count + 1

    def run(self, work: Callable[[Desk], T]) -> T:
        """What `work` returns or raises at a desk; waits for a free one, first come first served."""
        if self._pool is None:
            return work(self._desk())
        return self._pool.submit(lambda: work(self._desk())).result()

    @contextmanager
    def answer(self) -> Iterator[Packer]:
        """A packer whose frame stands until the end of the block; there are as many as answers are under way.

        When they have been sent a few are kept, which is all that is in use while sending takes less than the work.
        """
        try:
            packer = self._idle.pop()
        except IndexError:  # asking first would be a race
            packer = Packer(self._state.layout)
        try:
            yield packer
        finally:
            if len(self._idle) < self._kept:
                self._idle.append(packer)

    def _desk(self) -> Desk:
        desk: Desk | None = getattr(self._mine, "desk", None)
        if desk is None:
            desk = self._mine.desk = Desk(self._state, self._most)
        return desk

    def close(self) -> None:
        """Ends the threads, once their work is done."""
        if self._pool is not None:
            self._pool.shutdown()


def for_cores() -> int:
    """How many desks keep all cores busy and no more, each with torch's number of threads."""
    return max(1, len(os.sched_getaffinity(0)) // torch.get_num_threads())
