# SPDX-License-Identifier: Apache-2.0
"""Collects what happens in a simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from torch import nn

from .node import Randomness
from .result import Point, Step

Evaluate = Callable[[nn.Module], Mapping[str, float]]
Load = Callable[[nn.Module], None]


class Recorder:
    """The log of a run.

    Args:
        shown: a model of its own, into which the server's is loaded to be evaluated.
        evaluate: measures it, or None.
        every: versions between two points; None: only the end is one.
        last: the last version, whose point is left to the end.
        seed: of the random numbers that `evaluate` may draw.
    """

    def __init__(
        self, shown: nn.Module, evaluate: Evaluate | None, every: int | None, last: int, seed: int
    ) -> None:
        self.shown, self._evaluate, self._every, self._last = shown, evaluate, every, last
        self._own = Randomness(seed)
        self.points: list[Point] = []
        self.steps: list[Step] = []
        self.staleness: Counter[int] = Counter()
        self.bytes_up = self.bytes_down = 0
        self.reached = 0.0  # when the version was made that is the last so far
        self._counted = 0  # steps that are in a point's training loss

    def step(self, time: float, worker: int, loss: float) -> None:
        """A gradient is ready."""
        self.steps.append(Step(time, worker, loss))

    def version(self, time: float, version: int, load: Load) -> None:
        """A version was made: takes a point if one is due."""
        self.reached = time
        if self._every is not None and version % self._every == 0 and version < self._last:
            self.point(version, load)

    def point(self, version: int, load: Load) -> None:
        """Evaluates the model of now, which `load` copies into `shown`."""
        load(self.shown)
        measured: Mapping[str, float] = {}
        if self._evaluate is not None:
            with self._own:
                measured = dict(self._evaluate(self.shown))
        fresh = self.steps[self._counted :]
        self._counted = len(self.steps)
        loss = sum(s.loss for s in fresh) / len(fresh) if fresh else math.nan
        self.points.append(Point(self.reached, version, self.bytes_up, self.bytes_down, loss, measured))
