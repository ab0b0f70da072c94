# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run: a record now and then, what evaluations gave, who came and went, and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """The run at one time. Rates and means are of the interval since the record before; sums of the whole run."""

    time: float  # seconds since 1970
    seconds: float  # since the first worker came
    version: int
    workers: int  # that are there
    samples: int  # that workers have told of
    samples_per_second: float
    steps_per_second: float  # versions
    loss: float | None  # mean over the interval's samples; None if no worker told one
    staleness: float | None  # mean over the interval's pushes
    bytes_up: int  # of all frames
    bytes_down: int
    compression_up: float | None  # bytes of the dense model over those of a push; None where nothing is sent
    compression_down: float | None  # and of what comes back
    waiting: float | None  # part of the workers' time that they waited for the network
    eta: float | None  # seconds


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation of the server's model gave, and where the run was when it began."""

    time: float
    seconds: float
    version: int
    bytes_up: int
    bytes_down: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """A worker came or went."""

    time: float
    seconds: float
    version: int
    rank: int
    event: str  # "joined", or a Report's outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSummary:
    """One worker over the whole run so far."""

    rank: int
    outcome: str
    reason: str
    exchanges: int
    version: int  # of the weights that it holds
    staleness: int  # of its last push
    mean_staleness: float
    bytes_up: int  # of all frames
    bytes_down: int
    pushed: int  # of the pushes alone
    pulled: int
    samples: int
    seconds: float  # that it was there, until it told last
    samples_per_second: float  # when it told last
    loss: float | None
    waiting: float | None  # part of its time
    exchange_seconds: float  # mean time of an exchange in the server
    residual: float  # ‖θ - b‖ at the last look, every 64 pulls; 0 before
    behind: float  # the same over the norm of a push


@dataclass(frozen=True, slots=True)
class Summary:
    """The run so far, and when it is over how it ended."""

    version: int
    seconds: float
    ended: str | None  # None: it goes on
    workers: tuple[WorkerSummary, ...]
    staleness: Mapping[int, int] = field(default_factory=dict)  # pushes by staleness
