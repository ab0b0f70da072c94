# SPDX-License-Identifier: Apache-2.0
"""Schedules of the density: what fraction of each tensor is sent at which point of the run."""

from __future__ import annotations

import numbers
from typing import Protocol

from .errors import ConfigError


def check_density(density: float, what: str = "density") -> float:
    """Returns `density` if it lies in (0, 1], else raises ConfigError."""
    if not isinstance(density, numbers.Real) or not 0.0 < density <= 1.0:
        raise ConfigError(f"{what} must be in (0, 1], got {density!r:.80}")
    return float(density)


class DensitySchedule(Protocol):
    """The density at a server version; `lr_ratio` is the group's learning rate over its initial one."""

    def __call__(self, version: int, lr_ratio: float) -> float: ...


class Constant:
    """The same density throughout."""

    def __init__(self, density: float) -> None:
        self.density = check_density(density)

    def __call__(self, version: int, lr_ratio: float) -> float:
        return self.density


class WarmUp:
    """max(0.25^(e+1), density) in epoch e: the warm-up of Deep Gradient Compression (arXiv 1712.01887, §3.3).

    Args:
        density: the density after the warm-up, in (0, 1].
        steps: pushes of all workers in one epoch.
    """

    def __init__(self, density: float, steps: int) -> None:
        if steps < 1:
            raise ConfigError(f"warm-up steps must be at least 1, got {steps}")
        self.density, self.steps = check_density(density), steps

    def __call__(self, version: int, lr_ratio: float) -> float:
        return max(0.25 ** (version // self.steps + 1), self.density)


class CoupledToLR:
    """density · lr / initial lr, at least `floor`: fewer entries as the steps grow smaller."""

    def __init__(self, density: float, floor: float = 1e-4) -> None:
        self.density, self.floor = check_density(density), check_density(floor, "floor")

    def __call__(self, version: int, lr_ratio: float) -> float:
        return min(1.0, max(self.density * lr_ratio, self.floor))
