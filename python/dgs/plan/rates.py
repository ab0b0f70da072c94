# SPDX-License-Identifier: Apache-2.0
"""Gradients a second: of asynchronous workers at one server, and of dense all-reduce.

Connections share a link, and sessions the server's cores, in equal parts. A closed network of such stations has a
product form whatever the distribution of times at them is (Baskett, Chandy, Muntz and Palacios 1975), so that its
throughput is exact by convolution (Buzen 1973), and needs no clock and no random numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..simulate.compute import Compute
from ..transport.gloo import FIRST

PAYLOAD = 0.94  # of a link's rate: what Ethernet, IP and TCP headers leave, 941 Mbit/s of a gigabit
BUCKET = 25 * 2**20  # bytes that DistributedDataParallel reduces at a time
_BACKWARD = 2 / 3  # of a gradient's time
_ROUNDS = 200  # whose slowest gradients are averaged


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


def asynchronous(
    gradients: Sequence[float], exchange: Exchange, link: Link, *, overlap: bool = False, cores: int = 1
) -> Throughput:
    """The throughput of workers that exchange with one server, each as soon as it has a gradient.

    Args:
        gradients: each worker's mean seconds of a gradient.
        exchange: what one moves and costs.
        link: the network. A frame passes its worker's link and its share of the server's at once.
        overlap: each worker computes its next gradient while the exchange is under way.
        cores: frames that the server handles at once.
    """
    workers, each = len(gradients), min(link.bandwidth, link.shared)
    lanes = link.shared / each if math.isfinite(each) else 1.0
    stations = [(8 * exchange.up / each, lanes), (8 * exchange.down / each, lanes), (exchange.server, cores)]
    latency = link.delay(exchange.up) + link.delay(exchange.down)
    # Workers of unequal speed count as equal ones of the same rate: exact where none waits, and where all do.
    alone = workers / sum(1 / (seconds + exchange.worker) for seconds in gradients)
    # With overlap the longer of the gradient and the exchange makes the round, and hides the other.
    together = _closed(workers, latency, stations)
    rate = min(workers / alone, together) if overlap else _closed(workers, alone + latency, stations)
    busy = (min(1.0, rate * seconds / many) for seconds, many in stations)
    return Throughput(rate, *busy)


def _closed(workers: int, apart: float, stations: Sequence[tuple[float, float]]) -> float:
    """Rounds a second of a closed network.

    Args:
        apart: seconds of a round in which nobody waits for another.
        stations: what is shared: seconds for one that is alone there, and how many are as fast as one.
    """
    count = torch.arange(workers + 1, dtype=torch.float64)
    ways = _powers(apart, count) - torch.lgamma(count + 1)
    for seconds, many in stations:
        if seconds > 0:
            ahead = count[1:].clamp(max=many).log().cumsum(0)
            ways = _convolved(ways, _powers(seconds, count) - torch.cat([torch.zeros(1), ahead]))
    # ways[w]: the logarithm of the sum over all ways to have w workers at the stations; exp gives the rate.
    return math.exp(float(ways[workers - 1] - ways[workers]))


def _powers(seconds: float, count: Tensor) -> Tensor:
    """Logarithms of seconds ** count; of 0 ** 0 too."""
    return count * math.log(seconds) if seconds > 0 else torch.where(count == 0, 0.0, -math.inf).double()


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """The logarithm of the convolution of exp(a) and exp(b), as long as each of them."""
    index = torch.arange(len(a))
    gap = index[:, None] - index
    return torch.where(gap < 0, -math.inf, a + b[gap.clamp(min=0)]).logsumexp(1)


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
    rounds = [max(compute(i, draw) for i, draw in enumerate(draws)) for _ in range(_ROUNDS)]
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
