# SPDX-License-Identifier: Apache-2.0
"""What came out of a simulation."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..exchange import Traffic
from ..server import WorkerRecord


@dataclass(frozen=True, slots=True)
class Point:
    """The server's model at a version.

    `time` is virtual seconds; bytes are those of all frames sent by then; `training_loss` is the mean over the
    workers' steps since the point before; `measured` is what `evaluate` returned.
    """

    time: float
    version: int
    bytes_up: int
    bytes_down: int
    training_loss: float
    measured: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """One gradient: when it was ready, whose, and the loss."""

    time: float
    worker: int
    loss: float


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker did with its time, in virtual seconds, and what went over its link.

    The `waiting` of `traffic` is this process's own, not virtual.
    """

    present: float
    computing: float
    steps: int
    pushes: int
    traffic: Traffic

    @property
    def utilisation(self) -> float:
        """The part of the time that it computed."""
        return self.computing / self.present if self.present else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.

    Attributes:
        model: holds the server's last parameters and buffers.
        digest: a hash of those parameters, bit for bit.
        seconds: virtual, until the last version was made.
        version: pushes that the server applied.
        points: the model on its way, the last one of its end, with the workers' last buffers.
        steps: every gradient, in the order of virtual time.
        staleness: how many of the applied pushes were computed at weights so many versions old.
        workers: by index.
        server_in, server_out, server: the part of the time until the last worker left that the server's link, each
            way, and it were busy.
        ended: the server's record of each worker that joined, with its outcome.
    """

    model: nn.Module
    digest: str
    seconds: float
    version: int
    points: Sequence[Point]
    steps: Sequence[Step]
    staleness: Counter[int]
    workers: Sequence[Use]
    server_in: float
    server_out: float
    server: float
    ended: Sequence[WorkerRecord]

    @property
    def rate(self) -> float:
        """Applied pushes (mode sgd: steps) per virtual second."""
        return self.version / self.seconds if self.seconds else 0.0

    @property
    def mean_staleness(self) -> float:
        pushes = sum(self.staleness.values())
        return sum(age * n for age, n in self.staleness.items()) / pushes if pushes else 0.0

    def per_exchange(self, way: str) -> float:
        """Mean bytes of a push ("up") or of its reply ("down"); 0 where nothing was exchanged."""
        pushes = sum(use.pushes for use in self.workers)
        return sum(getattr(use.traffic, f"bytes_{way}") for use in self.workers) / pushes if pushes else 0.0

    def write_csv(self, path: Path) -> None:
        """The points, a line each, under the names of their fields and of what was measured."""
        names = list(self.points[0].measured) if self.points else []
        with path.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["seconds", "version", "bytes_up", "bytes_down", "training_loss", *names])
            for p in self.points:
                row = [p.time, p.version, p.bytes_up, p.bytes_down, p.training_loss]
                out.writerow([*row, *(p.measured[name] for name in names)])
