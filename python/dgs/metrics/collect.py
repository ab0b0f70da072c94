# SPDX-License-Identifier: Apache-2.0
"""Gathers what happens in a run: a few additions under a lock per exchange, and nothing model-sized."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from ..errors import ConfigError
from ..observer import Exchanged, Member, Observer, Told
from .record import Evaluation, Event, Record, Summary, WorkerSummary
from .tally import Histogram, Tally

_RATE_OVER = 60.0  # seconds, of the rate that the time left is counted by


class Collector(Observer):
    """The numbers of one run. Its methods may be called from any thread.

    Args:
        dense_bytes: of all parameters in float32.
        end: the version at which the run is done, if there is one.
        every: seconds between two tellings of a worker.
        clock: seconds since 1970, which must not run backwards; by default the machine's as it was at the start.
    """

    def __init__(
        self, dense_bytes: int, end: int | None, every: float, clock: Callable[[], float] | None = None
    ) -> None:
        self.dense_bytes, self.end = dense_bytes, end
        self._every, self._clock = every, clock or _steady()
        self._lock = threading.Lock()  # over all below
        self._tallies: dict[int, Tally] = {}  # by rank; a rank keeps its numbers whoever has it
        self._version = 0
        self._began: float | None = None  # when the first worker came
        self._news: list[Evaluation | Event] = []
        self._fresh = _Interval()  # since the last record
        self._recorded: Record | None = None
        self._pace: deque[tuple[float, int]] = deque()  # when a record was made, at which version

    def due(self, rank: int) -> bool:
        with self._lock:
            tally, now = self._tallies.get(rank), self._clock()
            if tally is None or now - tally.asked < self._every:
                return False
            tally.asked = now
            return True

    def joined(self, worker: Member) -> None:
        with self._lock:
            if self._began is None:
                self._began = self._clock()
            known = self._tallies.get(worker.rank)
            if known is None:
                self._tallies[worker.rank] = Tally(worker)
            else:
                known.joined(worker)
            self._happened(worker.rank, "joined")

    def exchanged(self, worker: Member, exchange: Exchanged) -> None:
        with self._lock:
            tally = self._tallies[worker.rank]
            tally.exchanged(exchange)
            self._version = max(self._version, exchange.version)
            self._fresh.staleness += exchange.staleness
            self._fresh.exchanges += 1

    def told(self, worker: Member, told: Told) -> None:
        with self._lock:
            fresh = self._tallies[worker.rank].told(told)
            self._fresh.add(fresh.seconds, fresh.waiting, fresh.samples, fresh.loss)
            if fresh.measured:
                self._evaluated(self._version, fresh.measured)

    def left(self, worker: Member) -> None:
        with self._lock:
            self._happened(worker.rank, worker.outcome, worker.reason)

    def _happened(self, rank: int, event: str, reason: str = "") -> None:
        now = self._clock()
        self._news.append(Event(now, self._elapsed(now), self._version, rank, event, reason))

    def stamp(self) -> Callable[[int, Mapping[str, float]], None]:
        """Where the run is now; the function that comes back takes what an evaluation of this moment gave."""
        with self._lock:
            now, (up, down) = self._clock(), self._bytes()
            seconds = self._elapsed(now)

        def evaluated(version: int, values: Mapping[str, float]) -> None:
            found = Evaluation(now, seconds, version, up, down, _numbers(values))
            with self._lock:
                self._version = max(self._version, version)
                self._news.append(found)

        return evaluated

    def _evaluated(self, version: int, values: Mapping[str, float]) -> None:
        now, (up, down) = self._clock(), self._bytes()
        self._news.append(Evaluation(now, self._elapsed(now), version, up, down, values))

    def news(self) -> list[Evaluation | Event]:
        """What has happened since the last call."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def record(self) -> Record | None:
        """The run now; None before the first worker came, and where nothing has changed since the last."""
        with self._lock:
            if self._began is None:
                return None
            made = self._record(self._clock())
            if self._recorded is not None and made.seconds <= self._recorded.seconds:
                return None
            self._recorded, self._fresh = made, _Interval()
            return made

    def _record(self, now: float) -> Record:
        seconds, before, fresh = self._elapsed(now), self._recorded, self._fresh
        tallies = list(self._tallies.values())
        here = [t for t in tallies if t.member.outcome == "alive"]
        exchanges = sum(t.exchanges for t in tallies)
        pushed, pulled = sum(t.pushed for t in tallies), sum(t.pulled for t in tallies)
        up, down = self._bytes()
        passed = seconds - (before.seconds if before else 0.0)
        made = self._version - (before.version if before else 0)
        return Record(
            time=now,
            seconds=seconds,
            version=self._version,
            workers=len(here),
            samples=sum(t.samples for t in tallies),
            samples_per_second=sum(t.rate for t in here),
            steps_per_second=made / passed if passed > 0 else 0.0,
            loss=fresh.loss,
            staleness=fresh.staleness / fresh.exchanges if fresh.exchanges else None,
            bytes_up=up,
            bytes_down=down,
            compression_up=self.dense_bytes * exchanges / pushed if pushed else None,
            compression_down=self.dense_bytes * exchanges / pulled if pulled else None,
            waiting=fresh.waiting,
            eta=self._eta(seconds),
        )

    def _eta(self, seconds: float) -> float | None:
        pace = self._pace
        pace.append((seconds, self._version))
        while pace[-1][0] - pace[0][0] > _RATE_OVER:
            pace.popleft()
        then, version = pace[0]
        if self.end is None or self._version <= version:
            return None
        return max(0, self.end - self._version) * (seconds - then) / (self._version - version)

    def _elapsed(self, now: float) -> float:
        return max(0.0, now - self._began) if self._began is not None else 0.0

    def _bytes(self) -> tuple[int, int]:
        tallies = self._tallies.values()
        return sum(t.bytes_up for t in tallies), sum(t.bytes_down for t in tallies)

    def workers(self) -> tuple[WorkerSummary, ...]:
        """Every worker that ever came, by rank."""
        with self._lock:
            return tuple(self._tallies[rank].summary() for rank in sorted(self._tallies))

    def latencies(self) -> dict[int, tuple[list[int], float]]:
        """By rank, how many exchanges took how long (dgs.metrics.tally.BOUNDS), and the sum of their seconds."""

        def copied(h: Histogram) -> tuple[list[int], float]:
            return list(h.counts), h.sum

        with self._lock:
            return {rank: copied(tally.latency) for rank, tally in self._tallies.items()}

    def summary(self, ended: str | None = None) -> Summary:
        """The run so far; `ended`: how, if it has."""
        workers = self.workers()
        with self._lock:
            ages: Counter[int] = Counter()
            for tally in self._tallies.values():
                ages.update(tally.staleness)
            return Summary(
                self._version, self._elapsed(self._clock()), ended, workers, dict(sorted(ages.items()))
            )


def _steady() -> Callable[[], float]:
    """Seconds since 1970, whoever sets the clock meanwhile."""
    behind = time.time() - time.monotonic()
    return lambda: behind + time.monotonic()


class _Interval:
    """Sums between two records."""

    def __init__(self) -> None:
        self.exchanges = self.staleness = self.weight = 0
        self._seconds = self._waited = self._loss = 0.0

    def add(self, seconds: float, waiting: float, samples: int, loss: float | None) -> None:
        self._seconds += seconds
        self._waited += waiting
        if loss is not None and samples:
            self._loss += loss * samples
            self.weight += samples

    @property
    def loss(self) -> float | None:
        return self._loss / self.weight if self.weight else None

    @property
    def waiting(self) -> float | None:
        return min(1.0, self._waited / self._seconds) if self._seconds > 0 else None


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    """What an evaluation returned, as floats; ConfigError when it is anything but numbers by name."""
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"an evaluation must return numbers by name, such as {{'accuracy': 0.9}}, or None; got {values!r:.80}"
        )
    try:
        return {str(name): float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"an evaluation must return numbers by name: {error}") from None
