# SPDX-License-Identifier: Apache-2.0
"""The network between workers and server, and the server's own time, in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError

Rate = float | Sequence[float]


@dataclass(frozen=True, slots=True)
class Network:
    """Rates in bits per second (of payload: take off what Ethernet, IP and TCP add), latency in seconds one way.

    Args:
        up: a worker's own link to the network; a sequence has one for each worker.
        down: the same in the other direction.
        server_in: the server's link, which all pushes share.
        server_out: the server's link, which all replies share.
        latency: from a worker to the server, and as much back.
    """

    up: Rate = math.inf
    down: Rate = math.inf
    server_in: float = math.inf
    server_out: float = math.inf
    latency: float = 0.0

    def __post_init__(self) -> None:
        for name in ("up", "down", "server_in", "server_out"):
            given = getattr(self, name)
            for rate in given if isinstance(given, Sequence) else (given,):
                if not rate > 0:
                    raise ConfigError(f"network: {name} must be positive bits per second, got {rate}")
        if not 0 <= self.latency < math.inf:
            raise ConfigError(f"network: latency must be at least 0 seconds, got {self.latency}")

    @classmethod
    def of(cls, rate: float, latency: float = 0.0) -> Network:
        """Every link of the same rate, the server's too: machines at one switch."""
        return cls(rate, rate, rate, rate, latency)

    def check(self, workers: int) -> None:
        """Raises ConfigError unless there is a rate for each of so many workers."""
        for name in ("up", "down"):
            given = getattr(self, name)
            if isinstance(given, Sequence) and len(given) != workers:
                raise ConfigError(f"network: {name} holds {len(given)} rates for {workers} workers")


@dataclass(frozen=True, slots=True)
class ServerCost:
    """What the server takes for a frame: `seconds`, and `per_byte` of the frame and of its reply."""

    seconds: float = 0.0
    per_byte: float = 0.0

    def __post_init__(self) -> None:
        for name in ("seconds", "per_byte"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"server cost: {name} must be at least 0, got {getattr(self, name)}")

    def of(self, size: int) -> float:
        """Seconds for a frame and reply of so many bytes together."""
        return self.seconds + self.per_byte * size


@dataclass(slots=True)
class Line:
    """One that serves in the order of coming: a direction of the server's link, or its processor."""

    rate: float = math.inf  # bits per second
    busy: float = 0.0  # seconds
    _free: float = field(default=0.0, repr=False)

    def carry(self, now: float, size: int, own: float) -> float:
        """When the last of `size` bytes is through, which the worker's `own` link passes at its own rate.

        They hold this line for as long as it alone would take: the rest of its rate is there for others meanwhile.
        """
        begin = self.hold(now, 8 * size / self.rate)
        return max(self._free, begin + 8 * size / own)

    def hold(self, now: float, seconds: float) -> float:
        """Occupies the line for `seconds`, from when it is free; returns when that is."""
        begin = max(now, self._free)
        self._free = begin + seconds
        self.busy += seconds
        return begin


def rate_of(rate: Rate, index: int) -> float:
    """A worker's rate in bits per second."""
    return rate[index] if isinstance(rate, Sequence) else rate
