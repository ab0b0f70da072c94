# SPDX-License-Identifier: Apache-2.0
"""Gradients a second: of asynchronous workers at one server by an event clock, of dense all-reduce by a formula.

The clock, and not a formula, because it is as short and knows more. Mean value analysis is exact where service times
are exponential; frames are all of one size, for which it is a tenth and more too low where the link is about full,
and there the decision falls. The bounds min(W / cycle, 1 / bottleneck) are too high there once times vary.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..errors import ConfigError
from ..simulate.clock import Clock
from ..simulate.compute import Compute
from ..transport.gloo import FIRST

PAYLOAD = 0.94  # of a link's rate: what Ethernet, IP and TCP headers leave, 941 Mbit/s of a gigabit
BUCKET = 25 * 2**20  # bytes that DistributedDataParallel reduces at a time
_BACKWARD = 2 / 3  # of a gradient's time
_CYCLES, _WARM = 40, 10  # of each worker, and those of them that do not count


@dataclass(frozen=True, slots=True)
class Link:
    """The network: every machine's link, and the latency between two.

    Args:
        bandwidth: bits per second of payload, in each direction.
        latency: seconds one way.
        server: bits per second of the server's own link; None: the same as the others.
    """

    bandwidth: float
    latency: float = 0.0
    server: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("bandwidth", self.bandwidth), ("server bandwidth", self.server)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive bits per second, got {value}")
        if not 0 <= self.latency < math.inf:
            raise ConfigError(f"latency must be at least 0 seconds, got {self.latency}")

    def delay(self, size: float) -> float:
        """Seconds of latency of a frame of so many bytes.

        One of more than a message has its rest sent when the receiver, which has the first part, says that it waits.
        """
        return self.latency * (1 if size <= FIRST else 3)

    @property
    def shared(self) -> float:
        """Bits per second of the server's link, which all workers share."""
        return self.server or self.bandwidth

    def scaled(self, bandwidth: float) -> Link:
        """The same network with another bandwidth, the server's in proportion."""
        server = None if self.server is None else self.server * bandwidth / self.bandwidth
        return Link(bandwidth, self.latency, server)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One push and its reply: bytes each way, and the seconds that worker and server compute for it."""

    up: float
    down: float
    worker: float
    server: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Gradients a second of all workers together, and the part of the time that what they share was busy."""

    rate: float
    link_in: float = 0.0
    link_out: float = 0.0
    server: float = 0.0


class _Station:
    """One that serves in the order of coming, on so many lanes."""

    def __init__(self, lanes: int = 1) -> None:
        self._free = [0.0] * lanes
        self.busy = 0.0

    def hold(self, now: float, seconds: float, own: float = 0.0) -> float:
        """Occupies a lane for `seconds`; returns when that, and `own` seconds that began with it, are over."""
        begin = max(now, heapq.heappop(self._free))
        heapq.heappush(self._free, begin + seconds)
        self.busy += seconds
        return begin + max(seconds, own)


def asynchronous(
    workers: int, compute: Compute, exchange: Exchange, link: Link, *, overlap: bool = False, cores: int = 1
) -> Throughput:
    """The throughput of workers that exchange with one server, each as soon as it has a gradient.

    Args:
        workers: how many.
        compute: seconds of a gradient.
        exchange: what one moves and costs.
        link: the network. A frame passes its worker's link and the server's at once, at the slower one's rate.
        overlap: each worker computes its next gradient while the exchange is under way.
        cores: frames that the server handles at once.
    """
    return _Run(workers, compute, exchange, link, overlap, cores).throughput()


