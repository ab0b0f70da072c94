# SPDX-License-Identifier: Apache-2.0
"""How long a worker takes to compute a gradient: a function of the worker's number, from its own random numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError

Compute = Callable[[int, random.Random], float]
"""Seconds of the next gradient of worker `index` (from 0), which draws from that worker's generator."""


@dataclass(frozen=True, slots=True)
class Always:
    """Every gradient takes `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        _positive("seconds", self.seconds)

    def __call__(self, index: int, draw: random.Random) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lognormal times of this mean; `sigma` is the deviation of their logarithm."""

    mean: float
    sigma: float = 0.25

    def __post_init__(self) -> None:
        _positive("mean", self.mean)
        _positive("sigma", self.sigma)

    def __call__(self, index: int, draw: random.Random) -> float:
        return draw.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential times of this mean: as irregular as machines that many share."""

    mean: float

    def __post_init__(self) -> None:
        _positive("mean", self.mean)

    def __call__(self, index: int, draw: random.Random) -> float:
        return draw.expovariate(1 / self.mean)


@dataclass(frozen=True, slots=True)
class Straggler:
    """Times of `others`, and `factor` times as much for one worker."""

    others: Compute
    factor: float = 4.0
    worker: int = 0

    def __post_init__(self) -> None:
        _positive("factor", self.factor)

    def __call__(self, index: int, draw: random.Random) -> float:
        return self.others(index, draw) * (self.factor if index == self.worker else 1.0)


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} of a compute time must be positive and finite, got {value}")
