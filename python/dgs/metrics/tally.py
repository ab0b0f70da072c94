# SPDX-License-Identifier: Apache-2.0
"""Counting, one worker at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from ..observer import Exchanged, Member, Told
from .record import WorkerSummary

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Histogram:
    """How many times fell under each of BOUNDS and above the last, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Tally:
    """What one worker has done; the Collector's lock guards it."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self._earlier = 0, 0  # bytes up and down of those who had the rank before, less what this member began with
        self.exchanges = self.version = self.last_staleness = self.pushed = self.pulled = 0
        self.staleness: Counter[int] = Counter()
        self.latency = Histogram()
        self.asked = float("-inf")  # when it was last asked to tell
        self.samples, self.rate = 0, 0.0
        self.loss: float | None = None
        self.seconds = self.waited = 0.0
        self._told = Told(0.0, 0.0, 0)

    def joined(self, member: Member) -> None:
        """Another process may have the rank now; its record may hold what the one before sent, or begin anew."""
        self._earlier = self.bytes_up - member.bytes_up, self.bytes_down - member.bytes_down
        self.member, self.asked = member, float("-inf")

    @property
    def bytes_up(self) -> int:
        """Of all frames, whoever had the rank."""
        return self._earlier[0] + self.member.bytes_up

    @property
    def bytes_down(self) -> int:
        return self._earlier[1] + self.member.bytes_down

    def exchanged(self, exchange: Exchanged) -> None:
        self.exchanges += 1
        self.version, self.last_staleness = exchange.version, exchange.staleness
        self.pushed += exchange.up
        self.pulled += exchange.down
        self.staleness[exchange.staleness] += 1
        self.latency.add(exchange.seconds)

    def told(self, told: Told) -> Told:
        """Takes what the worker told, and returns what is new in it."""
        before = self._told
        if told.seconds < before.seconds or told.samples < before.samples:  # another process took the rank
            before = Told(0.0, 0.0, 0)
        fresh = Told(
            told.seconds - before.seconds,
            max(0.0, told.waiting - before.waiting),
            told.samples - before.samples,
            told.loss,
            told.measured,
        )
        self._told = told
        self.samples += fresh.samples
        self.seconds += fresh.seconds
        self.waited += fresh.waiting
        if fresh.seconds > 0:
            self.rate = fresh.samples / fresh.seconds
        self.loss = self.loss if told.loss is None else told.loss
        return fresh

    def summary(self) -> WorkerSummary:
        member, exchanges = self.member, max(1, self.exchanges)
        return WorkerSummary(
            rank=member.rank,
            outcome=member.outcome,
            reason=member.reason,
            exchanges=self.exchanges,
            version=self.version,
            staleness=self.last_staleness,
            mean_staleness=sum(age * n for age, n in self.staleness.items()) / exchanges,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            pushed=self.pushed,
            pulled=self.pulled,
            samples=self.samples,
            seconds=self.seconds,
            samples_per_second=self.rate,
            loss=self.loss,
            waiting=min(1.0, self.waited / self.seconds) if self.seconds > 0 else None,
            exchange_seconds=self.latency.sum / exchanges,
            residual=member.residual,
            behind=member.behind,
        )