class _Run:
    """Workers in virtual time. What is counted begins when the workers are no longer in step with one another."""

    def __init__(
        self, workers: int, compute: Compute, exchange: Exchange, link: Link, overlap: bool, cores: int
    ) -> None:
        self._compute, self._exchange, self._link, self._overlap = compute, exchange, link, overlap
        self._clock = Clock()
        self._incoming, self._outgoing, self._server = _Station(), _Station(), _Station(cores)
        self._cores = cores
        self._draws = [random.Random(f"plan {index}") for index in range(workers)]
        self._halves = [0] * workers  # of a cycle that are done: the gradient, the exchange before it
        self._done: list[float] = []
        self._most = _CYCLES * workers

    def throughput(self) -> Throughput:
        for index in range(len(self._draws)):
            self._halves[index] = 1  # there is no exchange before the first gradient
            self._begin(index)
        self._clock.run()
        first = self._done[_WARM * len(self._draws) - 1]
        last = self._done[-1]
        rate = (len(self._done) - _WARM * len(self._draws)) / (last - first)
        busy = (self._incoming.busy, self._outgoing.busy, self._server.busy / self._cores)
        return Throughput(rate, *(min(1.0, seconds / last) for seconds in busy))

    def _begin(self, index: int) -> None:
        seconds = self._compute(index, self._draws[index]) + self._exchange.worker
        self._after(seconds, index, self._half)

    def _after(self, seconds: float, index: int, then: Callable[[int], None]) -> None:
        self._clock.at(self._clock.now + seconds, index, partial(then, index))

    def _half(self, index: int) -> None:
        """A gradient or an exchange is done. With both of them the next exchange begins."""
        self._halves[index] += 1
        if self._halves[index] < 2:
            return
        self._halves[index] = 0
        self._after(self._link.delay(self._exchange.up), index, self._arrive)
        if self._overlap:
            self._begin(index)

    def _arrive(self, index: int) -> None:
        self._pass(self._incoming, self._exchange.up, index, self._serve)

    def _serve(self, index: int) -> None:
        done = self._server.hold(self._clock.now, self._exchange.server)
        self._clock.at(done, index, partial(self._return, index))

    def _return(self, index: int) -> None:
        self._pass(self._outgoing, self._exchange.down, index, self._landed)

    def _pass(self, line: _Station, size: float, index: int, then: Callable[[int], None]) -> None:
        bits = 8 * size
        done = line.hold(self._clock.now, bits / self._link.shared, bits / self._link.bandwidth)
        self._clock.at(done, index, partial(then, index))

    def _landed(self, index: int) -> None:
        self._after(self._link.delay(self._exchange.down), index, self._finished)

    def _finished(self, index: int) -> None:
        if len(self._done) >= self._most:
            return
        self._done.append(self._clock.now)
        self._half(index)
        if not self._overlap:
            self._begin(index)


@dataclass(frozen=True, slots=True)
class Round:
    """A step of dense all-reduce, in seconds: the slowest worker's gradient, the reduction, and all of it."""

    slowest: float
    reduction: float
    total: float


def all_reduce(workers: int, compute: Compute, size: float, optimizer: float, link: Link) -> Round:
    """A round of synchronous data parallelism by ring all-reduce, as DistributedDataParallel does it.

    Each link carries 2(W - 1)/W times the gradient in each direction, in 2(W - 1) messages one after another. Buckets
    are reduced while the rest of the backward pass is computed. All wait for the slowest worker.

    Args:
        size: bytes of the gradient.
        optimizer: seconds of the step that follows.
    """
    draws = [random.Random(f"plan {index}") for index in range(workers)]
    rounds = [max(compute(i, draw) for i, draw in enumerate(draws)) for _ in range(_CYCLES * 5)]
    slowest = sum(rounds) / len(rounds)
    if workers == 1:
        return Round(slowest, 0.0, slowest + optimizer)
    buckets = max(1, math.ceil(size / BUCKET))
    passes = 2 * (workers - 1)
    reduction = passes / workers * 8 * size / link.bandwidth + buckets * passes * link.latency
    backward = _BACKWARD * slowest
    # Buckets of one size, each reduced when it is computed and the one before is through: the longest way leads
    # through the first bucket or the last.
    tail = max(backward + reduction / buckets, backward / buckets + reduction)
    return Round(slowest, reduction, slowest - backward + tail + optimizer)
